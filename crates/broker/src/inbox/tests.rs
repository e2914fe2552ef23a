use std::{
    sync::atomic::{AtomicUsize, Ordering},
    task::{Wake, Waker},
};

use super::*;
use crate::{
    message::{Message, Share},
    settings::Limits,
};
use hook::{Class, Outgoing, Qos, SessionEnd};

/// Counts how often it is woken.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Counter {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn delivery() -> Delivery {
    let qos = Qos::AtLeastOnce;
    let message = Message::plain(qos, Vec::new());
    Delivery { share: None, id: 0, message, qos, retain: false, subscriptions: None }
}

/// An inbox whose connection rests, the connection, and a publisher.
fn resting(queue_messages: usize) -> (Inbox, Arc<Counter>, Arc<Counter>) {
    let limits = Limits { queue_messages, ..Limits::default() };
    let inbox = Inbox::new(Arc::new(LiveLimits::new(&limits)));
    assert!(inbox.attach(1, || true));
    let (connection, publisher) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
    assert!(inbox.park(&Waker::from(connection.clone())));
    (inbox, connection, publisher)
}

#[test]
fn a_publisher_goes_on_when_the_connection_has_its_message() {
    let (inbox, connection, publisher) = resting(10);
    assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Woke);
    assert_eq!(connection.get(), 1);
    assert!(inbox.after_take(&Waker::from(publisher.clone())));
    assert_eq!(publisher.get(), 0);
    inbox.take(&mut Done::default(), &mut Taken::default()).unwrap();
    assert_eq!(publisher.get(), 1);
    assert!(!inbox.after_take(&Waker::from(publisher)), "it was taken");
}

#[test]
fn nobody_lets_a_connection_go_first_that_runs_or_has_more_to_do() {
    let (inbox, ..) = resting(10);
    inbox.take(&mut Done::default(), &mut Taken::default()).unwrap();
    assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Queued, "it runs");
    let (inbox, ..) = resting(1);
    assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Queued, "its queue is full");
}

#[test]
fn a_publisher_does_not_wait_for_who_is_gone() {
    let (inbox, _, publisher) = resting(10);
    assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Woke);
    assert!(inbox.after_take(&Waker::from(publisher.clone())));
    inbox.detach(Done::default(), &mut VecDeque::new(), (0, 0));
    assert_eq!(publisher.get(), 1);
    assert!(!inbox.after_take(&Waker::from(publisher)));
}

/// Whoever waits that a message is taken waits for nothing else: nothing wakes it meanwhile.
#[test]
fn a_publisher_goes_on_also_where_the_queue_has_become_full() {
    let (inbox, _, publisher) = resting(10);
    assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Woke);
    assert!(inbox.after_take(&Waker::from(publisher.clone())));
    let other = Waker::from(Arc::new(Counter::default()));
    while inbox.push_assured(delivery(), 0, Some(&other)) != Pushed::Full {}
    inbox.take(&mut Done::default(), &mut Taken::default()).unwrap();
    assert_eq!(publisher.get(), 1);
}

fn lossy() -> Delivery {
    Delivery { qos: Qos::AtMostOnce, ..delivery() }
}

/// The connection took it, and got rid of it.
fn done(delivery: &Delivery) -> Done {
    let mut done = Done::default();
    done.count(delivery);
    done
}

#[test]
fn what_is_promised_takes_the_place_of_what_is_not() {
    let (inbox, ..) = resting(10);
    let mut taken = Taken::default();
    for _ in 0..5 {
        assert_eq!(inbox.push_lossy(lossy(), 0), Pushed::Queued);
    }
    // Some of it is with the connection already.
    assert_eq!(inbox.take(&mut Done::default(), &mut taken).unwrap(), 0);
    for _ in 0..5 {
        assert_eq!(inbox.push_lossy(lossy(), 0), Pushed::Queued);
    }
    assert_eq!(inbox.push_lossy(lossy(), 0), Pushed::Dropped);
    for _ in 0..10 {
        assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Queued);
    }
    assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Full, "that is its own bound");
    assert_eq!(inbox.push_lossy(lossy(), 0), Pushed::Dropped);
    assert_eq!(inbox.take(&mut Default::default(), &mut taken).unwrap(), 10);
    assert_eq!((taken.lossy.len(), taken.assured.len()), (0, 10));
    assert_eq!(inbox.waiting(), (10, 10 * delivery().message.cost()));
    // Half of it has gone, and whoever waited goes on.
    for _ in 0..5 {
        assert_eq!(inbox.take(&mut done(&delivery()), &mut taken).unwrap(), 0);
    }
    for _ in 0..5 {
        assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Queued);
    }
}

