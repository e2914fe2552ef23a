//! One publish to all its receivers.

use bytes::Bytes;
use hook::{Identity, Properties, Qos, Seldom};
use std::sync::Arc;

use crate::{
    counters::{Tally, Totals},
    crowd::Crowded,
    hooks::Hooks,
    index::{Index, Receiver, Receivers},
    journal::{Journal, Published, Record, wall_seconds},
    keep_alive::KeepAlives,
    lanes::Lanes,
    left::Left,
    limits::LiveLimits,
    message::{Carried, Message},
    pace::Pace,
    pending::{Log, Pending},
    registry::Registry,
    retained::{Retained, Stored},
    session::Session,
    settings::Settings,
};

/// Receivers served at QoS 1 and 2 before others may run.
pub(crate) const YIELD_AFTER: usize = 256;

/// Who gets a topic is looked up each time where they are more: it costs little beside what they are
/// sent, and thousands of publishers would each keep a list of thousands.
const KEPT_RECEIVERS: usize = 64;

/// Why a retained publish was refused, or not retained.
pub(crate) const NOT_RETAINED: &str =
    "not retained: limits.retained_messages or limits.retained_bytes is reached";

/// All that connections share.
pub(crate) struct Exchange {
    pub settings: Settings,
    pub limits: Arc<LiveLimits>,
    pub pace: Pace,
    pub hooks: Hooks,
    pub index: Arc<Index>,
    pub retained: Retained,
    pub registry: Arc<Registry>,
    pub keep_alives: KeepAlives,
    /// `None` where nothing is to survive the process.
    pub journal: Option<Arc<Journal>>,
    pub lanes: Arc<Lanes>,
    pub left: Arc<Left>,
    pub totals: Arc<Totals>,
    /// The log's line on messages that were not retained.
    pub not_retained: Seldom,
}

/// Who gets a topic, kept by a publisher from one message to the next: it holds until the index
/// changes.
pub(crate) struct Route {
    topic: Arc<str>,
    version: u64,
    receivers: Arc<Receivers>,
}

/// What a publish carries, before it has an order and receivers.
pub(crate) struct Draft {
    pub payload: Bytes,
    pub qos: Qos,
    pub retain: bool,
    pub properties: Option<Box<Properties>>,
    /// Session key of the publisher; 0 is the broker.
    pub publisher: u64,
    /// The publisher's ingress into the router.
    pub ingress: usize,
    /// Session key and packet id, at QoS 2 from a session that lasts.
    pub received: Option<(u64, u16)>,
    /// An earlier publish of the same connection is not in the queues yet.
    pub follows: bool,
    /// Its publisher is told where it is refused.
    pub may_refuse: bool,
}

/// What became of a publish.
pub(crate) enum Routed {
    /// It is with its receivers.
    Done,
    /// The same; it is the first thing that its one receiver has to do.
    Woke(Arc<Session>),
    /// The same, and its publisher should wait for one of them.
    Crowded(Crowded),
    /// It is still to be waited for, before it is acknowledged.
    Pending(Box<Pending>),
    /// It needs the log, which cannot be written; nobody got it.
    Unwritable,
    /// There is no room to retain it, and its publisher is told; nobody got it.
    NotRetained,
}

/// What the log and the lanes are to know of a message on its way to its receivers.
#[derive(Default)]
pub(crate) struct How {
    /// See [`Draft::ingress`].
    pub ingress: usize,
    /// It is its topic's retained message, and the log has to know.
    pub retained: bool,
    /// See [`Draft::received`].
    pub received: Option<(u64, u16)>,
    /// Session and delivery in whose place it comes.
    pub instead: Option<(u64, u64)>,
    /// See [`Draft::follows`].
    pub follows: bool,
}

impl Exchange {
    /// The receivers of a topic, from `cached` where that still holds.
    fn receivers(
        &self,
        topic: &Arc<str>,
        publisher: u64,
        cached: &mut Option<Box<Route>>,
    ) -> Arc<Receivers> {
        match cached {
            Some(route) if route.topic == *topic && route.version == self.index.version() => {
                route.receivers.clone()
            }
            _ => {
                let (receivers, version) = self.index.receivers(topic, publisher);
                let few = receivers.sessions.len() + receivers.groups.len() <= KEPT_RECEIVERS;
                let receivers = Arc::new(receivers);
                *cached = few.then(|| {
                    let (topic, receivers) = (topic.clone(), receivers.clone());
                    Box::new(Route { topic, version, receivers })
                });
                receivers
            }
        }
    }

