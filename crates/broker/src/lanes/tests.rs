//! Lanes with a real router, and what becomes of them when it dies.

use super::*;
use crate::{
    inbox::{Done, Taken},
    message::Carried,
    session::Session,
};
use bytes::Bytes;
use std::time::Duration;

fn message(n: u32) -> Arc<Message> {
    Arc::new(Message {
        topic: "é/x".into(),
        payload: Bytes::from(n.to_be_bytes().to_vec()),
        qos: Qos::AtMostOnce,
        retain: true,
        properties: Some(Carried::from(Box::new(hook::Properties {
            content_type: Some("text/plain".into()),
            user_properties: vec![("a".into(), "b".into())],
            ..hook::Properties::default()
        }))),
        publisher: 77,
        sequence: u64::from(n),
        expires: None,
    })
}

fn receiver(session: &Arc<Session>) -> Receiver {
    Receiver {
        session: session.clone(),
        qos: Qos::AtMostOnce,
        retain_as_published: true,
        identifiers: Some(Arc::from([3, 4])),
        epoch: 0,
        share: None,
    }
}

/// Sessions that are connected, in the registry, and all in lane 0.
async fn sessions(registry: &Registry, count: usize) -> Vec<Arc<Session>> {
    let mut sessions = Vec::new();
    for i in 0..count {
        let claimed = registry.claim(&format!("s{i}").into()).await.unwrap();
        assert!(claimed.session.inbox.attach(1, || true));
        sessions.push(claimed.session);
    }
    sessions
}

fn lanes() -> Arc<Lanes> {
    let registry = Arc::new(Registry::new(1, Arc::default()));
    Lanes::start(1, registry, Arc::default()).unwrap()
}

/// What a session has got, once it is `n` messages.
async fn got(session: &Session, n: usize) -> Vec<Delivery> {
    let mut taken = Taken::default();
    std::future::poll_fn(|cx| {
        loop {
            session.inbox.take(&mut Done::default(), &mut taken).unwrap();
            if taken.lossy.len() >= n {
                return std::task::Poll::Ready(());
            }
            if session.inbox.park(cx.waker()) {
                return std::task::Poll::Pending;
            }
        }
    })
    .await;
    let mut done = Done::default();
    taken.lossy.iter().for_each(|delivery| done.count(delivery));
    session.inbox.take(&mut done, &mut Taken::default()).unwrap();
    taken.lossy.take().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_receivers_go_through_the_router_and_order_is_kept() {
    let lanes = lanes();
    let sessions = sessions(&lanes.registry, DIRECT_RECEIVERS + 1).await;
    let receivers: Vec<_> = sessions.iter().map(receiver).collect();
    let mut tally = Tally::default();
    for n in 0..200 {
        // Every other message has one receiver only: it may not overtake.
        let all = if n % 2 == 0 { &receivers[..] } else { &receivers[..1] };
        lanes.send(0, &message(n), all, &mut tally);
    }
    assert!(tally.routed > 0, "{tally:?}");
    let first: Vec<u64> = got(&sessions[0], 200).await.iter().map(|d| d.message.sequence).collect();
    assert_eq!(first, (0..200).collect::<Vec<u64>>());
    assert_eq!(got(&sessions[1], 100).await.len(), 100);
    // What was charged is credited to the last byte. The reader credits after it handed over.
    until(|| lanes.lanes[0].transit.lock().parcels == 0).await;
    assert_eq!(lanes.lanes[0].transit.lock().bytes, 0);
}

/// Waits for what sends no event.
async fn until(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("in time");
}

/// Router threads of this process. Other tests have theirs, so only differences count.
fn router_threads() -> usize {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.trim() == "router-0")
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_router_ends_and_the_lane_goes_on() {
    let lanes = lanes();
    let sessions = sessions(&lanes.registry, DIRECT_RECEIVERS + 1).await;
    let receivers: Vec<_> = sessions.iter().map(receiver).collect();
    for round in 0..20 {
        lanes.renew().await;
        lanes.send(0, &message(round), &receivers, &mut Tally::default());
        let got = got(&sessions[0], 1).await;
        assert_eq!(got[0].message.sequence, u64::from(round));
    }
    assert_eq!(lanes.totals.router_renewals.load(Ordering::Relaxed), 20);
    // Each old thread ends; this lane's own and those of other tests stay, which are fewer than the
    // rounds.
    until(|| router_threads() < 20).await;
}

/// Copies that found their way, of all sessions, once nothing is under way any more.
#[cfg(feature = "faults")]
async fn settled(lanes: &Lanes, sessions: &[Arc<Session>]) -> Vec<Vec<u64>> {
    until(|| lanes.lanes.iter().all(|lane| lane.transit.lock().parcels == 0)).await;
    let mut all = Vec::new();
    for session in sessions {
        all.push(got(session, 0).await.iter().map(|d| d.message.sequence).collect());
    }
    all
}

#[cfg(feature = "faults")]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_to_a_dead_router_waits_for_the_next() {
    let lanes = lanes();
    let sessions = sessions(&lanes.registry, DIRECT_RECEIVERS + 1).await;
    let receivers: Vec<_> = sessions.iter().map(receiver).collect();
    assert!(lanes.ready());
    lanes.kill_router();
    assert!(!lanes.ready(), "a dead router is no ready broker");
    let mut tally = Tally::default();
    for n in 0..100 {
        let all = if n % 2 == 0 { &receivers[..] } else { &receivers[..1] };
        lanes.send(0, &message(n), all, &mut tally);
    }
    lanes.renew().await;
    assert!(lanes.ready());
    let seen = settled(&lanes, &sessions).await;
    assert_eq!(seen[0], (0..100).collect::<Vec<u64>>());
    assert!(seen[1..].iter().all(|seen| *seen == (0..100).step_by(2).collect::<Vec<u64>>()));
    assert_eq!((tally.dropped, lanes.totals.dropped.load(Ordering::Relaxed)), (0, 0));
    assert_eq!(lanes.lanes[0].transit.lock().bytes, 0);
}