#[test]
fn a_queue_full_of_qos_0_is_not_taken_for_a_slow_subscriber() {
    let (inbox, ..) = resting(4);
    while inbox.push_assured(delivery(), 0, None) != Pushed::Full {}
    inbox.take(&mut done(&delivery()), &mut Taken::default()).unwrap();
    inbox.take(&mut done(&delivery()), &mut Taken::default()).unwrap();
    while inbox.push_lossy(lossy(), 0) == Pushed::Queued {}
    assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Queued, "half of it has drained");
}

#[test]
fn what_ends_with_the_connection_leaves_no_trace_in_the_queue() {
    let (inbox, ..) = resting(10);
    let mut taken = Taken::default();
    for _ in 0..4 {
        assert_eq!(inbox.push_lossy(lossy(), 0), Pushed::Queued);
    }
    assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Queued);
    inbox.take(&mut Done::default(), &mut taken).unwrap();
    assert_eq!(inbox.push_lossy(lossy(), 0), Pushed::Queued);
    inbox.detach(done(&lossy()), &mut taken.assured.take(), (0, 0));
    assert_eq!(inbox.waiting(), (1, delivery().message.cost()));
}

/// Whoever let the connection go first goes on when it has run, also where others have filled the
/// queue meanwhile and wait until it has drained.
#[test]
fn who_let_a_connection_go_first_does_not_wait_for_room() {
    let (inbox, _, first) = resting(4);
    assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Woke);
    assert!(inbox.after_take(&Waker::from(first.clone())));
    let late = Arc::new(Counter::default());
    while inbox.push_assured(delivery(), 0, Some(&Waker::from(late.clone()))) != Pushed::Full {}
    inbox.take(&mut Done::default(), &mut Taken::default()).unwrap();
    assert_eq!((first.get(), late.get()), (1, 0));
    for _ in 0..2 {
        inbox.take(&mut done(&delivery()), &mut Taken::default()).unwrap();
    }
    assert_eq!((first.get(), late.get()), (1, 1));
}

fn numbered(id: u64) -> Delivery {
    Delivery { id, ..delivery() }
}

fn outgoing(class: Class) -> Outgoing {
    Outgoing {
        topic: "t".into(),
        payload: bytes::Bytes::from_static(b"abc").into(),
        qos: Qos::AtMostOnce,
        class,
        properties: None,
        receipt: None,
    }
}

#[test]
fn what_never_left_waits_in_front_of_the_others_again() {
    let (inbox, ..) = resting(4);
    let mut taken = Taken::default();
    for id in 1..=2 {
        assert_ne!(inbox.push_assured(numbered(id), 0, None), Pushed::Full);
    }
    inbox.take(&mut Done::default(), &mut taken).unwrap();
    for id in 3..=4 {
        assert_eq!(inbox.push_assured(numbered(id), 0, None), Pushed::Queued);
    }
    assert_eq!(inbox.push_assured(numbered(5), 0, None), Pushed::Full);
    assert!(inbox.is_connected());
    // The first had its packet id, and the log not yet; the second waited for room in the window.
    let cost = delivery().message.cost();
    let mut pending = taken.assured.take();
    inbox.detach(done(&pending[0]), &mut pending, (1, cost));
    assert_eq!(inbox.waiting(), (4, 4 * cost));
    assert!(!inbox.is_connected());
    // The next connection is given time of its own, however full it is.
    assert!(inbox.attach(2, || true));
    inbox.take(&mut done(&delivery()), &mut taken).unwrap();
    let ids = taken.assured.take();
    assert_eq!(ids.iter().map(|it| it.id).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(inbox.push_assured(numbered(5), 0, None), Pushed::Queued);
}

#[test]
fn nothing_is_for_a_session_that_began_anew_or_has_ended() {
    let (inbox, ..) = resting(10);
    let epoch = inbox.epoch();
    assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Woke);
    assert_eq!(inbox.push_lossy(lossy(), epoch), Pushed::Queued);
    assert_eq!(inbox.reserve(&delivery(), epoch, None), Pushed::Queued);
    assert!(inbox.is_in(epoch));
    inbox.clear();
    assert_eq!(inbox.waiting(), (0, 0));
    let now = inbox.epoch();
    assert!(now != epoch && !inbox.is_in(epoch) && inbox.is_in(now));
    assert!(!inbox.push_reserved(delivery(), epoch));
    assert_eq!(inbox.push_lossy(lossy(), epoch), Pushed::Skipped);
    assert_eq!(inbox.push_assured(delivery(), epoch, None), Pushed::Skipped);
    assert_eq!(inbox.push_lossy(lossy(), now), Pushed::Queued);
    inbox.close();
    assert_eq!(inbox.waiting(), (0, 0));
    assert!(!inbox.is_in(now) && !inbox.is_in(inbox.epoch()));
    assert_eq!(inbox.push_lossy(lossy(), inbox.epoch()), Pushed::Skipped);
}