    /// Retains and distributes one publish; its topic has been checked.
    pub fn publish(
        &self,
        topic: &str,
        draft: Draft,
        cached: &mut Option<Box<Route>>,
        tally: &mut Tally,
    ) -> Routed {
        let topic: Arc<str> = match cached {
            Some(route) if *route.topic == *topic => route.topic.clone(),
            _ => topic.into(),
        };
        let Draft { payload, qos, retain, properties, publisher, ingress, .. } = draft;
        let Draft { received, follows, may_refuse, .. } = draft;
        // Topics below `$` are the broker's own, and made anew by each start.
        let lasts = retain && self.journal.is_some() && !topic.starts_with('$');
        if lasts && qos != Qos::AtMostOnce && self.log_is_failing() {
            return Routed::Unwritable;
        }
        let make = |sequence| {
            Arc::new(Message {
                topic,
                payload,
                qos,
                retain,
                expires: Message::expiry(properties.as_deref()),
                properties: properties.map(Carried::from),
                publisher,
                sequence,
            })
        };
        // [MQTT-3.3.1-5]: retained before the index is read, so that a subscriber that comes
        // meanwhile finds it in one of the two.
        // [MQTT-3.3.1-8]
        let stored = match retain {
            true => self.retained.store(may_refuse, make),
            false => Stored::Kept(make(0)),
        };
        let (message, kept) = match stored {
            Stored::Kept(message) => (message, true),
            Stored::Refused => {
                self.note_not_retained(tally);
                return Routed::NotRetained;
            }
            Stored::Passing { message, outdated } => {
                self.note_not_retained(tally);
                if let (true, Some(place), Some(journal)) = (lasts, outdated, &self.journal) {
                    journal.append(retained_record(&cleared(&message.topic, place)));
                }
                (message, false)
            }
        };
        let receivers = self.receivers(&message.topic, publisher, cached);
        let retained = lasts && kept;
        let how = How { ingress, retained, received, instead: None, follows };
        self.distribute(message, &receivers, how, tally)
    }

    /// Distributes a message of the broker's own to those receivers whose client `may` have it.
    pub fn publish_to(
        &self,
        topic: &str,
        payload: Bytes,
        qos: Qos,
        may: &dyn Fn(&Identity) -> bool,
        tally: &mut Tally,
    ) -> Routed {
        let (mut receivers, _) = self.index.receivers(topic, 0);
        let allowed = |receiver: &Receiver| {
            let client = receiver.session.view.lock().client.clone();
            client.is_some_and(|client| may(&client.identity))
        };
        receivers.sessions.retain(allowed);
        for group in std::mem::take(&mut receivers.groups) {
            // Of a group those come into question who may, in turn.
            let mut turns = (0..group.size()).filter_map(|_| group.pick());
            receivers.sessions.extend(turns.find(allowed));
        }
        let message = Arc::new(Message {
            topic: topic.into(),
            payload,
            qos,
            retain: false,
            properties: None,
            publisher: 0,
            sequence: 0,
            expires: None,
        });
        self.distribute(message, &receivers, How::default(), tally)
    }

    fn note_not_retained(&self, tally: &mut Tally) {
        tally.not_retained += 1;
        if let Some(times) = self.not_retained.note() {
            tracing::warn!(times, "{NOT_RETAINED}");
        }
    }

