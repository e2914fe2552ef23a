//! What clients bring goes with them: the memory of the real daemon at rest does not grow with what
//! was there once, whichever way a message took.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    io::Read as _,
    net::TcpStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use support::{Client, Connect, Daemon, PATIENCE, Publish, Site, Version, eventually};

/// The rounds take all cores, so that one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Rounds before memory is looked at for the first time, and all of them. The first ones fill the
/// pools of the allocator, which levels off behind them (looked at over sixty rounds), and the
/// router's logs, which keep what was delivered until they are full.
const WARM: usize = 12;
const ROUNDS: usize = 20;
/// More receivers than this in one lane, and a message goes through the router.
const DIRECT_RECEIVERS: usize = 64;
/// What the router's log of one lane keeps, in bytes.
const ROUTER_LOG: usize = 10 * 256 * 1024;
/// Topics of one round, each with one message that is retained and one that takes it away.
const TOPICS: usize = 96;
const PAYLOAD: usize = 8 * 1024;
const _: () = assert!(WARM * TOPICS * PAYLOAD > ROUTER_LOG, "the router's logs are full by then");
/// Messages that are under way at once: no queue gets full.
const TOGETHER: usize = 16;

/// Resident memory in KB.
fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Does the same again and again, and memory stays: in all rounds behind the first ones it may grow
/// by so many KB.
fn stays(daemon: &Daemon, growth: u64, mut round: impl FnMut(usize)) {
    let mut before = 0;
    for number in 0..ROUNDS {
        if number == WARM {
            before = resident(daemon);
        }
        round(number);
    }
    let grown = resident(daemon).saturating_sub(before);
    println!("{before} KB at rest, {grown} KB more after {} rounds", ROUNDS - WARM);
    assert!(grown < growth, "{grown} KB more after {} rounds", ROUNDS - WARM);
}

fn metric(daemon: &Daemon, name: &str) -> u64 {
    let answer = daemon.admin().request("GET", "/metrics", None);
    let line = answer.body.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {}", answer.body)).parse().unwrap()
}

/// Many subscribers of one filter, who count the bytes that come.
struct Crowd {
    size: u64,
    bytes: Arc<AtomicU64>,
}

impl Crowd {
    fn enter(daemon: &Daemon, filter: &str, size: usize) -> Self {
        let bytes = Arc::new(AtomicU64::new(0));
        for n in 0..size {
            let stream = TcpStream::connect(daemon.mqtt()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut reader = stream.try_clone().unwrap();
            let client = Client::over(stream, Version::V4);
            let (mut client, _) = client.log_in(&Connect::id(&format!("crowd-{n}"))).unwrap();
            client.subscribe(filter, 0);
            let bytes = bytes.clone();
            std::thread::spawn(move || {
                // It ends with the daemon.
                let _connected = client;
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(read @ 1..) = reader.read(&mut buffer) {
                    bytes.fetch_add(read as u64, Ordering::Relaxed);
                }
            });
        }
        Crowd { size: size as u64, bytes }
    }

    /// Waits until each of them has got so many bytes in all.
    fn has(&self, each: u64) {
        eventually("all that was published has come", || {
            let bytes = self.bytes.load(Ordering::Relaxed);
            assert!(bytes <= each * self.size, "more than was published: {bytes}");
            (bytes == each * self.size).then_some(())
        });
    }
}

/// The bytes of a PUBLISH at QoS 0 on the wire.
fn packet_len(topic: &str, payload: usize) -> u64 {
    let body = 2 + topic.len() + payload;
    let length = if body < 128 { 1 } else { 2 };
    (1 + length + body) as u64
}

#[test]
fn filters_and_topics_leave_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let site = Site::new();
    let daemon = site.start();
    // A lane for each core, and one of them has more than it serves directly.
    let lanes = std::thread::available_parallelism().map_or(2, usize::from);
    let crowd = Crowd::enter(&daemon, "+/+/all", lanes * DIRECT_RECEIVERS + 16);
    let mut client = Client::connect(daemon.mqtt(), &Connect::id("client"));
    let mut each = 0;
    // Pools, fragments, and what the broker's log has to know of cleared topics until its next
    // snapshot; a stock rumqttd keeps 6 KB for each of these 16,000 filters.
    stays(&daemon, 4096, |round| {
        for part in 0..20 {
            let texts: Vec<String> =
                (0..100).map(|n| format!("{round}/{part}/{n}/+/only/here/#")).collect();
            let filters: Vec<_> = texts.iter().map(|filter| (filter.as_str(), 0)).collect();
            client.subscribe_all(&filters);
            for text in &texts {
                client.unsubscribe(text);
            }
        }
        for n in 0..TOPICS {
            let topic = format!("{round}/{n}/all");
            for payload in [PAYLOAD, 0] {
                client.publish(&Publish::new(&topic, vec![b'x'; payload]).retained());
                each += packet_len(&topic, payload);
            }
            if n % TOGETHER == TOGETHER - 1 {
                crowd.has(each);
            }
        }
    });
    let copies = |way| metric(&daemon, &format!("fuotad_mqtt_copies_total{{way=\"{way}\"}}"));
    assert!(copies("routed") > 0, "the router was not used at all");
    assert_eq!(metric(&daemon, "fuotad_mqtt_dropped_total"), 0);
    assert_eq!(metric(&daemon, "fuotad_mqtt_router_renewals_total"), 0);
}

#[test]
fn sessions_leave_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let site = Site::new();
    let daemon = site.start();
    let mut publisher = Client::connect(daemon.mqtt(), &Connect::id("publisher"));
    // Of 2,400 sessions on 4,800 connections; a stock rumqttd keeps 538 bytes for each of those.
    stays(&daemon, 1024, |round| {
        for n in 0..300 {
            let topic = format!("{round}/{n}");
            let lasting = Connect::id(&topic).v5().persistent();
            let mut client = Client::connect(daemon.mqtt(), &lasting);
            client.subscribe(&topic, 1);
            client.break_off();
            publisher.publish(&Publish::new(&topic, vec![b'x'; 100]).qos(1));
            let (mut client, present) = Client::connect_session(daemon.mqtt(), &lasting);
            assert!(present);
            assert_eq!(client.next_publish().payload.len(), 100);
            // A goodbye that ends the session.
            client.send_bytes(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]);
            client.expect_closed();
        }
    });
    eventually("no session is left", || {
        (metric(&daemon, "fuotad_mqtt_sessions") == 1).then_some(())
    });
}

/// What is retained takes about what it counts, however many levels its topics have.
#[test]
fn a_topic_of_many_levels_takes_what_it_counts() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let site = Site::new();
    let daemon = site.start();
    let mut client = Client::connect(daemon.mqtt(), &Connect::id("client"));
    let before = resident(&daemon);
    const TOPICS: usize = 3_000;
    let deep = "x/".repeat(126);
    for n in 0..TOPICS {
        client.publish(&Publish::new(&format!("{n}/{deep}x"), b"1".to_vec()).qos(1).retained());
    }
    let grown = resident(&daemon).saturating_sub(before);
    let counted = (TOPICS * (2 * 128 + 64) / 1024) as u64;
    println!("{grown} KB for what counts {counted} KB");
    assert!(grown < 10 * counted, "{grown} KB for what counts {counted} KB");
}
