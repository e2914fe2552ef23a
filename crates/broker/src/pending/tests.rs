use std::{
    sync::atomic::{AtomicUsize, Ordering},
    task::Wake,
};

use super::*;
use crate::{
    inbox::{Done, Taken},
    limits::LiveLimits,
    session::Session,
    settings::Limits,
};

/// Nobody waits at all: who has no room when it is looked at is late.
const NO_PATIENCE: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(3600);

/// Counts how often it is woken.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn message() -> Arc<Message> {
    Message::plain(Qos::AtLeastOnce, Vec::new())
}

/// Receivers with room for one message each.
fn receivers(count: usize, qos: Qos) -> Vec<Receiver> {
    let limits = Arc::new(LiveLimits::new(&Limits { queue_messages: 1, ..Limits::default() }));
    let receiver = |key| Receiver {
        session: Arc::new(Session::new(key, "c".into(), 0, limits.clone())),
        qos,
        retain_as_published: false,
        identifiers: None,
        epoch: 0,
        share: None,
    };
    (1..=count as u64).map(receiver).collect()
}

fn connect(receivers: &[Receiver]) {
    for receiver in receivers {
        assert!(receiver.session.inbox.attach(1, || true));
    }
}

/// How many have a message, or room that is reserved for one.
fn served(receivers: &[Receiver]) -> usize {
    receivers.iter().map(|receiver| receiver.session.inbox.waiting().0).sum()
}

fn pending(routed: Routed) -> Box<Pending> {
    match routed {
        Routed::Pending(pending) => pending,
        _ => panic!("it waits for nothing"),
    }
}

#[tokio::test]
async fn a_publish_for_many_lets_others_run_between() {
    let receivers = receivers(3 * YIELD_AFTER, Qos::AtLeastOnce);
    let mut tally = Tally::default();
    let woken = Arc::new(Counter::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);

    let mut pending = pending(Pending::push(message(), &receivers, LONG, &mut tally));
    assert_eq!(served(&receivers), YIELD_AFTER);
    assert!(pending.poll(&mut cx, &mut tally).is_pending());
    assert_eq!((served(&receivers), woken.0.load(Ordering::Relaxed)), (2 * YIELD_AFTER, 1));
    assert_eq!(pending.poll(&mut cx, &mut tally), Poll::Ready(Ok(())));
    assert_eq!((served(&receivers), woken.0.load(Ordering::Relaxed)), (3 * YIELD_AFTER, 1));
}

#[tokio::test]
async fn room_is_reserved_at_once_where_they_are_few() {
    let mut tally = Tally::default();
    for (count, waits) in [(1, false), (YIELD_AFTER, false), (YIELD_AFTER + 1, true)] {
        let receivers = receivers(count, Qos::AtLeastOnce);
        let pending = Pending::reserve(message(), &receivers, None, LONG, &mut tally);
        assert_eq!(pending.waits_for_room(), waits, "{count}");
        assert_eq!(served(&receivers), if waits { 0 } else { count });
    }
}

/// Once it is on its way to the log, or has been handed to somebody, it goes on without its
/// publisher.
#[tokio::test]
async fn only_what_nobody_has_can_be_given_up() {
    let mut tally = Tally::default();
    let receivers = receivers(1, Qos::AtLeastOnce);
    connect(&receivers);
    assert!(!Pending::reserve(message(), &receivers, None, LONG, &mut tally).is_revocable());
    // The room is taken now.
    assert!(Pending::reserve(message(), &receivers, None, LONG, &mut tally).is_revocable());
    let handed = pending(Pending::push(message(), &receivers, LONG, &mut tally));
    assert!(handed.waits_for_room() && !handed.is_revocable());
}

#[tokio::test]
async fn what_finds_no_room_is_counted() {
    let receivers = receivers(1, Qos::AtLeastOnce);
    let mut tally = Tally::default();
    for dropped in 0..3 {
        assert!(matches!(
            Pending::push(message(), &receivers, LONG, &mut tally),
            Routed::Done | Routed::Woke(_)
        ));
        assert_eq!((tally.dropped, tally.slow_clients), (dropped, 0), "nobody drains it");
    }
    connect(&receivers);
    let mut pending = pending(Pending::push(message(), &receivers, NO_PATIENCE, &mut tally));
    let result = std::future::poll_fn(|cx| pending.poll(cx, &mut tally)).await;
    assert_eq!(result, Ok(()));
    assert_eq!((tally.dropped, tally.slow_clients), (3, 1), "it was late");
}

/// QoS 0 takes no room before it is there.
#[tokio::test]
async fn no_room_is_reserved_for_qos_0() {
    let receivers = receivers(1, Qos::AtMostOnce);
    connect(&receivers);
    let mut tally = Tally::default();
    let mut pending = Pending::reserve(message(), &receivers, None, LONG, &mut tally);
    assert!(!pending.waits_for_room());
    assert_eq!(served(&receivers), 0);
    let result = std::future::poll_fn(|cx| pending.poll(cx, &mut tally)).await;
    assert_eq!((result, served(&receivers)), (Ok(()), 1));
}

/// They take one message each, and have it.
fn fill(receivers: &[Receiver]) {
    connect(receivers);
    let routed = Pending::push(message(), receivers, LONG, &mut Tally::default());
    assert!(matches!(routed, Routed::Done | Routed::Pending(_)));
    for receiver in receivers {
        let delivery = copy(&message(), receiver);
        receiver.session.inbox.push_assured(delivery, receiver.epoch, None);
    }
}

/// The connection sends what it has.
fn drain(receiver: &Receiver) {
    let mut done = Done::default();
    done.count(&copy(&message(), receiver));
    receiver.session.inbox.take(&mut done, &mut Taken::default()).unwrap();
}

/// However many have no room, the others are asked as well, and nobody is asked without pause.
#[tokio::test]
async fn who_has_no_room_keeps_nobody_from_being_asked() {
    let receivers = receivers(3 * YIELD_AFTER, Qos::AtLeastOnce);
    let mut tally = Tally::default();
    let woken = Arc::new(Counter::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    fill(&receivers);
    let last = receivers.last().unwrap();
    drain(last);

    let mut pending = pending(Pending::push(message(), &receivers, LONG, &mut tally));
    for _ in 0..3 {
        assert!(pending.poll(&mut cx, &mut tally).is_pending());
    }
    assert_eq!(last.session.inbox.waiting().0, 1, "it has the new one");
    let count = woken.0.load(Ordering::Relaxed);
    for _ in 0..3 {
        assert!(pending.poll(&mut cx, &mut tally).is_pending());
    }
    assert_eq!(count, 2, "once for each turn but the last");
}

/// Who makes room while others are asked is not forgotten.
#[tokio::test]
async fn who_has_room_meanwhile_is_asked_again() {
    let receivers = receivers(3 * YIELD_AFTER, Qos::AtLeastOnce);
    let mut tally = Tally::default();
    let mut cx = Context::from_waker(Waker::noop());
    fill(&receivers);
    let mut pending = pending(Pending::push(message(), &receivers, LONG, &mut tally));
    assert!(pending.poll(&mut cx, &mut tally).is_pending());
    let first = &receivers[0];
    drain(first);
    let served = std::future::poll_fn(|cx| {
        assert!(pending.poll(cx, &mut tally).is_pending());
        match first.session.inbox.waiting().0 {
            0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    });
    tokio::select! {
        biased;
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("it is not asked again"),
        () = served => {}
    }
}
