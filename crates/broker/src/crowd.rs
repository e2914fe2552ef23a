//! A publisher of QoS 0 lets a crowded queue drain before it goes on.
//!
//! Nothing is promised at QoS 0, but publishers that take turns with their subscriber lose
//! nothing either: without this, fifty of them would fill its queue before it ran once. Who finds
//! a queue half full has its message queued, and then reads nothing more from its socket until
//! the queue is a quarter full or less. It waits for `limits.publish_hold` at most; a subscriber
//! that let somebody wait in vain is not waited for again before it has caught up, and not within
//! [`DISTRUST`], so that one who reads nothing holds up others once and not for ever.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Sleep;

use crate::{lanes::Lanes, queue::Queue, session::Session};

/// How long nobody waits for who let somebody wait in vain.
pub(crate) const DISTRUST: Duration = Duration::from_secs(10);
/// So many publishers go on at once when there is room; each may fill it alone.
pub(crate) const TURNS: usize = 8;

/// Publishers that wait, first come first served. A task that is gone leaves its place unused.
#[derive(Default)]
pub(crate) struct Turns(Queue<Waker>);

impl Turns {
    /// Waits at the end, unless it waits already.
    pub fn wait(&mut self, waker: &Waker) {
        if !self.0.iter().any(|waiting| waiting.will_wake(waker)) {
            self.0.push_back(waker.clone());
        }
    }

    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first `most`, to be woken without a lock held.
    pub fn next(&mut self, most: usize) -> Vec<Waker> {
        std::iter::from_fn(|| self.0.pop_front()).take(most).collect()
    }
}

/// What is to drain.
#[derive(Default)]
pub(crate) struct Crowded {
    /// Lanes of the router.
    pub lanes: Vec<usize>,
    /// The queues of sessions.
    pub sessions: Vec<CrowdedSession>,
}

impl Crowded {
    /// Nothing is.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.sessions.is_empty()
    }
}

/// A session whose queue is to drain.
pub(crate) struct CrowdedSession {
    session: Arc<Session>,
    phase: u32,
}

impl CrowdedSession {
    /// `None` where the queue is not crowded.
    pub fn find(session: &Arc<Session>) -> Option<Self> {
        let phase = session.inbox.crowd()?;
        Some(CrowdedSession { session: session.clone(), phase })
    }
}

/// A publisher that waits.
pub(crate) struct Wait {
    whom: Crowded,
    deadline: Pin<Box<Sleep>>,
}

impl Wait {
    pub fn new(whom: Crowded, patience: Duration) -> Box<Self> {
        Box::new(Wait { whom, deadline: Box::pin(tokio::time::sleep(patience)) })
    }

