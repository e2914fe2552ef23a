//! What one client may make the broker hold or do, whatever it sends.

use crate::support::{disk::Disk, *};
use broker::{Limits, Settings};
use hook::{
    BoxFuture, ConnectRequest, ConnectVerdict, Context, Hook, Identity, SubscribeVerdict,
    Subscription,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// More than anything here needs, and far less than a record for each packet.
const LITTLE: u64 = 10_000;

/// While the disk is full, PUBREL and PUBREC wait; the same one again waits with it, and a
/// SUBSCRIBE does not.
#[test]
fn what_is_said_again_and_again_waits_once() {
    let disk = Disk::default();
    let site = site_on(Settings::default(), &disk);
    let mut wire = site.enter(&Connect::lasting(V5, "c"), false);
    wire.subscribe("t", 2);
    site.publish(Publish::new("t", "x").qos(2, 1));
    let id = wire.received().id;
    wire.publish(Publish::new("u", "x").qos(2, 7));
    wire.expect(&pubrec(7));
    disk.set_full(true);
    for (packet, answer) in [(pubrel(7), pubcomp(7)), (pubrec(id), pubrel(id))] {
        wire.send(&packet.repeat(1_000_000));
        wire.silent();
        let waiting = site.broker.counters().log_waiting;
        assert!(waiting < LITTLE, "{waiting} bytes wait for one answer");
        // What it has already.
        wire.subscribe("t", 2);
        disk.set_full(false);
        wire.expect(&answer);
        wire.silent();
        disk.set_full(true);
    }
}

/// What is retained at QoS 0 is acknowledged to nobody, so its publisher is not read on while too
/// much of it waits.
#[test]
fn retained_at_qos_0_waits_for_the_log_as_well() {
    const MOST: u64 = 18_000_000;
    let disk = Disk::default();
    let site = site_on(Settings::default(), &disk);
    let mut wire = site.client(V4, "w");
    let publish = Publish::new("t", vec![b'x'; 1_000_000]).retained().bytes(V4);
    disk.set_full(true);
    let mut most = 0;
    for _ in 0..60 {
        wire.send(&publish);
        most = most.max(site.broker.counters().log_waiting);
    }
    wire.publish(Publish::new("t", "newest").retained());
    // A PINGREQ would not wait behind it.
    wire.subscribe("behind", 0);
    assert!(most < MOST, "{most} bytes waited for the disk");
    let mut reader = site.subscriber(V4, "r", "t", 0);
    assert_eq!(reader.received().text(), "newest");
    disk.set_full(false);
    eventually("all is written", || site.broker.counters().log_waiting == 0);
    let site = site_on(Settings::default(), &disk.after_kill());
    let mut reader = site.subscriber(V4, "r", "t", 0);
    assert_eq!(reader.received().text(), "newest");
}

/// A message is what it carries, and not its payload alone: no bound in bytes is passed by with
/// user properties.
#[test]
fn properties_count_where_bytes_are_bounded() {
    const PUBLISHES: u16 = 20;
    let limits = Limits { queue_bytes: 100_000, retained_bytes: 100_000, ..Limits::default() };
    let site = site_with(Settings { limits, ..Settings::default() });
    let away = Connect::lasting(V5, "away");
    let mut wire = site.enter(&away, false);
    wire.subscribe("t", 1);
    wire.leave();
    let mut publisher = site.client(V5, "p");
    for properties in [user("a", &"x".repeat(20_000)), user("", "").repeat(300)] {
        for id in 1..=PUBLISHES {
            publisher.publish(Publish::new("t", "").qos(1, id).with(&properties));
            publisher.expect(&puback(id));
        }
        let waits = site.broker.client("away").unwrap();
        assert!((1..=5).contains(&waits.queued_messages), "{} messages", waits.queued_messages);
        assert!(waits.queued_bytes > 60_000, "{} bytes", waits.queued_bytes);
        site.enter(&Connect::new(V5, "away"), false).leave();
        let mut wire = site.enter(&away, false);
        wire.subscribe("t", 1);
        wire.leave();
    }
    for id in 1..=PUBLISHES {
        let topic = format!("r/{id}");
        let large = Publish::new(&topic, "x").with(&user("a", &"x".repeat(20_000)));
        publisher.publish(large.qos(1, id).retained());
        let ack = publisher.packet();
        assert_eq!((ack[0], ack.get(4) == Some(&0x97)), (0x40, id > 4), "{id}: {ack:02x?}");
    }
}

/// Filters may be as long as texts of MQTT, but not all of them: what a session holds is bounded in
/// bytes as well, and one that is gone gives its room back.
#[test]
fn filters_have_room_for_a_few_long_ones() {
    let settings = Settings::default();
    let most = settings.limits.subscriptions * 256 / 60_000;
    let site = site_with(settings);
    let long = |n: usize, end: &str| format!("{n}{}{end}", "x".repeat(60_000 - 10));
    for (version, refused) in [(V4, 0x80), (V5, 0x97)] {
        let mut wire = site.client(version, "c");
        for n in 0..most + 5 {
            let granted = if n < most { 1 } else { refused };
            // Those with wildcards stand elsewhere, and a group has a text of its own.
            let filter = match n % 3 {
                0 => long(n, ""),
                1 => long(n, "/+"),
                _ => format!("$share/g/{}", long(n, "/#")),
            };
            wire.send(&subscribe(version, 1, &[], &[(&filter, 1)]));
            wire.expect(&suback(version, 1, &[granted]));
        }
        // Again is no more, and short ones still find room.
        for filter in [&*long(0, ""), "short"] {
            wire.send(&subscribe(version, 1, &[], &[(filter, 1)]));
            wire.expect(&suback(version, 1, &[1]));
        }
        wire.send(&unsubscribe(version, 1, &[&long(0, "")]));
        wire.expect(&unsuback(version, 1, &[0]));
        wire.send(&subscribe(version, 1, &[], &[(&long(0, "/y"), 1)]));
        wire.expect(&suback(version, 1, &[1]));
        wire.leave();
    }
}

/// No SUBSCRIBE has more filters than a session may hold; the others are refused unseen.
#[test]
fn one_subscribe_has_as_many_filters_as_a_session() {
    let site = site_with(Settings::default());
    let mut writer = site.client(V4, "w");
    for n in 0..5000 {
        writer.publish(Publish::new(&format!("r/{n}"), "x").retained());
    }
    writer.silent();
    for (version, refused) in [(V4, 0x80), (V5, 0x97)] {
        let mut wire = site.enter(&Connect::lasting(version, "c"), false);
        wire.send(&subscribe(version, 1, &[], &vec![("r/+/x", 1); 110_000]));
        let codes = [vec![1; 1000], vec![refused; 109_000]].concat();
        wire.expect(&suback(version, 1, &codes));
        wire.silent();
        wire.send(&DISCONNECT);
        site.enter(&Connect::new(V5, "c"), false).leave();
    }
}

/// Each subscription takes long, and says whether anybody else has run since the first one.
#[derive(Default)]
struct Slow {
    asked: AtomicUsize,
    /// How many were asked for when others first had their turn.
    turn: Arc<AtomicUsize>,
    begun: AtomicBool,
}

/// Longer than a turn.
const LONG: Duration = Duration::from_millis(5);

impl Hook for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn subscribe(&self, _: Context<'_>, _: &Subscription) -> SubscribeVerdict {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if !self.begun.swap(true, Ordering::Relaxed) {
            let turn = self.turn.clone();
            tokio::spawn(async move { turn.store(1, Ordering::Relaxed) });
        } else if self.turn.load(Ordering::Relaxed) == 1 {
            self.turn.store(self.asked.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        let began = Instant::now();
        while began.elapsed() < LONG {
            std::hint::spin_loop();
        }
        SubscribeVerdict::Continue
    }
}

/// A batch of packets that takes long is handled in turns with everybody else.
#[test]
fn a_batch_that_takes_long_yields() {
    let slow = Arc::new(Slow::default());
    let site = site_on_one_thread(vec![slow.clone()]);
    let mut wire = site.client(V4, "c");
    let packets: Vec<Vec<u8>> =
        (1..=20).map(|id| subscribe(V4, id, &[], &[(&format!("f/{id}"), 0)])).collect();
    wire.send(&packets.concat());
    for id in 1..=20 {
        wire.expect(&suback(V4, id, &[0]));
    }
    let turn = slow.turn.load(Ordering::Relaxed);
    assert!((2..=4).contains(&turn), "others ran before packet {turn} of 20, 0 being never");
}

/// The user name is the account.
struct Accounts;

impl Hook for Accounts {
    fn name(&self) -> &'static str {
        "accounts"
    }

    fn connect<'a>(&'a self, request: &'a ConnectRequest) -> BoxFuture<'a, ConnectVerdict> {
        let name = request.username.clone();
        let verdict = name.map_or(ConnectVerdict::Continue, |name| {
            ConnectVerdict::Accept(Identity::device(name))
        });
        Box::pin(std::future::ready(verdict))
    }
}

