//! `kill -9` at random moments, while clients that last publish and subscribe and count.
//!
//! Nothing that was acknowledged may be missing, nothing at QoS 2 may arrive twice, and a retained
//! message is never older than what was acknowledged. The clients keep their half of the session
//! over every kill, as the standard asks of them [MQTT-4.1.0-1].
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    time::Instant,
};
use support::{Daemon, PATIENCE, Site};

/// Kills; `FUOTAD_KILLS` asks for another number.
const KILLS: u64 = 60;
const PUBLISHERS: usize = 3;
const SUBSCRIBERS: usize = 2;
/// Publishes that a publisher has unacknowledged.
const WINDOW: usize = 16;

/// SplitMix64: the same choices in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// A connection of a client that lasts; every call says `None` when it has broken.
struct Wire(TcpStream);

impl Wire {
    fn connect(address: SocketAddr, id: &str, present: bool) -> Option<Wire> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut wire = Wire(stream);
        // 3.1.1, no clean session, no keep alive.
        let head: &[u8] = &[0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 0];
        wire.send(0x10, &[head, &text(id)].concat())?;
        let (first, body) = wire.next()?;
        assert_eq!((first, body[1]), (0x20, 0), "{id} is let in");
        assert!(body[0] == 1 || !present, "the session of {id} is gone");
        Some(wire)
    }

    fn send(&mut self, first: u8, body: &[u8]) -> Option<()> {
        let mut packet = vec![first];
        let mut len = body.len();
        loop {
            packet.push((len & 0x7f) as u8 | if len > 0x7f { 0x80 } else { 0 });
            len >>= 7;
            if len == 0 {
                break;
            }
        }
        packet.extend_from_slice(body);
        self.0.write_all(&packet).ok()
    }

    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut first = [0];
        if let Err(error) = self.0.read_exact(&mut first) {
            let stuck = matches!(error.kind(), std::io::ErrorKind::WouldBlock);
            assert!(!stuck, "nothing came for {PATIENCE:?}");
            return None;
        }
        let (mut len, mut shift) = (0usize, 0);
        loop {
            let mut byte = [0];
            self.0.read_exact(&mut byte).ok()?;
            len |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).ok()?;
        Some((first[0], body))
    }

    fn ack(&mut self, first: u8, id: u16) -> Option<()> {
        self.send(first, &id.to_be_bytes())
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn packet_id(body: &[u8]) -> u16 {
    u16::from_be_bytes([body[0], body[1]])
}

/// A message as publishers number them.
type Number = (usize, u8, u64);

/// What a publisher has under a packet id.
#[derive(Clone, Copy)]
struct Sent {
    number: u64,
    qos: u8,
    /// PUBREC has come.
    received: bool,
}

struct Publisher {
    me: usize,
    present: bool,
    next_number: u64,
    next_id: u16,
    unacknowledged: BTreeMap<u64, (u16, Sent)>,
    acknowledged: BTreeSet<(u8, u64)>,
}

impl Publisher {
    fn new(me: usize) -> Self {
        Publisher {
            me,
            present: false,
            next_number: 0,
            next_id: 0,
            unacknowledged: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
        }
    }

    fn publish(&self, wire: &mut Wire, id: u16, sent: Sent, dup: bool) -> Option<()> {
        let Sent { number, qos, received } = sent;
        if received {
            return wire.ack(0x62, id);
        }
        // Each fifth is retained, the latest of which is looked at in the end.
        let retain = u8::from(number % 5 == 0);
        let topic = match retain {
            1 => format!("state/{}", self.me),
            _ => format!("load/{}", self.me),
        };
        let payload = format!("{} {qos} {number}", self.me);
        let body = [text(&topic), id.to_be_bytes().to_vec(), payload.into_bytes()].concat();
        wire.send(0x30 | u8::from(dup) << 3 | qos << 1 | retain, &body)
    }

    /// Until the connection breaks, or nothing is left where no more is `wanted`.
    fn run(&mut self, address: SocketAddr, wanted: bool, news: &Sender<()>) -> Option<()> {
        let mut wire = Wire::connect(address, &format!("publisher-{}", self.me), self.present)?;
        self.present = true;
        for (id, sent) in self.unacknowledged.values().copied().collect::<Vec<_>>() {
            self.publish(&mut wire, id, sent, true)?;
        }
        loop {
            while wanted && self.unacknowledged.len() < WINDOW {
                self.next_number += 1;
                // Ids are used again soon, so that one that was not given back would show.
                let taken: BTreeSet<u16> =
                    self.unacknowledged.values().map(|(id, _)| *id).collect();
                while self.next_id == 0 || taken.contains(&self.next_id) {
                    self.next_id = (self.next_id + 1) % (2 * WINDOW as u16);
                }
                let qos = 1 + (self.next_number % 2) as u8;
                let sent = Sent { number: self.next_number, qos, received: false };
                self.unacknowledged.insert(sent.number, (self.next_id, sent));
                self.publish(&mut wire, self.next_id, sent, false)?;
                self.next_id = (self.next_id + 1) % (2 * WINDOW as u16);
            }
            if self.unacknowledged.is_empty() {
                return Some(());
            }
            let (first, body) = wire.next()?;
            let id = packet_id(&body);
            let found = self.unacknowledged.values_mut().find(|(known, _)| *known == id);
            let Some((_, sent)) = found else { panic!("an acknowledgement of nothing: {id}") };
            match (first, sent.qos) {
                (0x50, 2) => {
                    sent.received = true;
                    wire.ack(0x62, id)?;
                }
                (0x40, 1) | (0x70, 2) => {
                    let Sent { number, qos, .. } = *sent;
                    self.unacknowledged.remove(&number);
                    self.acknowledged.insert((qos, number));
                    let _ = news.send(());
                }
                other => panic!("{other:?} for {id}"),
            }
        }
    }
}

#[derive(Default)]
struct Subscriber {
    me: usize,
    present: bool,
    /// Packet ids of QoS 2 that were received and not released.
    held: BTreeSet<u16>,
    got: HashMap<Number, u32>,
}

impl Subscriber {
    /// Until the connection breaks, or `done` says that it has all.
    fn run(&mut self, address: SocketAddr, done: impl Fn(&Self) -> bool) -> Option<()> {
        let mut wire = Wire::connect(address, &format!("subscriber-{}", self.me), self.present)?;
        if !self.present {
            let filters = [text("load/#"), vec![2], text("state/#"), vec![2]].concat();
            wire.send(0x82, &[&[0, 1], &filters[..]].concat())?;
        }
        while !done(self) {
            let (first, body) = wire.next()?;
            match first >> 4 {
                3 => self.publish(&mut wire, first, &body)?,
                6 => {
                    self.held.remove(&packet_id(&body));
                    wire.ack(0x70, packet_id(&body))?;
                }
                // What was acknowledged stays.
                9 => self.present = true,
                other => panic!("packet type {other}"),
            }
        }
        Some(())
    }

    fn publish(&mut self, wire: &mut Wire, first: u8, body: &[u8]) -> Option<()> {
        let topic = usize::from(packet_id(body));
        let (id, payload) = (packet_id(&body[2 + topic..]), &body[4 + topic..]);
        let mut words = std::str::from_utf8(payload).unwrap().split(' ');
        let mut word = || words.next().unwrap().parse::<u64>().unwrap();
        let number = (word() as usize, word() as u8, word());
        let qos = first >> 1 & 3;
        assert_eq!(qos, number.1, "{number:?} comes at its own quality of service");
        if qos == 1 {
            *self.got.entry(number).or_default() += 1;
            return wire.ack(0x40, id);
        }
        // Method A: the packet id tells a copy from a new message.
        if self.held.insert(id) {
            *self.got.entry(number).or_default() += 1;
        }
        wire.ack(0x50, id)
    }
}

/// Kills the daemon when so many publishes were acknowledged since its start.
fn kill_after(daemon: Daemon, news: &Receiver<()>, acknowledged: u64) {
    for _ in 0..acknowledged {
        news.recv_timeout(PATIENCE).expect("publishes are acknowledged");
    }
    daemon.kill();
    while news.try_recv().is_ok() {}
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_arrives_twice() {
    let kills = std::env::var("FUOTAD_KILLS").map_or(KILLS, |n| n.parse().unwrap());
    let mut site = Site::new();
    // Subscribers come back later than publishers: nothing may be dropped meanwhile.
    site.set("limits.queue_messages", "1000000").set("limits.queue_bytes", "\"1 GiB\"");
    site.set("persistence.sync", "\"os\"");
    let mut random = Random(2026);
    let publishers: Vec<_> = (0..PUBLISHERS).map(|me| Mutex::new(Publisher::new(me))).collect();
    let new = |me| Mutex::new(Subscriber { me, ..Subscriber::default() });
    let subscribers: Vec<_> = (0..SUBSCRIBERS).map(new).collect();
    let started = Instant::now();
    // The first connections are to make their sessions before anything is published.
    let daemon = site.start();
    for subscriber in &subscribers {
        let mut subscriber = subscriber.lock().unwrap();
        assert_eq!(subscriber.run(daemon.mqtt(), |it| it.present), Some(()));
    }
    daemon.kill();
    for _ in 0..kills {
        let daemon = site.start();
        let address = daemon.mqtt();
        let (sender, news) = channel();
        std::thread::scope(|scope| {
            for publisher in &publishers {
                let sender = sender.clone();
                scope.spawn(move || publisher.lock().unwrap().run(address, true, &sender));
            }
            for subscriber in &subscribers {
                scope.spawn(move || subscriber.lock().unwrap().run(address, |_| false));
            }
            // Often amid the first words, sometimes after thousands.
            let most = [1, 10, 100, 1000][random.below(4) as usize];
            kill_after(daemon, &news, random.below(most));
        });
    }

    let daemon = site.start();
    let (sender, _news) = channel();
    for publisher in &publishers {
        publisher.lock().unwrap().run(daemon.mqtt(), false, &sender).expect("all acknowledged");
    }
    let publishers: Vec<_> = publishers.into_iter().map(|p| p.into_inner().unwrap()).collect();
    let all: BTreeSet<Number> = publishers
        .iter()
        .flat_map(|p| p.acknowledged.iter().map(|(qos, number)| (p.me, *qos, *number)))
        .collect();
    for subscriber in subscribers {
        let mut subscriber = subscriber.into_inner().unwrap();
        let has_all = |it: &Subscriber| all.iter().all(|number| it.got.contains_key(number));
        subscriber.run(daemon.mqtt(), has_all).expect("all that was acknowledged arrives");
        let twice: Vec<_> =
            subscriber.got.iter().filter(|((_, qos, _), n)| *qos == 2 && **n > 1).collect();
        assert!(twice.is_empty(), "at QoS 2, more than once: {twice:?}");
    }
    let mut reader = support::Client::connect(daemon.mqtt(), &support::Connect::id("reader"));
    reader.subscribe("state/#", 0);
    for _ in 0..PUBLISHERS {
        let retained = reader.next_publish();
        let publisher = &publishers[retained.topic["state/".len()..].parse::<usize>().unwrap()];
        // The last one under an odd or even number: order is kept at each quality of service.
        let newest = |qos| {
            let mine = publisher.acknowledged.iter().filter(|(q, n)| *q == qos && n % 5 == 0);
            mine.map(|(_, number)| *number).max()
        };
        let number: u64 = retained.text().rsplit(' ').next().unwrap().parse().unwrap();
        assert!(
            [newest(1), newest(2)].contains(&Some(number)),
            "{} is neither {:?} nor {:?}",
            retained.text(),
            newest(1),
            newest(2)
        );
    }
    println!(
        "{kills} kills in {:?}: {} publishes acknowledged, none lost, none at QoS 2 twice",
        started.elapsed(),
        all.len()
    );
}

/// What is retained is promised by the SUBACK: killed again and again amid the delivery, a session
/// gets each message, and those of QoS 2 once.
#[test]
fn retained_messages_that_were_promised_arrive_over_kills() {
    const TOPICS: u64 = 1000;
    let site = Site::new();
    let mut daemon = site.start();
    let mut publisher = support::Client::connect(daemon.mqtt(), &support::Connect::id("publisher"));
    for number in 0..TOPICS {
        let qos = 1 + (number % 2) as u8;
        let publish =
            support::Publish::new(&format!("state/{number}"), format!("0 {qos} {number}"));
        publisher.publish(&publish.qos(qos).retained());
    }
    let subscriber = Mutex::new(Subscriber::default());
    let (mut random, mut kills, mut wanted) = (Random(2027), 0, 0);
    while wanted < TOPICS {
        let address = daemon.mqtt();
        let (sender, news) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                subscriber.lock().unwrap().run(address, |it| {
                    let _ = sender.send(it.present.then_some(it.got.len() as u64));
                    false
                })
            });
            while news.recv_timeout(PATIENCE).expect("it is served").is_none_or(|got| got < wanted)
            {
            }
            daemon.kill();
        });
        daemon = site.start();
        kills += 1;
        wanted += random.below(TOPICS / 8);
    }
    let mut subscriber = subscriber.into_inner().unwrap();
    let all = |it: &Subscriber| it.got.len() as u64 == TOPICS && it.held.is_empty();
    subscriber.run(daemon.mqtt(), all).expect("all of them arrive");
    let twice: Vec<_> =
        subscriber.got.iter().filter(|((_, qos, _), n)| *qos == 2 && **n > 1).collect();
    assert!(twice.is_empty(), "at QoS 2, more than once: {twice:?}");
    println!("{kills} kills, {TOPICS} retained messages delivered, none at QoS 2 twice");
}
