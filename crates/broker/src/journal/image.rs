//! The durable state, as records build it.
//!
//! The writer keeps one beside the log that it writes: what a start would read is always at hand,
//! a snapshot is a copy of it, and the code that reads a log after a crash runs all the time.
//! Messages are shared with the queues of the sessions, so it costs their places, not their bytes.

use hook::Qos;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::record::{Next, Owner, Published, Record, Retained, Target};
use crate::{backlog::Owed, message::Message, session::Will, subscriptions::Held};

/// All that survives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    /// Sessions by key.
    pub sessions: BTreeMap<u64, SessionImage>,
    retained: HashMap<Arc<str>, Kept>,
    /// The first numbers that are free.
    pub next: Next,
}

/// A session.
#[derive(Clone, Debug)]
pub(crate) struct SessionImage {
    /// Its client id.
    pub client_id: Arc<str>,
    /// Its last connection.
    pub owner: Owner,
    /// Seconds that it outlives its connection; `u32::MAX` is for ever.
    pub expiry: u32,
    /// When its last connection ended, in seconds since 1970; `None` while it is connected.
    pub left: Option<u64>,
    /// See [`Record::Will`].
    pub will: Option<Will>,
    /// Its subscriptions by filter.
    pub subscriptions: BTreeMap<Box<str>, Held>,
    /// What it was promised and has not acknowledged, in the order of publishing.
    pub deliveries: BTreeMap<u64, Promised>,
    /// Packet ids of QoS 2 publishes taken from its client and not yet released.
    pub received: BTreeSet<u16>,
    /// Retained messages that it is owed and that are no deliveries yet, by backlog.
    pub backlogs: BTreeMap<u64, Owed>,
}

/// A delivery that is not over.
#[derive(Clone, Debug)]
pub(crate) enum Promised {
    /// The client has not confirmed it. Where it was sent at QoS 2, the packet id stands.
    Message { message: Arc<Message>, target: Target, packet_id: Option<u16> },
    /// The client has it; a PUBREL under this packet id is due.
    Release(u16),
}

/// The retained message of a topic; without one, the topic was cleared by a publish with this
/// sequence, and older ones that are written later must not bring theirs back.
#[derive(Clone, Debug)]
struct Kept {
    sequence: u64,
    message: Option<Arc<Message>>,
}

