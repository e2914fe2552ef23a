//! Retained messages that new subscriptions are still to be sent.
//!
//! They are not queued: a subscription to `#` may match more than a queue may hold, and a
//! thousand clients may make one at the same moment. A subscription keeps the place up to which
//! it was served, and gets the next page when the last one has gone to the writer. What is here
//! is therefore bounded by `limits.subscriptions`, or [`AGAIN`], and one page.
//!
//! Publishes that are under way while a client subscribes may reach it in both ways. The
//! broker-wide order of retained publishes tells: what has a higher place than the newest one at
//! the time of the subscription comes as a live message alone; of the others, whichever copy
//! comes first is sent, and the other one only where it is promised at a higher QoS.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use hook::Qos;

use crate::{
    message::{Delivery, Message},
    retained::Retained,
    topic::matches,
};

/// Messages of one page.
const PAGE: usize = 64;
/// How long a copy may be under way after a subscription has been served.
const UNDER_WAY: Duration = Duration::from_secs(5);
/// Only of so many of the newest retained publishes copies may still be under way.
const RECENT: u64 = 4096;
/// So many subscriptions may wait to be served although some have the same filter: filters in one
/// SUBSCRIBE count as if they had come one by one [MQTT-3.8.4-5].
const AGAIN: usize = 64;
/// Filters that were served and are remembered for as long. Of one that is forgotten earlier an
/// outdated QoS 0 message may come behind the retained one.
const FILTERS: usize = 256;

/// Retained messages that a subscription is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owed {
    /// Without share prefix.
    pub filter: Box<str>,
    /// Granted.
    pub qos: Qos,
    /// Subscription Identifier.
    pub identifier: Option<u32>,
    /// The newest retained publish at the time of the subscription.
    pub newest: u64,
    /// It is served up to this topic, or this beginning of topics.
    pub after: Option<Arc<str>>,
}

impl Owed {
    /// As deliveries have it.
    pub fn identifiers(&self) -> Option<Arc<[u32]>> {
        self.identifier.map(|identifier| Arc::from([identifier]))
    }
}

struct Serving {
    owed: Owed,
    /// Its number in the broker's log; 0 where it does not stand there.
    number: u64,
    /// Of the SUBSCRIBE: it is served behind its SUBACK.
    packet_id: u16,
    acknowledged: bool,
    /// There was no such subscription before, on this connection: a live copy of what is retained
    /// can only come of this one.
    new: bool,
    /// What is left at QoS 0 ended with an earlier connection.
    promised_only: bool,
    /// The newest retained publish when its client came back: what is newer than was owed, and not
    /// than this, found the session away.
    back: u64,
    last_page: bool,
    page: VecDeque<Arc<Message>>,
    /// Where the next page begins, once this one is sent.
    then: Option<Arc<str>>,
    /// Something was sent of which copies may still be under way.
    recent: bool,
    /// Places of messages that have come as live ones meanwhile, at which QoS.
    met: Vec<(u64, Qos)>,
}

impl Serving {
    fn new(owed: Owed, new: bool, number: u64, packet_id: u16) -> Self {
        Serving {
            owed,
            number,
            packet_id,
            acknowledged: false,
            new,
            promised_only: false,
            back: 0,
            last_page: false,
            page: VecDeque::new(),
            then: None,
            recent: false,
            met: Vec::new(),
        }
    }

    /// The next message of the page; what is owed begins behind it.
    fn pop(&mut self) -> Option<Arc<Message>> {
        let message = self.page.pop_front()?;
        self.owed.after = match self.then.take_if(|_| self.page.is_empty()) {
            Some(then) => Some(then),
            None => Some(message.topic.clone()),
        };
        Some(message)
    }

    fn load(&mut self, retained: &Retained) {
        let page = retained.page(&self.owed.filter, self.owed.after.as_deref(), PAGE);
        let (newest, back) = (self.owed.newest, self.back);
        // Those of QoS 0 that found the session away are no live messages of it.
        let missed = |one: &Message| one.qos == Qos::AtMostOnce && one.sequence <= back;
        let due = |one: &Arc<Message>| one.sequence <= newest || missed(one);
        self.page.extend(page.messages.into_iter().filter(due));
        self.last_page = page.next.is_none();
        let then = page.next.map(Arc::from);
        if self.page.is_empty() {
            self.owed.after = then.or(self.owed.after.take());
        } else {
            self.then = then;
        }
    }

