//! One publish past the hooks and the rules of topics, live or as a will.

use bytes::Bytes;
use hook::{Origin, Properties, Protocol, Qos, Reason, ReasonKind};

use crate::{
    behind::Later,
    counters::{Tally, Totals},
    exchange::{Draft, Exchange, NOT_RETAINED, Route, Routed},
    hooks::{Outcome, View},
    message::Message,
    session::Session,
    topic::check_name,
};

/// What became of a publish.
pub(crate) enum Submitted {
    /// It is with its receivers, or on the way to them.
    Routed(Routed),
    /// A hook took it.
    Consumed,
    /// A hook or a rule refused it.
    Refused(Reason),
}

/// A publish as it enters the broker, live or as a will.
pub(crate) struct Submission<'a> {
    /// The topic name, checked.
    pub topic: &'a str,
    pub payload: &'a [u8],
    /// The payload again, where it need not be copied.
    pub shared: Option<&'a Bytes>,
    pub qos: Qos,
    pub retain: bool,
    pub origin: Origin,
    pub properties: Option<Box<Properties>>,
    /// See [`Draft::received`].
    pub received: Option<(u64, u16)>,
    /// See [`Draft::follows`].
    pub follows: bool,
}

impl Exchange {
    /// A publish past the hooks and the rules of topics, to its receivers.
    pub fn submit(
        &self,
        view: &mut View<'_>,
        session: &Session,
        submission: Submission<'_>,
        route: &mut Option<Box<Route>>,
        tally: &mut Tally,
    ) -> Submitted {
        let refused = |why, tally: &mut Tally| {
            tally.refused += 1;
            Submitted::Refused(why)
        };
        let Submission { topic, payload, shared, qos, retain, origin, .. } = submission;
        let Submission { properties, received, follows, .. } = submission;
        if let Err(why) = self.hooks.authorize_publish(view.client, topic) {
            return refused(why, tally);
        }
        let shown = hook::Publish {
            topic,
            payload,
            qos,
            retain,
            origin,
            properties: properties.as_deref(),
        };
        let (new_topic, new_payload) = match self.hooks.publish(view, &shown) {
            Outcome::Route(topic, payload) => (topic, payload),
            Outcome::Consumed => {
                tally.publishes_consumed += 1;
                return Submitted::Consumed;
            }
            Outcome::Rejected(why) => return refused(why, tally),
        };
        if let Some(Err(error)) = new_topic.as_deref().map(check_name) {
            return refused(Reason::new(ReasonKind::TopicNameInvalid, error.to_string()), tally);
        }
        let topic = new_topic.as_deref().unwrap_or(topic);
        if topic.starts_with('$') {
            // The broker's own; what plugins take below `$` they have consumed above.
            let text = "topics that begin with $ belong to the broker";
            return refused(Reason::new(ReasonKind::NotAuthorized, text), tally);
        }
        let payload = new_payload
            .or_else(|| shared.cloned())
            .unwrap_or_else(|| Bytes::copy_from_slice(payload));
        let draft = Draft {
            payload,
            qos,
            retain,
            properties,
            publisher: session.key,
            ingress: session.lane,
            received,
            follows,
            // [MQTT-3.3.1-5] holds or the publisher hears that it does not.
            may_refuse: origin == Origin::Live
                && qos != Qos::AtMostOnce
                && view.client.protocol == Protocol::V5,
        };
        match self.publish(topic, draft, route, tally) {
            Routed::NotRetained => {
                refused(Reason::new(ReasonKind::QuotaExceeded, NOT_RETAINED), tally)
            }
            routed => Submitted::Routed(routed),
        }
    }

    /// A will, or another message without a connection, past the same hooks and rules. Where it
    /// is not with its receivers yet, what sees to it is returned.
    pub(crate) fn publish_checked(
        &self,
        view: &mut View<'_>,
        session: &Session,
        message: &Message,
    ) -> Option<Later> {
        let mut tally = Tally::default();
        let submission = Submission {
            topic: &message.topic,
            payload: &message.payload,
            shared: Some(&message.payload),
            qos: message.qos,
            retain: message.retain,
            // [MQTT-3.1.2-14], [MQTT-3.1.2-15]: retained as it asks.
            origin: Origin::Will,
            properties: message.properties.as_deref().cloned().map(Box::new),
            received: None,
            follows: false,
        };
        let mut later = None;
        match self.submit(view, session, submission, &mut None, &mut tally) {
            Submitted::Routed(Routed::Pending(pending)) => {
                later = self.finish_later([pending]);
            }
            Submitted::Routed(Routed::Unwritable) => {
                Totals::count(&self.totals.dropped);
                tracing::warn!(
                    client = &*session.client_id,
                    "a will was dropped: the broker's log cannot be written"
                );
            }
            Submitted::Routed(_) | Submitted::Consumed => {}
            Submitted::Refused(why) => {
                tracing::info!(client = &*session.client_id, why = %why.text, "will refused");
            }
        }
        tally.flush(&self.totals);
        later
    }
}