    /// Ready when the publisher may go on.
    pub fn poll(&mut self, cx: &mut Context<'_>, lanes: &Lanes) -> Poll<()> {
        let late = self.deadline.as_mut().poll(cx).is_ready();
        while let Some(lane) = self.whom.lanes.last() {
            if !late && lanes.poll_turn(*lane, cx).is_pending() {
                return Poll::Pending;
            }
            self.whom.lanes.pop();
        }
        while let Some(CrowdedSession { session, phase }) = self.whom.sessions.last() {
            if late {
                session.inbox.waited_in_vain(*phase);
            } else if session.inbox.poll_turn(*phase, cx).is_pending() {
                return Poll::Pending;
            }
            self.whom.sessions.pop();
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        inbox::{Done, Inbox, Pushed, Taken},
        limits::LiveLimits,
        message::{Delivery, Message},
        settings::Limits,
    };
    use hook::Qos;
    use std::{
        collections::VecDeque,
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Publisher(AtomicUsize);

    impl Wake for Publisher {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn delivery() -> Delivery {
        Delivery {
            share: None,
            id: 0,
            message: Message::plain(Qos::AtMostOnce, Vec::new()),
            qos: Qos::AtMostOnce,
            retain: false,
            subscriptions: None,
        }
    }

    fn inbox() -> Inbox {
        let limits = Limits { queue_messages: 40, ..Limits::default() };
        let inbox = Inbox::new(Arc::new(LiveLimits::new(&limits)));
        assert!(inbox.attach(1, || true));
        inbox
    }

    /// How many are queued when publishers begin to wait, and how many find room all the same.
    fn fill(inbox: &Inbox) -> (Option<usize>, usize) {
        let (mut crowded, mut queued) = (None, 0);
        while inbox.push_lossy(delivery(), 0) == Pushed::Queued {
            queued += 1;
            if inbox.crowd().is_some() {
                crowded.get_or_insert(queued);
            }
        }
        (crowded, queued)
    }

    /// The connection sends so many of what it took, and takes again.
    fn send(inbox: &Inbox, messages: usize) {
        let mut done = Done::default();
        (0..messages).for_each(|_| done.count(&delivery()));
        inbox.take(&mut done, &mut Taken::default()).unwrap();
    }

    #[test]
    fn from_half_full_to_a_quarter_full_publishers_wait() {
        let inbox = inbox();
        assert_eq!(fill(&inbox), (Some(21), 40));
        let phase = inbox.crowd().unwrap();
        let publishers: Vec<_> = (0..TURNS + 1).map(|_| Arc::new(Publisher::default())).collect();
        for publisher in &publishers {
            let waker = publisher.clone().into();
            // Once more changes nothing.
            for _ in 0..2 {
                assert!(inbox.poll_turn(phase, &Context::from_waker(&waker)).is_pending());
            }
        }
        let woken = || publishers.iter().map(|p| p.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
        send(&inbox, 29);
        assert!(inbox.crowd() == Some(phase) && woken().iter().all(|count| *count == 0));
        send(&inbox, 1);
        assert_eq!(inbox.crowd(), None);
        assert_eq!(woken()[..TURNS], [1; TURNS]);
        assert_eq!(woken()[TURNS], 0, "it fills again before the last one has its turn");
        send(&inbox, 10);
        assert_eq!(woken()[TURNS], 1, "nothing is left to wait for");
    }

    #[test]
    fn nobody_waits_behind_a_queue_that_rests() {
        let inbox = inbox();
        fill(&inbox);
        let phase = inbox.crowd().unwrap();
        let publishers: Vec<_> = (0..TURNS + 1).map(|_| Arc::new(Publisher::default())).collect();
        for publisher in &publishers {
            let waker = publisher.clone().into();
            assert!(inbox.poll_turn(phase, &Context::from_waker(&waker)).is_pending());
        }
        // What is left waits for its client's acknowledgements.
        send(&inbox, 35);
        assert!(inbox.park(Waker::noop()));
        assert!(publishers.iter().all(|p| p.0.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn who_lets_others_wait_in_vain_is_not_waited_for() {
        let inbox = inbox();
        fill(&inbox);
        let early = inbox.crowd().unwrap();
        send(&inbox, 30);
        fill(&inbox);
        inbox.waited_in_vain(early);
        let late = inbox.crowd().expect("it had drained meanwhile");
        inbox.waited_in_vain(late);
        assert_eq!(inbox.crowd(), None);
        send(&inbox, 40);
        assert_eq!(fill(&inbox), (None, 40));
    }

    #[test]
    fn who_leaves_is_not_waited_for() {
        let inbox = inbox();
        fill(&inbox);
        let phase = inbox.crowd().unwrap();
        let publisher = Arc::new(Publisher::default());
        let waker = publisher.clone().into();
        assert!(inbox.poll_turn(phase, &Context::from_waker(&waker)).is_pending());
        inbox.detach(Done::default(), &mut VecDeque::new(), (0, 0));
        assert_eq!(publisher.0.load(Ordering::Relaxed), 1);
        assert!(inbox.poll_turn(phase, &Context::from_waker(&waker)).is_ready());
    }
}