impl Image {
    /// What a record changes. What it says of sessions or deliveries that are gone changes
    /// nothing: they ended while it was under way.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Begin { session, client_id, owner, expiry } => {
                self.next.session = self.next.session.max(session.saturating_add(1));
                let fresh = SessionImage {
                    client_id,
                    owner,
                    expiry,
                    left: None,
                    will: None,
                    subscriptions: BTreeMap::new(),
                    deliveries: BTreeMap::new(),
                    received: BTreeSet::new(),
                    backlogs: BTreeMap::new(),
                };
                self.sessions.insert(session, fresh);
            }
            Record::Resume { session, owner, expiry } => self.with(session, |s| {
                // A connection that goes on with the session makes its delayed will void.
                (s.owner, s.expiry, s.left, s.will) = (owner, expiry, None, None);
            }),
            Record::Leave { session, at, expiry } => self.with(session, |s| {
                (s.left, s.expiry) = (Some(at), expiry);
            }),
            Record::End { session } => drop(self.sessions.remove(&session)),
            Record::Subscribe { session, filter, held } => self.with(session, |s| {
                s.subscriptions.insert(filter, held);
            }),
            Record::Unsubscribe { session, filter } => self.with(session, |s| {
                s.subscriptions.remove(&filter);
            }),
            Record::Will { session, will } => self.with(session, |s| {
                s.will = will.map(|will| *will);
            }),
            Record::Publish(published) => self.publish(*published),
            Record::Received { session, packet_id } => self.with(session, |s| {
                s.received.insert(packet_id);
            }),
            Record::Released { session, packet_id } => self.with(session, |s| {
                s.received.remove(&packet_id);
            }),
            Record::Sent { session, delivery, packet_id: sent } => self.with(session, |s| {
                if let Some(Promised::Message { packet_id, .. }) = s.deliveries.get_mut(&delivery) {
                    *packet_id = Some(sent);
                }
            }),
            Record::Confirmed { session, delivery } => {
                self.with(session, |s| {
                    if let Some(promised) = s.deliveries.get_mut(&delivery)
                        && let Promised::Message { packet_id: Some(id), .. } = promised
                    {
                        *promised = Promised::Release(*id);
                    }
                });
            }
            Record::Confirming { session, delivery, packet_id } => {
                self.used(delivery);
                self.with(session, |s| {
                    s.deliveries.insert(delivery, Promised::Release(packet_id));
                });
            }
            Record::Done { session, delivery } => self.with(session, |s| {
                s.deliveries.remove(&delivery);
            }),
            Record::Owe { session, backlog, owed } => {
                self.used(backlog);
                // Statistics take places that the log does not name: what is retained from now on
                // must not look like what was there when this was subscribed.
                self.next.sequence = self.next.sequence.max(owed.newest.saturating_add(1));
                self.with(session, |s| drop(s.backlogs.insert(backlog, *owed)));
            }
            Record::Serve { session, backlog, delivery, what } => {
                self.serve(session, backlog, delivery, what);
            }
            Record::Served { session, backlog } => self.with(session, |s| {
                s.backlogs.remove(&backlog);
            }),
            Record::Mark(_) => {}
            Record::Next(next) => {
                self.next.session = self.next.session.max(next.session);
                self.next.delivery = self.next.delivery.max(next.delivery);
                self.next.sequence = self.next.sequence.max(next.sequence);
            }
        }
    }

    fn publish(&mut self, published: Published) {
        let Published { message, retained, received, instead, targets, .. } = published;
        if let Some((session, delivery)) = instead {
            self.with(session, |s| drop(s.deliveries.remove(&delivery)));
        }
        if let Some((session, packet_id)) = received {
            self.with(session, |s| {
                s.received.insert(packet_id);
            });
        }
        for target in targets {
            self.used(target.delivery);
            self.with(target.session, |session| {
                let (delivery, message) = (target.delivery, message.clone());
                let promised = Promised::Message { message, target, packet_id: None };
                session.deliveries.insert(delivery, promised);
            });
        }
        if retained {
            self.retain(message);
        }
    }

    fn serve(&mut self, session: u64, backlog: u64, delivery: u64, what: Retained) {
        self.used(delivery);
        let (topic, message) = match what {
            Retained::Message { message, .. } => (message.topic.clone(), Some(message)),
            Retained::Place { topic, sequence } => {
                let message = self.at(&topic, sequence).cloned();
                (topic, message)
            }
        };
        self.with(session, |s| {
            let Some(owed) = s.backlogs.get_mut(&backlog) else { return };
            owed.after = Some(topic);
            // A file may say what no broker has written.
            let Some(message) = message else { return };
            let target = Target {
                session,
                delivery,
                qos: message.qos.min(owed.qos),
                retain: true,
                subscriptions: owed.identifiers(),
                share: None,
            };
            let promised = Promised::Message { message, target, packet_id: None };
            s.deliveries.insert(delivery, promised);
        });
    }

    /// The message that is retained on a topic under this sequence.
    fn at(&self, topic: &str, sequence: u64) -> Option<&Arc<Message>> {
        self.retained.get(topic).filter(|kept| kept.sequence == sequence)?.message.as_ref()
    }

    /// Whether what a record says of a retained message can be said by its place alone, now that
    /// all records before it are in this state. If so, it does.
    pub fn refer(&self, record: &mut Record) {
        if let Record::Serve { what, .. } = record
            && let Retained::Message { message, .. } = what
            && self.at(&message.topic, message.sequence).is_some()
        {
            let (topic, sequence) = (message.topic.clone(), message.sequence);
            *what = Retained::Place { topic, sequence };
        }
    }

    /// A number of a delivery or a backlog that is not free any more.
    fn used(&mut self, number: u64) {
        self.next.delivery = self.next.delivery.max(number.saturating_add(1));
    }

    fn retain(&mut self, message: Arc<Message>) {
        let sequence = message.sequence;
        self.next.sequence = self.next.sequence.max(sequence.saturating_add(1));
        let topic = message.topic.clone();
        let message = (!message.payload.is_empty()).then_some(message);
        let kept = self.retained.entry(topic).or_insert(Kept { sequence: 0, message: None });
        if kept.sequence > sequence {
            return;
        }
        *kept = Kept { sequence, message };
    }

    fn with(&mut self, session: u64, change: impl FnOnce(&mut SessionImage)) {
        if let Some(session) = self.sessions.get_mut(&session) {
            change(session);
        }
    }

    /// The retained messages, expired ones too.
    pub fn retained(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.retained.values().filter_map(|kept| kept.message.as_ref())
    }

    /// Forgets what has expired, and the topics that were cleared before `sequence`.
    pub fn prune(&mut self, sequence: u64) {
        self.retained.retain(|_, kept| match &kept.message {
            Some(message) => !message.expired(),
            None => kept.sequence >= sequence,
        });
    }

    /// Calls `each` with the records that build this state from nothing. A message that waits
    /// for several sessions stands once.
    pub fn records(&self, now: u64, mut each: impl FnMut(Record)) {
        each(Record::Next(self.next));
        for (&session, image) in &self.sessions {
            let SessionImage { client_id, owner, expiry, left, will, .. } = image;
            let (client_id, owner, expiry) = (client_id.clone(), owner.clone(), *expiry);
            each(Record::Begin { session, client_id, owner, expiry });
            if let Some(will) = will {
                each(Record::Will { session, will: Some(Box::new(will.clone())) });
            }
            for (filter, held) in &image.subscriptions {
                let (filter, held) = (filter.clone(), held.clone());
                each(Record::Subscribe { session, filter, held });
            }
            for &packet_id in &image.received {
                each(Record::Received { session, packet_id });
            }
            for (&backlog, owed) in &image.backlogs {
                each(Record::Owe { session, backlog, owed: Box::new(owed.clone()) });
            }
            if let Some(at) = *left {
                each(Record::Leave { session, at, expiry });
            }
        }
        for (message, use_) in self.messages() {
            each(Record::Publish(Box::new(Published {
                message: message.clone(),
                at: now,
                retained: use_.retained,
                received: None,
                instead: None,
                targets: use_.targets,
            })));
        }
        for (topic, kept) in &self.retained {
            if kept.message.is_none() {
                each(cleared(topic.clone(), kept.sequence, now));
            }
        }
        for (&session, image) in &self.sessions {
            for (&delivery, promised) in &image.deliveries {
                match *promised {
                    Promised::Message { packet_id: None, .. } => {}
                    Promised::Message { packet_id: Some(packet_id), .. } => {
                        each(Record::Sent { session, delivery, packet_id });
                    }
                    Promised::Release(packet_id) => {
                        each(Record::Confirming { session, delivery, packet_id });
                    }
                }
            }
        }
    }

    /// Each message once.
    fn messages(&self) -> Vec<(&Arc<Message>, Use)> {
        let mut places: HashMap<*const Message, usize> = HashMap::new();
        let mut all: Vec<(&Arc<Message>, Use)> = Vec::new();
        let mut place = |message, all: &mut Vec<(_, Use)>| {
            *places.entry(Arc::as_ptr(message)).or_insert_with(|| {
                all.push((message, Use::default()));
                all.len() - 1
            })
        };
        for message in self.retained() {
            let at = place(message, &mut all);
            all[at].1.retained = true;
        }
        for promised in self.sessions.values().flat_map(|session| session.deliveries.values()) {
            if let Promised::Message { message, target, .. } = promised {
                let at = place(message, &mut all);
                all[at].1.targets.push(target.clone());
            }
        }
        all
    }
}

/// What a message is there for.
#[derive(Default)]
struct Use {
    retained: bool,
    targets: Vec<Target>,
}

/// The record of a topic without a retained message.
fn cleared(topic: Arc<str>, sequence: u64, at: u64) -> Record {
    let message = Arc::new(Message {
        topic,
        payload: bytes::Bytes::new(),
        qos: Qos::AtMostOnce,
        retain: true,
        properties: None,
        publisher: 0,
        sequence,
        expires: None,
    });
    Record::Publish(Box::new(Published {
        message,
        at,
        retained: true,
        received: None,
        instead: None,
        targets: Vec::new(),
    }))
}
