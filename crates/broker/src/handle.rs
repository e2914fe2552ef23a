//! The way back for plugins and the admin interface.

use bytes::Bytes;
use hook::{
    BoxFuture, Broker, ClientQuery, ClientStatus, Counters, Distribution, Identity, Properties,
    Protocol, Qos, Reason, ReasonKind, RetainedMessage, RetainedPage, SessionEnd,
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::oneshot;

use crate::{
    admission::Admission,
    counters::Tally,
    exchange::{Draft, Exchange, Routed},
    inbound::reason_code,
    inbox::Kick,
    message::Message,
    retained::Page,
    session::{Session, clock_ms},
    topic::{Filter, check_filter, check_name},
    unsettled::UNWRITABLE,
};

/// What plugins and the admin interface hold.
pub(crate) struct Handle {
    pub exchange: Arc<Exchange>,
    pub admission: Arc<Admission>,
}

impl Handle {
    /// Without the subscriptions: of all sessions they would be more than anybody reads.
    fn status(&self, session: &Session) -> ClientStatus {
        let view = session.view.lock();
        let connected = session.inbox.is_connected();
        let client = view.client.as_deref();
        let (queued_messages, queued_bytes) = session.inbox.waiting();
        ClientStatus {
            id: session.client_id.clone(),
            connected,
            identity: client.map_or(Identity::ANONYMOUS, |c| c.identity.clone()),
            protocol: client.map_or(Protocol::V311, |c| c.protocol),
            address: client.and_then(|c| c.address),
            since: view.since.elapsed(),
            idle: connected.then(|| {
                let last = session.last_packet.load(Ordering::Relaxed);
                Duration::from_millis(clock_ms().saturating_sub(last))
            }),
            queued_messages,
            queued_bytes,
            inflight: session.inflight.load(Ordering::Relaxed),
            subscription_count: session.subscriptions.lock().len(),
            subscriptions: Vec::new(),
        }
    }
}

/// A filter that stands for topics.
fn check_plain_filter(filter: &str) -> Result<(), Reason> {
    let refused = |text: String| Err(Reason::new(ReasonKind::TopicNameInvalid, text));
    match check_filter(filter) {
        Ok(Filter { share: None, .. }) => Ok(()),
        Ok(_) => refused("a shared subscription has no retained messages".into()),
        Err(error) => refused(error.to_string()),
    }
}

impl Handle {
    /// What follows from a message of a plugin.
    fn published(&self, topic: &str, routed: Routed, mut tally: Tally) {
        match routed {
            Routed::Done | Routed::Woke(_) | Routed::Crowded(_) | Routed::NotRetained => {}
            Routed::Pending(pending) => {
                pending.go_on(self.exchange.totals.clone());
            }
            Routed::Unwritable => {
                tally.dropped += 1;
                tracing::warn!(topic, "a plugin's publish was dropped: {UNWRITABLE}");
            }
        }
        tally.flush(&self.exchange.totals);
    }
}

impl Broker for Handle {
    fn publish(
        &self,
        topic: &str,
        payload: Bytes,
        qos: Qos,
        retain: bool,
        properties: Option<Properties>,
    ) {
        if let Err(error) = check_name(topic) {
            tracing::warn!(topic, %error, "a plugin's publish was dropped");
            return;
        }
        let properties = properties.map(Box::new);
        let draft = Draft {
            payload,
            qos,
            retain,
            properties,
            publisher: 0,
            ingress: 0,
            received: None,
            follows: false,
            may_refuse: false,
        };
        let mut tally = Tally::default();
        let routed = self.exchange.publish(topic, draft, &mut None, &mut tally);
        self.published(topic, routed, tally);
    }

    fn publish_to(&self, topic: &str, payload: Bytes, qos: Qos, may: &dyn Fn(&Identity) -> bool) {
        if let Err(error) = check_name(topic) {
            tracing::warn!(topic, %error, "a plugin's publish was dropped");
            return;
        }
        let mut tally = Tally::default();
        let routed = self.exchange.publish_to(topic, payload, qos, may, &mut tally);
        self.published(topic, routed, tally);
    }

    fn disconnect(&self, client_id: &str, reason: &Reason) -> bool {
        self.exchange.registry.find(client_id).is_some_and(|session| {
            session.inbox.kick(Kick {
                end: SessionEnd::Kicked,
                reason: reason_code(reason.kind),
                text: reason.text.clone(),
            })
        })
    }

    fn end_sessions(
        &self,
        of: &dyn Fn(&Identity) -> bool,
        reason: &Reason,
    ) -> BoxFuture<'static, bool> {
        let theirs = |session: &Arc<Session>| {
            let client = session.view.lock().client.clone()?;
            of(&client.identity).then(|| (session.clone(), client.identity.clone()))
        };
        let sessions: Vec<_> = self.exchange.registry.all().iter().filter_map(theirs).collect();
        let mut ended = Vec::with_capacity(sessions.len() + 1);
        for (session, owner) in sessions {
            let (told, one) = oneshot::channel();
            self.disconnect(&session.client_id, reason);
            self.exchange.end_abandoned(session, owner, told);
            ended.push(one);
        }
        // Those that had ended by themselves may not be in the log yet.
        if let Some(journal) = &self.exchange.journal {
            let (told, all) = oneshot::channel();
            journal.tell_written(told);
            ended.push(all);
        }
        Box::pin(async move {
            for one in ended {
                if one.await.is_err() {
                    return false;
                }
            }
            true
        })
    }

    fn clients(&self) -> Vec<ClientStatus> {
        self.exchange.registry.all().iter().map(|session| self.status(session)).collect()
    }

    fn client(&self, client_id: &str) -> Option<ClientStatus> {
        self.exchange.registry.find(client_id).map(|session| {
            let subscriptions = session.subscriptions();
            ClientStatus { subscriptions, ..self.status(&session) }
        })
    }

    fn clients_page(&self, query: &ClientQuery) -> Vec<ClientStatus> {
        let fits = |session: &Session| {
            session.client_id.starts_with(&query.prefix)
                && query.after.as_deref().is_none_or(|after| *session.client_id > *after)
                && query.connected.is_none_or(|connected| session.inbox.is_connected() == connected)
        };
        let page = self.exchange.registry.first(query.limit, fits);
        page.iter().map(|session| self.status(session)).collect()
    }

    fn retained(
        &self,
        filter: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<RetainedPage, Reason> {
        check_plain_filter(filter)?;
        let Page { messages, next } = self.exchange.retained.page(filter, after, limit);
        let one = |message: Arc<Message>| RetainedMessage {
            topic: message.topic.clone(),
            payload: message.payload.clone(),
            qos: message.qos,
            expires_in: message.seconds_left(),
        };
        Ok(RetainedPage { messages: messages.into_iter().map(one).collect(), next })
    }

    fn remove_retained(&self, filter: &str) -> Result<usize, Reason> {
        check_plain_filter(filter)?;
        if filter.starts_with('$') {
            let text = "topics that begin with $ belong to the broker";
            return Err(Reason::new(ReasonKind::NotAuthorized, text));
        }
        if self.exchange.log_is_failing() {
            return Err(Reason::new(ReasonKind::ServerBusy, UNWRITABLE));
        }
        Ok(self.exchange.forget_retained(filter))
    }

    fn publish_time(&self) -> Distribution {
        self.exchange.totals.publish_time.read()
    }

    fn counters(&self) -> Counters {
        let totals = &self.exchange.totals;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            connections: self.admission.connections() as u64,
            sessions: self.exchange.registry.len() as u64,
            subscriptions: self.exchange.index.len() as u64,
            retained_messages: self.exchange.retained.len() as u64,
            connects: read(&totals.connects),
            connects_refused: read(&totals.connects_refused),
            connections_refused: read(&self.admission.full),
            connections_refused_per_ip: read(&self.admission.crowded),
            connects_delayed: read(&self.exchange.pace.delayed),
            connects_refused_rate: read(&self.exchange.pace.refused),
            publishes_received: read(&totals.publishes_received),
            publishes_consumed: read(&totals.publishes_consumed),
            refused: read(&totals.refused),
            deliveries: read(&totals.deliveries),
            outbox_messages: read(&totals.outbox_messages),
            dropped: read(&totals.dropped),
            not_retained: read(&totals.not_retained),
            direct: read(&totals.direct),
            routed: read(&totals.routed),
            log_bytes: self.exchange.journal.as_ref().map_or(0, |journal| journal.written()),
            log_waiting: self
                .exchange
                .journal
                .as_ref()
                .map_or(0, |journal| journal.waiting() as u64),
            router_renewals: read(&totals.router_renewals),
            protocol_errors: read(&totals.protocol_errors),
            slow_clients: read(&totals.slow_clients),
        }
    }
}