    /// Another connection goes on where this one ended.
    fn rest(&mut self) {
        (self.promised_only, self.new) = (true, false);
        if !self.page.is_empty() {
            self.page.clear();
            (self.then, self.last_page) = (None, false);
        }
    }
}

/// What was sent as retained to new subscriptions, for as long as live copies may come.
#[derive(Default)]
struct Sent {
    until: Option<Instant>,
    newest: u64,
    places: HashMap<u64, Qos>,
    filters: VecDeque<Box<str>>,
}

/// See [the module](self).
#[derive(Default)]
pub(crate) struct Backlog {
    serving: VecDeque<Serving>,
    sent: Sent,
}

/// What comes next.
pub(crate) enum Next {
    /// This message, of the backlog with this number in the log.
    Send(Delivery, u64),
    /// This backlog in the log is over.
    Served(u64),
    /// There may be more on the next page, after others had their turn.
    Later,
    /// Nothing now: all is served, or what is due waits for a SUBACK or for room in the window.
    Nothing,
}

/// Whether something that is retained is promised to a subscription, at QoS 1 or 2, or may be:
/// this is asked for each filter of a SUBSCRIBE, so it looks at the first few only.
pub(crate) fn promises(retained: &Retained, owed: &Owed) -> bool {
    if owed.qos == Qos::AtMostOnce {
        return false;
    }
    let page = retained.peek(&owed.filter);
    page.next.is_some() || page.messages.iter().any(|one| one.qos != Qos::AtMostOnce)
}

impl Backlog {
    /// A subscription was made. Where many wait, it takes the place of one to the same filter, so
    /// that asking again and again does not add up; the number of that one is returned.
    pub fn subscribe(&mut self, owed: Owed, new: bool, number: u64, packet_id: u16) -> Option<u64> {
        let same = |one: &Serving| one.owed.filter == owed.filter;
        let replaced = (self.serving.len() >= AGAIN)
            .then(|| self.serving.iter().rposition(same))
            .flatten()
            .and_then(|at| self.serving.remove(at));
        self.serving.push_back(Serving::new(owed, new, number, packet_id));
        replaced.map(|one| one.number)
    }

    /// What the log has of a session, by number; `None` where that is nothing.
    pub fn restored(all: impl IntoIterator<Item = (u64, Owed)>) -> Option<Box<Self>> {
        let serving = all.into_iter().map(|(number, owed)| {
            let mut one = Serving::new(owed, false, number, 0);
            (one.acknowledged, one.promised_only) = (true, true);
            one
        });
        let backlog = Backlog { serving: serving.collect(), ..Backlog::default() };
        (!backlog.serving.is_empty()).then(|| Box::new(backlog))
    }

    /// A client came back that goes on with this; `newest` is the newest retained publish now.
    pub fn resume(&mut self, newest: u64) {
        self.serving.iter_mut().for_each(|serving| serving.back = newest);
    }

    /// The SUBACK of this packet id is written.
    pub fn acknowledged(&mut self, packet_id: u16) {
        for serving in &mut self.serving {
            serving.acknowledged |= serving.packet_id == packet_id;
        }
    }

    /// A subscription has ended. Returns the numbers of what was owed to it.
    pub fn unsubscribe(&mut self, filter: &str) -> Vec<u64> {
        self.keep(|serving| *serving.owed.filter != *filter)
    }

    /// The connection has ended: leaves only what was promised, which is what a SUBACK has granted
    /// at QoS 1 and 2. Returns the numbers of the others.
    pub fn keep_promised(&mut self) -> Vec<u64> {
        self.serving.iter_mut().for_each(Serving::rest);
        // What was sent and comes again from the session's queue is no live copy.
        self.sent = Sent::default();
        self.keep(|serving| serving.acknowledged && serving.owed.qos != Qos::AtMostOnce)
    }