#[test]
fn what_plugins_send_waits_too() {
    let (inbox, ..) = resting(10);
    inbox.push_outgoing(1, outgoing(Class::Control)).unwrap();
    assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Queued);
    assert_eq!(inbox.waiting(), (2, delivery().message.cost() + 3));
}

/// Half of the bound in bytes counts as half of that in messages does.
#[test]
fn a_queue_that_is_half_full_of_bytes_is_let_drain() {
    let limits = Limits { queue_bytes: 4 * lossy().message.cost(), ..Limits::default() };
    let inbox = Inbox::new(Arc::new(LiveLimits::new(&limits)));
    assert!(inbox.attach(1, || true));
    for crowded in [false, false, true] {
        assert_eq!(inbox.push_lossy(lossy(), 0), Pushed::Queued);
        assert_eq!(inbox.crowd().is_some(), crowded);
    }
}

#[test]
fn a_connection_rests_only_where_nothing_waits_for_it() {
    let something: [fn(&Inbox); 5] = [
        |inbox| assert_eq!(inbox.push_lossy(lossy(), 0), Pushed::Queued),
        |inbox| assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Queued),
        |inbox| inbox.push_outgoing(1, outgoing(Class::Control)).unwrap(),
        |inbox| inbox.push_outgoing(1, outgoing(Class::Block)).unwrap(),
        |inbox| {
            let text = "it is to end".into();
            assert!(inbox.kick(Kick { end: SessionEnd::Kicked, reason: 0x98, text }));
        },
    ];
    for put in something {
        let (inbox, connection, _) = resting(10);
        let waker = Waker::from(connection);
        inbox.take(&mut Done::default(), &mut Taken::default()).unwrap();
        put(&inbox);
        assert!(!inbox.park(&waker));
        // A kick is the last word.
        let _ = inbox.take(&mut Done::default(), &mut Taken::default());
        assert!(inbox.park(&waker));
    }
}

/// What one of these counts, in bytes.
fn cost() -> usize {
    delivery().message.cost()
}

fn ids<'a>(deliveries: impl IntoIterator<Item = &'a Delivery>) -> Vec<u64> {
    deliveries.into_iter().map(|delivery| delivery.id).collect()
}

/// What the connection finds when it takes what is there.
fn taken(inbox: &Inbox) -> Vec<u64> {
    let mut taken = Taken::default();
    inbox.take(&mut Done::default(), &mut taken).unwrap();
    ids(taken.assured.iter())
}

#[test]
fn room_is_taken_when_it_is_reserved_and_given_back_once() {
    let (inbox, ..) = resting(2);
    let epoch = inbox.epoch();
    for reserved in 1..=2 {
        assert_eq!(inbox.reserve(&numbered(reserved), epoch, None), Pushed::Queued);
        assert_eq!(inbox.waiting(), (reserved as usize, reserved as usize * cost()));
    }
    assert_eq!(inbox.reserve(&numbered(3), epoch, None), Pushed::Full);
    assert!(inbox.push_reserved(numbered(1), epoch));
    assert_eq!(inbox.waiting(), (2, 2 * cost()), "it has its room already");
    inbox.release(&numbered(2), epoch);
    assert_eq!((inbox.waiting(), taken(&inbox)), ((1, cost()), vec![1]));
}

