//! One publish to all its receivers.

use bytes::Bytes;
use hook::{Identity, Properties, Qos, Seldom};
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

use crate::{
    counters::{Tally, Totals},
    crowd::Crowded,
    hooks::Hooks,
    index::{Index, Receiver, Receivers},
    journal::{Journal, Published, Record, wall_seconds},
    keep_alive::KeepAlives,
    lanes::Lanes,
    limits::LiveLimits,
    message::{Delivery, Message},
    pace::Pace,
    pending::{Log, Pending},
    registry::Registry,
    retained::{Retained, Stored},
    session::{Session, State},
    settings::Settings,
};

/// Receivers served at QoS 1 and 2 before others may run.
pub(crate) const YIELD_AFTER: usize = 256;

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

#[derive(Default)]
struct How {
    ingress: usize,
    retained: bool,
    received: Option<(u64, u16)>,
    /// Session and delivery in whose place it comes.
    instead: Option<(u64, u64)>,
    follows: bool,
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
                let receivers = Arc::new(receivers);
                let route = Route { topic: topic.clone(), version, receivers: receivers.clone() };
                *cached = Some(Box::new(route));
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
                properties,
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
    fn distribute(
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

    /// Forgets a session that the caller holds.
    pub fn end_session(&self, session: &Arc<Session>, state: &mut State) {
        let shared = shared(session, state);
        self.registry.remove(session, state, &self.index);
        self.hand_on(session, shared);
        // Behind what it leaves to others, so that no end of the process comes between.
        if let Some(journal) = self.journal.as_ref().filter(|_| session.is_durable()) {
            journal.append(Record::End { session: session.key });
        }
    }

    /// Ends a session that is away: its delayed will is due with it.
    pub fn end_away(&self, session: &Arc<Session>, mut state: OwnedMutexGuard<State>) {
        if let Some(will) = state.will.take() {
            self.publish_will(session, will);
        }
        self.end_session(session, &mut state);
    }

    /// A delayed will is due before its session ends.
    pub fn mourn(&self, session: &Session, state: &mut State) {
        if let Some(will) = state.will.take() {
            self.publish_will(session, will);
            self.log_will_over(session);
        }
    }

    /// The will of a session that lasts was published or given up.
    pub fn log_will_over(&self, session: &Session) {
        if let Some(journal) = self.journal.as_ref().filter(|_| session.is_durable()) {
            journal.append(Record::Will { session: session.key, will: None });
        }
    }

    /// Ends a session whose owner is gone: now where it is away, and else as soon as its connection
    /// has ended, which the caller has asked it to.
    pub fn end_abandoned(self: &Arc<Self>, session: Arc<Session>, owner: Identity) {
        if let Ok(state) = session.state.clone().try_lock_owned() {
            return self.end_away(&session, state);
        }
        let exchange = self.clone();
        tokio::spawn(async move {
            let state = session.state.clone().lock_owned().await;
            // It may have ended by itself, or have got another owner.
            let client = session.view.lock().client.clone();
            if !state.ended && client.is_some_and(|client| client.identity == owner) {
                exchange.end_away(&session, state);
            }
        });
    }

    /// Drops what has expired while a session is away [MQTT-3.3.2-5].
    pub fn forget_expired(&self, session: &Session) {
        for delivery in session.inbox.take_expired() {
            Totals::count(&self.totals.dropped);
            if let (Some(journal), true) = (&self.journal, delivery.id != 0) {
                let (session, delivery) = (session.key, delivery.id);
                journal.append(Record::Done { session, delivery });
            }
        }
    }

    /// What a member of shared subscriptions leaves behind goes to other members (MQTT 5.0, 4.8.2).
    /// Where there are none, or the log cannot be written, it ends with its session. One record of
    /// the log takes it from the one and gives it to the other.
    pub fn hand_on(&self, from: &Session, shared: Vec<Delivery>) {
        let (mut under_way, mut tally) = (Vec::new(), Tally::default());
        for Delivery { id, message, share, .. } in shared {
            let Some(share) = share.filter(|_| !message.expired()) else { continue };
            let (receivers, _) = self.index.receivers(&message.topic, 0);
            let mut groups = receivers.groups.iter();
            let group = groups.find(|group| group.share.0 == share.0);
            let Some(receiver) = group.and_then(|group| group.pick()) else { continue };
            let receivers = Receivers { sessions: vec![receiver], groups: Vec::new() };
            let logged = id != 0 && !self.log_is_failing();
            let how = How {
                instead: logged.then_some((from.key, id)),
                follows: !under_way.is_empty(),
                ..How::default()
            };
            if let Routed::Pending(pending) = self.distribute(message, &receivers, how, &mut tally)
            {
                under_way.push(pending);
            }
        }
        tally.flush(&self.totals);
        if !under_way.is_empty() {
            Pending::go_on_in_order(under_way, self.totals.clone());
        }
    }
}

/// What a session would leave to other members of its shared subscriptions, in the order in which
/// it would have got it.
pub(crate) fn shared(session: &Session, state: &State) -> Vec<Delivery> {
    let sent = state.window.shared().cloned();
    sent.chain(session.inbox.shared()).collect()
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
fn retained_record(message: &Arc<Message>) -> Record {
    Record::Publish(Box::new(Published {
        message: message.clone(),
        at: wall_seconds(),
        retained: true,
        received: None,
        instead: None,
        targets: Vec::new(),
    }))
}