/// A session that lasts of a client with or without account.
fn lasting(version: u8, id: &str, account: Option<&str>) -> Connect {
    let connect = Connect::lasting(version, id);
    account.map_or(connect.clone(), |account| connect.user(account))
}

#[track_caller]
fn refused(site: &Site, connect: &Connect) {
    let mut wire = site.greet(connect);
    let ack = wire.packet();
    let code = if connect.version == V5 { 0x97 } else { 3 };
    assert_eq!((ack[0], ack[2], ack[3]), (0x20, 0, code), "{ack:02x?}");
    wire.closed();
}

/// Who asks for one session too many is refused, and nobody else, also after a restart.
#[test]
fn sessions_that_last_are_bounded() {
    let limits = Limits { sessions: 4, sessions_per_account: Some(2), ..Limits::default() };
    let settings = Settings { limits, ..Settings::default() };
    let (disk, hooks) = (Disk::default(), || vec![Arc::new(Accounts) as Arc<dyn Hook>]);
    let mut site = start(settings.clone(), hooks(), &disk);
    let first = lasting(V5, "a1", Some("a"));
    let mut wire = site.enter(&first, false);
    wire.subscribe("t", 1);
    wire.leave();
    let _connected = site.enter(&lasting(V4, "a2", Some("a")), false);
    for _ in 0..2 {
        for version in BOTH {
            refused(&site, &lasting(version, "a3", Some("a")));
            assert!(site.broker.client("a3").is_none(), "and nothing is left of it");
        }
        site.publish(Publish::new("t", "x").qos(1, 1));
        let mut wire = site.enter(&first, true);
        assert_eq!(wire.received().text(), "x");
        wire.send(&puback(1));
        wire.silent();
        wire.leave();
        let ends = Connect::new(V5, "a3").user("a");
        site.enter(&ends, false).leave();
        // Behind what is in the log by then.
        site.publish(Publish::new("barrier", "x").qos(1, 1).retained());
        site = start(settings.clone(), hooks(), &disk.after_kill());
    }
    site.enter(&lasting(V5, "b1", Some("b")), false).leave();
    site.enter(&lasting(V4, "c", None), false).leave();
    refused(&site, &lasting(V5, "d", None));
    refused(&site, &lasting(V5, "b2", Some("b")));
    // One gives its place up.
    site.enter(&Connect { clean: true, ..Connect::new(V4, "c") }, false).leave();
    site.enter(&lasting(V5, "d", None), false).leave();
}