#[test]
fn room_of_an_earlier_epoch_is_nobodys() {
    let (inbox, ..) = resting(2);
    let earlier = inbox.epoch();
    inbox.clear();
    assert_eq!(inbox.reserve(&delivery(), earlier, None), Pushed::Skipped);
    assert_eq!(inbox.reserve(&delivery(), inbox.epoch(), None), Pushed::Queued);
    inbox.release(&delivery(), earlier);
    assert_eq!(inbox.waiting(), (1, cost()));
    inbox.close();
    assert_eq!(inbox.reserve(&delivery(), inbox.epoch(), None), Pushed::Skipped);
    assert_eq!(inbox.push_assured(delivery(), inbox.epoch(), None), Pushed::Skipped);
    assert!(!inbox.push_reserved(delivery(), inbox.epoch()));
}

/// A bound that was lowered takes nothing away.
#[test]
fn what_the_log_promised_is_there_whatever_the_bounds_are_now() {
    let (inbox, ..) = resting(1);
    for id in 1..=3 {
        inbox.restore(numbered(id));
    }
    assert_eq!((inbox.waiting(), taken(&inbox)), ((3, 3 * cost()), vec![1, 2, 3]));
}

#[test]
fn what_has_expired_gives_its_room_back_while_nobody_is_there_to_do_it() {
    let (inbox, ..) = resting(10);
    let qos = Qos::AtLeastOnce;
    let message = Arc::into_inner(Message::plain(qos, Vec::new())).unwrap();
    let message = Arc::new(Message { expires: Some(std::time::Instant::now()), ..message });
    inbox.restore(numbered(1));
    inbox.restore(Delivery { message, ..numbered(2) });
    inbox.restore(numbered(3));
    assert!(inbox.take_expired().is_empty(), "its connection does");
    inbox.detach(Done::default(), &mut VecDeque::new(), (0, 0));
    assert_eq!(ids(&inbox.take_expired()), [2]);
    assert_eq!(inbox.waiting(), (2, 2 * cost()));
    assert!(inbox.take_expired().is_empty());
    assert_eq!(taken(&inbox), [1, 3]);
}

#[test]
fn what_is_shared_and_what_is_not_kept_are_found() {
    let (inbox, ..) = resting(10);
    let share = Some(Arc::new(Share("$share/g/t".into())));
    inbox.restore(numbered(1));
    inbox.restore(Delivery { share, ..numbered(2) });
    inbox.restore(numbered(3));
    assert_eq!(ids(&inbox.shared()), [2]);
    assert_eq!(ids(&inbox.drop_waiting(|delivery| delivery.id != 1)), [1]);
    assert_eq!((inbox.waiting(), taken(&inbox)), ((2, 2 * cost()), vec![2, 3]));
}

/// Whom somebody waited for in vain is not waited for again before three quarters have drained, and
/// is asked to end.
#[test]
fn nobody_waits_for_who_was_late_before_it_has_caught_up() {
    let (inbox, ..) = resting(8);
    while inbox.push_assured(delivery(), 0, None) != Pushed::Full {}
    inbox.late(Kick { end: SessionEnd::Kicked, reason: 0x97, text: "late".into() });
    let kick = inbox.take(&mut Done::default(), &mut Taken::default()).unwrap_err();
    assert_eq!((kick.end, kick.reason), (SessionEnd::Kicked, 0x97));
    assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Dropped);
    let drained = |count| {
        let mut done = Done::default();
        (0..count).for_each(|_| done.count(&delivery()));
        inbox.take(&mut done, &mut Taken::default()).unwrap();
    };
    drained(5);
    for _ in 0..5 {
        assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Queued);
    }
    assert_eq!(
        inbox.push_assured(delivery(), 0, None),
        Pushed::Dropped,
        "three of eight were left"
    );
    drained(6);
    for _ in 0..6 {
        assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Queued);
    }
    assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Full, "two were");
}

#[test]
fn what_is_promised_is_bounded_in_bytes() {
    let limits = Limits { queue_bytes: 2 * cost() + 1, ..Limits::default() };
    let inbox = Inbox::new(Arc::new(LiveLimits::new(&limits)));
    assert!(inbox.attach(1, || true));
    for _ in 0..2 {
        assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Queued);
    }
    assert_eq!(inbox.push_assured(delivery(), 0, None), Pushed::Full);
}
