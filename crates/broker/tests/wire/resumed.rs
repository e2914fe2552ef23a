//! Subscriptions of a resumed session, under rules that have changed meanwhile.

use crate::support::{disk::Disk, *};
use broker::Settings;
use hook::{Access, Client, Context, Hook, Reason, ReasonKind, SubscribeVerdict, Subscription};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Refuses `secret…` and `late…`, and takes `own` for itself, while it is closed.
#[derive(Default)]
struct Gate {
    closed: AtomicBool,
}

impl Gate {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn set(&self, closed: bool) {
        self.closed.store(closed, Ordering::Release);
    }
}

fn no() -> Reason {
    Reason::new(ReasonKind::NotAuthorized, "closed")
}

impl Hook for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn authorize_subscribe(&self, _: &Client, filter: &str) -> Access {
        match filter.contains("secret") && self.is_closed() {
            true => Access::Reject(no()),
            false => Access::Continue,
        }
    }

    fn subscribe(&self, _: Context<'_>, subscription: &Subscription) -> SubscribeVerdict {
        match subscription.filter.as_str() {
            "own" if self.is_closed() => SubscribeVerdict::Consume,
            "late/#" if self.is_closed() => SubscribeVerdict::Reject(no()),
            _ => SubscribeVerdict::Continue,
        }
    }
}

const FILTERS: [&str; 5] = ["secret/#", "$share/g/secret/+", "late/#", "own", "open/+"];

fn held(site: &Site, id: &str) -> Vec<String> {
    let client = site.broker.client(id).unwrap();
    client.subscriptions.into_iter().map(|one| one.filter).collect()
}

#[test]
fn what_is_refused_now_is_gone_with_what_waits_for_it() {
    for version in BOTH {
        let (gate, disk) = (Arc::new(Gate::default()), Disk::default());
        let site = start(Settings::default(), vec![gate.clone()], &disk);
        let lasting = Connect::lasting(version, "c");
        let mut wire = site.enter(&lasting, false);
        FILTERS.iter().for_each(|filter| wire.subscribe(filter, 1));
        wire.vanish();
        gate.set(true);
        // What waits for a session that is away is decided when it comes back.
        for topic in ["secret/a", "late/a", "own", "open/a"] {
            site.publish(Publish::new(topic, "1").qos(1, 1));
        }
        let before = site.broker.counters();
        let mut wire = site.enter(&lasting, true);
        wire.expect_publish(Publish::new("open/a", "1").qos(1, 1));
        wire.send(&puback(1));
        for topic in ["secret/a", "late/a", "own"] {
            site.publish(Publish::new(topic, "2").qos(1, 1));
        }
        wire.silent();
        let after = site.broker.counters();
        assert_eq!(after.refused - before.refused, 3);
        // Of `secret/a` one copy for the filter, and one for the group.
        assert_eq!(after.dropped - before.dropped, 4);
        assert_eq!(held(&site, "c"), ["open/+", "own"]);
        let client = site.broker.client("c").unwrap();
        assert_eq!((client.queued_messages, client.queued_bytes), (0, 0));
        wire.vanish();
        // As if unsubscribed, also in the log: an open gate does not bring it back.
        gate.set(false);
        // Nobody waits for those records; this one is behind them.
        site.publish(Publish::new("state", "x").qos(1, 1).retained());
        let killed = start(Settings::default(), vec![gate.clone()], &disk.after_kill());
        for site in [site, killed] {
            let mut wire = site.enter(&lasting, true);
            site.publish(Publish::new("secret/a", "3").qos(1, 1));
            wire.silent();
            site.publish(Publish::new("open/a", "3"));
            wire.expect_publish(Publish::new("open/a", "3"));
            wire.vanish();
        }
    }
}

#[test]
fn what_was_sent_and_is_refused_now_is_not_sent_again() {
    for (version, kill) in [(V5, false), (V4, false), (V5, true)] {
        let (gate, disk) = (Arc::new(Gate::default()), Disk::default());
        let mut site = start(Settings::default(), vec![gate.clone()], &disk);
        let lasting = Connect::lasting(version, "c");
        let mut wire = site.enter(&lasting, false);
        wire.subscribe("secret/#", 2);
        wire.subscribe("open/+", 1);
        for (topic, qos) in [("secret/a", 1), ("secret/b", 2), ("open/a", 1)] {
            site.publish(Publish::new(topic, "x").qos(qos, 1));
            assert_eq!(wire.received().topic, topic);
        }
        wire.vanish();
        gate.set(true);
        if kill {
            site = start(Settings::default(), vec![gate.clone()], &disk.after_kill());
        }
        for _ in 0..2 {
            let mut wire = site.enter(&lasting, true);
            assert_eq!(wire.received().topic, "open/a");
            wire.silent();
            wire.vanish();
        }
        let client = site.broker.client("c").unwrap();
        assert_eq!((client.queued_messages, client.inflight), (0, 1));
    }
}

#[test]
fn what_a_hook_takes_for_itself_is_decided_anew() {
    let gate = Arc::new(Gate::default());
    let site = start(Settings::default(), vec![gate.clone()], &Disk::default());
    let lasting = Connect::lasting(V5, "c");
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("own", 1);
    for closed in [true, false, false, true] {
        wire.vanish();
        gate.set(closed);
        wire = site.enter(&lasting, true);
        site.publish(Publish::new("own", "x"));
        if !closed {
            wire.expect_publish(Publish::new("own", "x"));
        }
        wire.silent();
        assert_eq!(held(&site, "c"), ["own"]);
    }
}
