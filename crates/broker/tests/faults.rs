//! The router is killed under load, by a means that no client has: the broker goes on, nothing at
//! QoS 1 is lost, and what is lost at QoS 0 was in transit and is counted.
#![allow(clippy::unwrap_used, clippy::expect_used)]

// A part of it is used here.
#[allow(dead_code, unused_imports)]
#[path = "wire/support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};
use support::*;

/// So many that no lane serves all of its own directly.
const AT_QOS_0: u64 = 200;
const AT_QOS_1: u64 = 20;

/// Threads and memory are the process's, so that one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Names of the threads of this process.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("comm")).ok()).collect()
}

fn routers() -> usize {
    threads().iter().filter(|name| name.trim() == "router-0").count()
}

/// Resident memory in KB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Publishers and subscribers that never pause.
struct Load {
    stop: Arc<AtomicBool>,
    sent: [Arc<AtomicU64>; 2],
    publishers: Vec<JoinHandle<()>>,
    subscribers: [Vec<JoinHandle<Seen>>; 2],
}

/// What a subscriber has received, to the end of its connection.
#[derive(Default)]
struct Seen {
    count: u64,
    last: Option<u64>,
}

/// Reads numbers, which only ever rise, until the broker closes.
fn receive(mut wire: Wire) -> Seen {
    let mut seen = Seen::default();
    while let Some(packet) = wire.next() {
        if packet[0] >> 4 != 3 {
            break;
        }
        let received = Received::parse(&packet, wire.version);
        if received.first == 0x32 {
            wire.send(&puback(received.id));
        }
        let number = received.text().parse().unwrap();
        assert!(seen.last.is_none_or(|last| last < number), "{:?}, then {number}", seen.last);
        seen.last = Some(number);
        seen.count += 1;
    }
    seen
}

impl Load {
    fn start(site: &Site) -> Load {
        let subscribe = |count, filter, qos| {
            let wires: Vec<_> = (0..count)
                .map(|n| {
                    let wire = site.subscriber(V4, &format!("s{qos}-{n}"), filter, qos);
                    thread::spawn(move || receive(wire))
                })
                .collect();
            wires
        };
        let subscribers = [subscribe(AT_QOS_0, "zero/+", 0), subscribe(AT_QOS_1, "one/+", 1)];
        let stop = Arc::new(AtomicBool::new(false));
        let sent = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
        let publishers = (0..2)
            .map(|qos| {
                let mut wire = site.client(V4, &format!("p{qos}"));
                let (stop, sent) = (stop.clone(), sent[qos].clone());
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let n = sent.load(Ordering::Relaxed).to_string();
                        let topic = ["zero/é", "one/é"][qos];
                        wire.publish(Publish::new(topic, n).qos(qos as u8, 1));
                        let sent = sent.fetch_add(1, Ordering::Relaxed) + 1;
                        match qos {
                            // In bursts, so that there is something in transit, and no more than
                            // a slow machine delivers.
                            0 if sent % 50 == 0 => wire.silent(),
                            0 => {}
                            _ => wire.expect(&puback(1)),
                        }
                    }
                    wire.silent();
                })
            })
            .collect();
        Load { stop, sent, publishers, subscribers }
    }

    fn sent(&self, qos: usize) -> u64 {
        self.sent[qos].load(Ordering::Relaxed)
    }

    /// Publishing goes on at both qualities of service.
    fn flows(&self) {
        let before = [self.sent(0), self.sent(1)];
        eventually("publishing goes on", || (0..2).all(|qos| self.sent(qos) > before[qos] + 20));
    }

    /// Stops the publishers, and gives what was sent once the broker has nothing under way.
    fn finish(self, site: &Site) -> ([u64; 2], [Vec<Seen>; 2]) {
        self.stop.store(true, Ordering::Relaxed);
        self.publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        let sent = [0, 1].map(|qos| self.sent[qos].load(Ordering::Relaxed));
        let copies = sent[0] * AT_QOS_0 + sent[1] * AT_QOS_1;
        eventually("each copy is delivered or counted as dropped", || {
            let counters = site.broker.counters();
            let found = counters.deliveries + counters.dropped;
            assert!(found <= copies, "{copies} copies, but {counters:?}");
            found == copies
        });
        site.cancel.cancel();
        let join = |readers: Vec<JoinHandle<_>>| readers.into_iter().map(|r| r.join().unwrap());
        (sent, self.subscribers.map(|readers| join(readers).collect()))
    }
}

fn kill(site: &Site) {
    let renewals = site.broker.counters().router_renewals;
    site.server.kill_router();
    eventually("the router is replaced", || site.broker.counters().router_renewals > renewals);
    site.server.ready().unwrap();
}

#[test]
fn the_broker_goes_on_and_loses_no_promise() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let site = site();
    let before = threads().len();
    let load = Load::start(&site);
    // The first few fill the allocator's pools.
    let mut memory = 0;
    for round in 0..25 {
        kill(&site);
        load.flows();
        if round == 4 {
            memory = resident();
        }
    }
    let grown = resident().saturating_sub(memory);
    assert!(grown < 24 * 1024, "{grown} KB more after twenty renewals");
    eventually("one router", || routers() == 1);

    let dropped = |site: &Site| site.broker.counters().dropped;
    assert!(site.broker.counters().routed > 0, "the router was not used at all");
    let (sent, [zero, one]) = load.finish(&site);
    for seen in one {
        // Rising, and as many as were sent: each of them, once.
        assert_eq!((seen.count, seen.last), (sent[1], sent[1].checked_sub(1)), "QoS 1 loses none");
    }
    let received: u64 = zero.iter().map(|seen| seen.count).sum();
    assert_eq!(received + dropped(&site), sent[0] * AT_QOS_0);
    println!("{grown} KB, {sent:?} sent, {} copies lost", dropped(&site));
    // The router ended with the broker; the runtime's threads are still there.
    eventually("no thread stays", || threads().len() < before && routers() == 0);
}

/// A broker that stands still while its router dies notices by itself as well.
#[test]
fn an_idle_broker_replaces_its_router() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let site = site();
    for _ in 0..3 {
        kill(&site);
    }
    let mut subscriber = site.subscriber(V5, "s", "t", 0);
    site.publish(Publish::new("t", "x"));
    subscriber.expect_publish(Publish::new("t", "x"));
    // An orderly stop ends it as well.
    site.cancel.cancel();
    eventually("no router", || routers() == 0);
}