/// Killed while it has work: each copy is delivered, in order, or counted as dropped.
#[cfg(feature = "faults")]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_transit_is_counted_copy_by_copy() {
    let lanes = lanes();
    let sessions = sessions(&lanes.registry, DIRECT_RECEIVERS + 1).await;
    let receivers: Vec<_> = sessions.iter().map(receiver).collect();
    let (mut lost, mut tally) = (0, Tally::default());
    for round in 0..20u32 {
        let before = lanes.totals.dropped.load(Ordering::Relaxed);
        for n in 0..200 {
            lanes.send(0, &message(round * 200 + n), &receivers, &mut tally);
            if n == 100 {
                lanes.kill_router();
            }
        }
        lanes.renew().await;
        let seen = settled(&lanes, &sessions).await;
        tally.flush(&lanes.totals);
        let dropped = lanes.totals.dropped.load(Ordering::Relaxed) - before;
        let copies: usize = seen.iter().map(Vec::len).sum();
        assert_eq!(copies as u64 + dropped, 200 * sessions.len() as u64, "round {round}");
        assert!(seen.iter().all(|seen| seen.is_sorted()), "order is kept");
        lost += dropped;
    }
    assert!(lost > 0, "nothing was in transit in any round");
}

/// A session that starts clean gets nothing that was on its way to what it was before.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_transit_is_not_for_a_session_that_starts_clean() {
    let lanes = lanes();
    let sessions = sessions(&lanes.registry, 2).await;
    let receivers: Vec<_> = sessions.iter().map(receiver).collect();
    let message = message(1);
    let blob = blob::encode(&message, receivers.iter(), 2);
    sessions[0].inbox.clear();
    let parcel = Parcel { payload: message.payload.clone(), blob };
    let (message, named) = blob::decode(parcel).unwrap();
    assert_eq!(lanes.hand_over(message.clone(), named).await, 2);
    assert!(got(&sessions[0], 0).await.is_empty());
    assert_eq!(got(&sessions[1], 1).await.len(), 1);
    // The same where it goes directly, by an index that was read before.
    lanes.send(0, &message, &receivers, &mut Tally::default());
    assert!(got(&sessions[0], 0).await.is_empty());
    assert_eq!(got(&sessions[1], 1).await.len(), 1);
}
