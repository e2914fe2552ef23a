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
//! comes first is sent.

use std::{
    collections::{HashSet, VecDeque},
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

/// A subscription that is to be served.
pub(crate) struct Wanted {
    /// Without share prefix.
    pub filter: Box<str>,
    /// Granted.
    pub qos: Qos,
    pub identifiers: Option<Arc<[u32]>>,
    /// Of the SUBSCRIBE: it is served behind its SUBACK.
    pub packet_id: u16,
    /// Whether there was no such subscription before: a live copy of what is retained can only
    /// come of this one.
    pub new: bool,
}

struct Serving {
    wanted: Wanted,
    acknowledged: bool,
    /// The newest retained publish at the time of the subscription.
    newest: u64,
    /// Behind which topic the next page begins.
    after: Option<Box<str>>,
    last_page: bool,
    page: VecDeque<Arc<Message>>,
    /// Something was sent of which copies may still be under way.
    recent: bool,
    /// Places of messages that have come as live ones meanwhile.
    met: Vec<u64>,
}

/// What was sent as retained to new subscriptions, for as long as live copies may come.
#[derive(Default)]
struct Sent {
    until: Option<Instant>,
    newest: u64,
    places: HashSet<u64>,
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
    /// This message.
    Send(Delivery),
    /// A page had nothing; there are more pages, after others had their turn.
    Later,
    /// Nothing now: all is served, or what is due waits for a SUBACK or for room in the window.
    Nothing,
}

impl Backlog {
    /// A subscription was made. Where many wait, it takes the place of one to the same filter, so
    /// that asking again and again does not add up.
    pub fn subscribe(&mut self, wanted: Wanted, retained: &Retained) {
        if self.serving.len() >= AGAIN
            && let Some(at) =
                self.serving.iter().rposition(|one| one.wanted.filter == wanted.filter)
        {
            self.serving.remove(at);
        }
        self.serving.push_back(Serving {
            wanted,
            acknowledged: false,
            newest: retained.newest(),
            after: None,
            last_page: false,
            page: VecDeque::new(),
            recent: false,
            met: Vec::new(),
        });
    }

    /// The SUBACK of this packet id is written.
    pub fn acknowledged(&mut self, packet_id: u16) {
        for serving in &mut self.serving {
            serving.acknowledged |= serving.wanted.packet_id == packet_id;
        }
    }

    /// A subscription has ended.
    pub fn unsubscribe(&mut self, filter: &str) {
        self.serving.retain(|serving| *serving.wanted.filter != *filter);
    }

    /// Leaves only what was promised: subscriptions at QoS 1 and 2.
    pub fn keep_promised(&mut self) {
        self.serving.retain(|serving| serving.wanted.qos != Qos::AtMostOnce);
    }

    /// Whether there is nothing to remember any more.
    pub fn is_over(&self) -> bool {
        self.serving.is_empty() && self.sent.until.is_none_or(|until| until <= Instant::now())
    }

    /// The next message; `room` says whether one more may be in flight.
    pub fn next(&mut self, retained: &Retained, room: bool) -> Next {
        while let Some(serving) = self.serving.front_mut().filter(|one| one.acknowledged) {
            while let Some(message) = serving.page.front() {
                let qos = message.qos.min(serving.wanted.qos);
                if qos != Qos::AtMostOnce && !room {
                    return Next::Nothing;
                }
                let Some(message) = serving.page.pop_front() else { break };
                // A newer one came meanwhile and went ahead with the live messages, or this one
                // did.
                if serving.met.contains(&message.sequence) || !retained.is_current(&message) {
                    continue;
                }
                if serving.wanted.new && message.sequence + RECENT > serving.newest {
                    serving.recent = true;
                    self.sent.note(serving.newest, message.sequence);
                }
                let subscriptions = serving.wanted.identifiers.clone();
                return Next::Send(Delivery {
                    id: 0,
                    qos,
                    message,
                    retain: true,
                    subscriptions,
                    share: None,
                });
            }
            if serving.last_page {
                if let Some(served) = self.serving.pop_front()
                    && served.recent
                {
                    self.sent.served(served.wanted.filter);
                }
                continue;
            }
            let page = retained.page(&serving.wanted.filter, serving.after.as_deref(), PAGE);
            let newest = serving.newest;
            serving.page.extend(page.messages.into_iter().filter(|one| one.sequence <= newest));
            serving.last_page = page.next.is_none();
            serving.after = page.next;
            if serving.page.is_empty() && !serving.last_page {
                return Next::Later;
            }
        }
        Next::Nothing
    }

    /// Whether a live message is to be sent: not where it was sent as the retained one, nor at
    /// QoS 0 where a newer one is, or will be. One that was promised and is older may have waited
    /// for an overlapping subscription, and is still due.
    pub fn lets_pass(&mut self, delivery: &Delivery, retained: &Retained) -> bool {
        let Delivery { message, qos, .. } = delivery;
        if message.sequence == 0 {
            return true;
        }
        if self.sent.places.contains(&message.sequence) {
            return false;
        }
        let of_new = |filter: &str, newest: u64| {
            message.sequence <= newest && matches(filter, &message.topic)
        };
        let Sent { newest, filters, .. } = &self.sent;
        let mut meets = filters.iter().any(|filter| of_new(filter, *newest));
        for serving in self.serving.iter_mut().filter(|serving| serving.wanted.new) {
            if of_new(&serving.wanted.filter, serving.newest) {
                meets = true;
                if message.sequence + RECENT > serving.newest {
                    serving.met.push(message.sequence);
                }
            }
        }
        !(meets && *qos == Qos::AtMostOnce && !retained.is_current(message))
    }
}

impl Sent {
    fn note(&mut self, newest: u64, place: u64) {
        self.until = Some(Instant::now() + UNDER_WAY);
        if newest > self.newest {
            self.newest = newest;
            self.places.retain(|place| place + RECENT > newest);
        }
        self.places.insert(place);
    }

    fn served(&mut self, filter: Box<str>) {
        if self.filters.len() == FILTERS {
            self.filters.pop_front();
        }
        self.filters.push_back(filter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// A publish that is retained.
    fn publish(retained: &Retained, topic: &str, qos: Qos) -> Delivery {
        let make = |sequence| {
            Arc::new(Message {
                topic: topic.into(),
                payload: Bytes::from_static(b"x"),
                qos,
                retain: true,
                properties: None,
                publisher: 1,
                sequence,
                expires: None,
            })
        };
        let (message, _) = retained.store(make);
        Delivery { id: 0, qos, message, retain: false, subscriptions: None, share: None }
    }

    fn subscribed(retained: &Retained, filter: &str, new: bool) -> Backlog {
        let mut backlog = Backlog::default();
        let filter = filter.into();
        let qos = Qos::AtLeastOnce;
        let wanted = Wanted { filter, qos, identifiers: None, packet_id: 1, new };
        backlog.subscribe(wanted, retained);
        backlog
    }

    /// What is sent until nothing is left.
    fn rest(backlog: &mut Backlog, retained: &Retained) -> Vec<u64> {
        let mut places = Vec::new();
        loop {
            match backlog.next(retained, true) {
                Next::Send(delivery) => places.push(delivery.message.sequence),
                Next::Later => {}
                Next::Nothing => return places,
            }
        }
    }

    #[test]
    fn it_begins_behind_the_suback_and_waits_for_room() {
        let retained = Retained::new(Arc::default());
        for n in 0..200 {
            publish(&retained, &format!("r/{n}"), Qos::AtLeastOnce);
        }
        let mut backlog = subscribed(&retained, "r/#", true);
        assert!(matches!(backlog.next(&retained, true), Next::Nothing), "no SUBACK yet");
        backlog.acknowledged(2);
        assert!(matches!(backlog.next(&retained, true), Next::Nothing), "that was another one");
        backlog.acknowledged(1);
        assert!(matches!(backlog.next(&retained, false), Next::Nothing), "no room");
        assert_eq!(backlog.serving[0].page.len(), PAGE, "and no more is held than a page");
        assert_eq!(rest(&mut backlog, &retained).len(), 200);
        assert!(backlog.serving.is_empty());
    }

    #[test]
    fn of_two_copies_the_first_is_sent() {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            let retained = Retained::new(Arc::default());
            let (first, second) = (publish(&retained, "r/1", qos), publish(&retained, "r/2", qos));
            let mut backlog = subscribed(&retained, "r/#", true);
            backlog.acknowledged(1);
            // The first comes alive before, the second after.
            assert!(backlog.lets_pass(&first, &retained));
            assert_eq!(rest(&mut backlog, &retained), [second.message.sequence]);
            assert!(!backlog.lets_pass(&second, &retained));
            assert!(!backlog.is_over(), "copies may still come");
        }
    }

    #[test]
    fn what_is_newer_than_the_subscription_comes_alive() {
        let retained = Retained::new(Arc::default());
        let old = publish(&retained, "r", Qos::AtMostOnce);
        let mut backlog = subscribed(&retained, "r", true);
        backlog.acknowledged(1);
        let new = publish(&retained, "r", Qos::AtMostOnce);
        assert!(rest(&mut backlog, &retained).is_empty());
        assert!(backlog.lets_pass(&new, &retained));
        assert!(backlog.lets_pass(&old, &retained), "nothing was sent that it would come behind");
    }

    #[test]
    fn an_outdated_copy_is_due_only_where_it_was_promised() {
        for new in [true, false] {
            let retained = Retained::new(Arc::default());
            let old = [Qos::AtMostOnce, Qos::AtLeastOnce].map(|qos| publish(&retained, "r", qos));
            publish(&retained, "r", Qos::AtMostOnce);
            let mut backlog = subscribed(&retained, "#", new);
            backlog.acknowledged(1);
            for served in [false, true] {
                // To a subscription that was there before, a live copy was owed anyway.
                assert_eq!(backlog.lets_pass(&old[0], &retained), !new, "{new} {served}");
                assert!(backlog.lets_pass(&old[1], &retained));
                assert_eq!(rest(&mut backlog, &retained).len(), usize::from(!served));
            }
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let retained = Retained::new(Arc::default());
        let mut backlog = Backlog::default();
        for _ in 0..2 * FILTERS {
            publish(&retained, "r", Qos::AtMostOnce);
            let one = subscribed(&retained, "r", true).serving.pop_front().unwrap();
            backlog.subscribe(one.wanted, &retained);
            backlog.acknowledged(1);
            rest(&mut backlog, &retained);
        }
        assert!(backlog.sent.filters.len() <= FILTERS);
        assert!(backlog.sent.places.len() <= RECENT as usize);
        backlog.sent.until = Some(Instant::now());
        assert!(backlog.is_over());
    }
}