    fn keep(&mut self, keep: impl Fn(&Serving) -> bool) -> Vec<u64> {
        let gone = self.serving.iter().filter(|serving| !keep(serving));
        let gone = gone.map(|serving| serving.number).collect();
        self.serving.retain(keep);
        gone
    }

    /// Whether there is nothing to remember any more.
    pub fn is_over(&self) -> bool {
        self.serving.is_empty() && self.sent.until.is_none_or(|until| until <= Instant::now())
    }

    /// The next message; `room` says whether one more may be in flight.
    pub fn next(&mut self, retained: &Retained, room: bool) -> Next {
        // What is skipped costs time too, so one call looks at one new page at most.
        let mut looked = false;
        while let Some(serving) = self.serving.front_mut().filter(|one| one.acknowledged) {
            while let Some(message) = serving.page.front() {
                let qos = message.qos.min(serving.owed.qos);
                if qos != Qos::AtMostOnce && !room {
                    return Next::Nothing;
                }
                let Some(message) = serving.pop() else { break };
                // A newer one came meanwhile and went ahead with the live messages, or this one
                // did.
                let has = |met: &(u64, Qos)| met.0 == message.sequence && met.1 >= qos;
                if serving.met.iter().any(has)
                    || !retained.is_current(&message)
                    || (qos == Qos::AtMostOnce
                        && serving.promised_only
                        && message.sequence <= serving.owed.newest)
                {
                    continue;
                }
                if serving.new && message.sequence + RECENT > serving.owed.newest {
                    serving.recent = true;
                    self.sent.note(serving.owed.newest, message.sequence, qos);
                }
                let subscriptions = serving.owed.identifiers();
                let delivery =
                    Delivery { id: 0, qos, message, retain: true, subscriptions, share: None };
                return Next::Send(delivery, serving.number);
            }
            if serving.last_page {
                let Some(served) = self.serving.pop_front() else { continue };
                if served.recent {
                    self.sent.served(served.owed.filter);
                }
                if served.number != 0 {
                    return Next::Served(served.number);
                }
                continue;
            }
            if looked {
                return Next::Later;
            }
            serving.load(retained);
            looked = true;
        }
        Next::Nothing
    }

    /// Whether a live message is to be sent: not where it was sent as the retained one at no lower
    /// QoS [MQTT-3.3.4-2], nor at QoS 0 where a newer one is, or will be. One that was promised and
    /// is older may have waited for an overlapping subscription, and is still due.
    pub fn lets_pass(&mut self, delivery: &Delivery, retained: &Retained) -> bool {
        let Delivery { message, qos, .. } = delivery;
        if message.sequence == 0 {
            return true;
        }
        if self.sent.places.get(&message.sequence).is_some_and(|sent| sent >= qos) {
            return false;
        }
        let of_new = |filter: &str, newest: u64| {
            message.sequence <= newest && matches(filter, &message.topic)
        };
        let Sent { newest, filters, .. } = &self.sent;
        let mut meets = filters.iter().any(|filter| of_new(filter, *newest));
        for serving in self.serving.iter_mut().filter(|serving| serving.new) {
            if of_new(&serving.owed.filter, serving.owed.newest) {
                meets = true;
                if message.sequence + RECENT > serving.owed.newest {
                    serving.met.push((message.sequence, *qos));
                }
            }
        }
        !(meets && *qos == Qos::AtMostOnce && !retained.is_current(message))
    }
}

impl Sent {
    fn note(&mut self, newest: u64, place: u64, qos: Qos) {
        self.until = Some(Instant::now() + UNDER_WAY);
        if newest > self.newest {
            self.newest = newest;
            self.places.retain(|place, _| place + RECENT > newest);
        }
        self.places.entry(place).and_modify(|sent| *sent = qos.max(*sent)).or_insert(qos);
    }

    fn served(&mut self, filter: Box<str>) {
        if self.filters.len() == FILTERS {
            self.filters.pop_front();
        }
        self.filters.push_back(filter);
    }
}

#[cfg(test)]
mod tests;