    /// Whether publishes that need the log are refused.
    pub fn log_is_failing(&self) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_failing())
    }

    /// To the queues of all receivers [MQTT-4.5.0-1], in the order in which publishers sent
    /// [MQTT-4.6.0-5], [MQTT-4.6.0-6].
    pub(crate) fn distribute(
        &self,
        message: Arc<Message>,
        receivers: &Receivers,
        how: How,
        tally: &mut Tally,
    ) -> Routed {
        let picked: Vec<Receiver>;
        let sessions = if receivers.groups.is_empty() {
            &receivers.sessions[..]
        } else {
            let members = receivers.groups.iter().filter_map(|group| group.pick());
            picked = receivers.sessions.iter().cloned().chain(members).collect();
            &picked[..]
        };
        let How { ingress, retained, received, instead, follows } = how;
        if message.qos == Qos::AtMostOnce {
            if let (true, Some(journal)) = (retained, &self.journal) {
                journal.append(retained_record(&message));
            }
            let crowded = self.lanes.send(ingress, &message, sessions, tally);
            return if crowded.is_empty() { Routed::Done } else { Routed::Crowded(crowded) };
        }
        let patience = self.limits.publish_hold();
        let lasts = |r: &Receiver| r.qos != Qos::AtMostOnce && r.session.is_durable();
        let log = self
            .journal
            .as_ref()
            .filter(|_| {
                retained || received.is_some() || instead.is_some() || sessions.iter().any(lasts)
            })
            .map(|journal| Log { journal: journal.clone(), retained, received, instead });
        match log {
            Some(log) if log.journal.is_failing() => Routed::Unwritable,
            None if !follows => Pending::push(message, sessions, patience, tally),
            log => Routed::Pending(Pending::reserve(message, sessions, log, patience, tally)),
        }
    }

    /// Drops what has expired while a session is away [MQTT-3.3.2-5].
    pub fn forget_expired(&self, session: &Session) {
        for delivery in session.inbox.take_expired() {
            if let (Some(journal), true) = (&self.journal, delivery.id != 0) {
                let (session, delivery) = (session.key, delivery.id);
                journal.append(Record::Done { session, delivery });
            }
            // Behind the record: who sees the count finds it in the log.
            Totals::count(&self.totals.dropped);
        }
    }
}

impl Exchange {
    /// Forgets the retained messages that a filter matches, and says how many; see
    /// [`hook::Broker::remove_retained`]. This is the one way besides a publish in which a
    /// retained message ends before its time.
    pub fn forget_retained(&self, filter: &str) -> usize {
        let (mut forgotten, mut after) = (0, None::<Box<str>>);
        loop {
            let page = self.retained.page(filter, after.as_deref(), YIELD_AFTER);
            for message in &page.messages {
                let empty = |sequence| cleared(&message.topic, sequence);
                if let Some(empty) = self.retained.forget(message, empty) {
                    forgotten += 1;
                    if let Some(journal) = &self.journal {
                        journal.append(retained_record(&empty));
                    }
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return forgotten,
            }
        }
    }
}

/// The message that takes a topic's retained one away.
fn cleared(topic: &Arc<str>, sequence: u64) -> Arc<Message> {
    Arc::new(Message {
        topic: topic.clone(),
        payload: Bytes::new(),
        qos: Qos::AtMostOnce,
        retain: true,
        properties: None,
        publisher: 0,
        sequence,
        expires: None,
    })
}

/// The record of a retained message that nobody waits for.
pub(crate) fn retained_record(message: &Arc<Message>) -> Record {
    Record::Publish(Box::new(Published {
        message: message.clone(),
        at: wall_seconds(),
        retained: true,
        received: None,
        instead: None,
        targets: Vec::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Server, Settings, index::Entry, topic::check_filter};

    /// What a publisher keeps between two messages is little, however many subscribers there are.
    #[tokio::test]
    async fn a_publisher_keeps_no_crowd() {
        let server = Server::start(Settings::default(), Vec::new()).unwrap();
        let exchange = server.exchange();
        let mut cached = None;
        for number in 1..=KEPT_RECEIVERS as u64 + 1 {
            let entry = Entry {
                session: Session::for_test(number),
                qos: Qos::AtMostOnce,
                no_local: false,
                retain_as_published: false,
                identifier: None,
                epoch: 0,
            };
            exchange.index.insert(check_filter("t").unwrap(), &"t".into(), entry);
            let receivers = exchange.receivers(&"t".into(), 0, &mut cached);
            assert_eq!(receivers.sessions.len() as u64, number);
            assert_eq!(cached.is_some(), number <= KEPT_RECEIVERS as u64, "{number}");
        }
    }
}
