//! What one client may make the broker hold or do, whatever it sends.

use crate::support::{disk::Disk, *};
use broker::Settings;
use hook::{Context, Hook, SubscribeVerdict, Subscription};
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
        wire.subscribe("v", 1);
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
    wire.silent();
    assert!(most < MOST, "{most} bytes waited for the disk");
    let mut reader = site.subscriber(V4, "r", "t", 0);
    assert_eq!(reader.received().text(), "newest");
    disk.set_full(false);
    eventually("all is written", || site.broker.counters().log_waiting == 0);
    let site = site_on(Settings::default(), &disk.after_kill());
    let mut reader = site.subscriber(V4, "r", "t", 0);
    assert_eq!(reader.received().text(), "newest");
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
