//! What a start finds on a disk that was cut off, damaged or written by another version.

use crate::{
    durability::{first, killed},
    support::{disk::Disk, *},
};
use broker::{
    Server, Settings, StartError,
    journal::{Persistence, Storage as _, Sync},
};
use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

/// Why the broker does not start on this disk.
fn refused(disk: &Disk) -> StartError {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    match Server::start_on(Settings::default(), Vec::new(), Arc::new(disk.clone())) {
        Ok(_) => panic!("it started on {:?}", disk.names()),
        Err(error) => error,
    }
}

/// `persistence.sync = "always"`: what was acknowledged survives a power cut, and what was being
/// written then is cut off and kept aside.
#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged() {
    let disk = Disk::default();
    let site = site_on(careful(Settings::default()), &disk);
    let lasting = Connect::lasting(V5, "c");
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("t", 1);
    wire.vanish();
    for n in 0..20 {
        site.publish(Publish::new("t", n.to_string()).qos(1, 1));
    }
    site.publish(Publish::new("r", "retained").qos(1, 1).retained());
    for torn in [0, 1, 9, 30] {
        let disk = disk.after_power_cut(torn);
        let log = disk.names().pop().unwrap();
        disk.put(&log, [disk.bytes(&log), vec![0xa5; torn]].concat());
        let site = site_on(careful(Settings::default()), &disk);
        assert_eq!(disk.names().iter().any(|name| name.starts_with("torn-")), torn > 0);
        let mut wire = site.enter(&lasting, true);
        for n in 0..20 {
            assert_eq!(wire.received().text(), n.to_string());
        }
        site.publish(Publish::new("t", "goes on").qos(1, 1));
        assert_eq!(wire.received().text(), "goes on");
        let mut reader = site.subscriber(V4, "r", "r", 0);
        assert_eq!(reader.received().text(), "retained");
    }
}

/// A log that ends anywhere is read up to its last whole record.
#[test]
fn a_log_may_end_anywhere() {
    let (site, disk) = first();
    for n in 0..10 {
        site.publish(Publish::new("t", format!("<{n}>")).qos(1, 1).retained());
    }
    let whole = disk.bytes("log-00000001");
    let mut last = None;
    for len in (0..=whole.len()).rev().step_by(7) {
        let disk = Disk::default();
        disk.put("log-00000001", whole[..len].to_vec());
        let site = site_on(Settings::default(), &disk);
        let newest = site.broker.counters().retained_messages;
        assert!(last.is_none_or(|before| newest <= before), "at {len}");
        last = Some(newest);
        site.publish(Publish::new("u", "new").qos(1, 1).retained());
        let (site, _) = killed(&disk);
        let mut reader = site.subscriber(V4, "r", "u", 0);
        assert_eq!(reader.received().text(), "new", "after a cut at {len}");
    }
}

/// The log is replaced by a snapshot when it has grown, and the files stay few.
#[test]
fn snapshots_replace_the_log() {
    let (site, disk) = first();
    let lasting = Connect::lasting(V5, "c");
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("t", 2);
    site.publish(Publish::new("t", "sent").qos(2, 1));
    let id = wire.received().id;
    wire.vanish();
    site.publish(Publish::new("t", "waits").qos(1, 1));
    let payload = vec![b'x'; 500_000];
    let mut writer = site.client(V5, "w");
    // 16 MiB make a log full; this is three of them.
    for n in 0..100u16 {
        writer.publish(Publish::new("big", &payload).qos(1, n + 1).retained());
        writer.expect(&puback(n + 1));
    }
    assert!(disk.len() < 40_000_000, "{} bytes in {:?}", disk.len(), disk.names());
    drop(site);
    let (site, disk) = killed(&disk);
    assert!(disk.names().iter().any(|name| name.starts_with("snapshot-")), "{:?}", disk.names());
    let mut wire = site.enter(&lasting, true);
    wire.expect_publish(Publish::new("t", "sent").qos(2, id).dup());
    assert_eq!(wire.received().text(), "waits");
    let mut reader = site.subscriber(V4, "r", "big", 0);
    assert_eq!(reader.received().payload, payload);
    // It is the state before its log, and less than was promised without it.
    drop((reader, wire, site));
    let disk = disk.after_kill();
    let logs: Vec<_> = disk.names().into_iter().filter(|name| name.starts_with("log-")).collect();
    logs.iter().for_each(|log| disk.remove(log).unwrap());
    let error = refused(&disk).to_string();
    assert!(error.contains(&format!("{} is missing", logs[0])), "{error}");
}

/// A log with its last mark behind ten retained messages, and where the second to the ninth lie.
fn ten_messages(sync: Sync) -> (Vec<u8>, std::ops::Range<usize>) {
    let disk = Disk::default();
    let persistence = Persistence { sync, ..Persistence::default() };
    let settings = Settings { persistence: Some(persistence), ..Settings::default() };
    let site = site_on(settings, &disk);
    let mut places = Vec::new();
    for n in 0..10 {
        places.push(disk.bytes("log-00000001").len());
        let publish = Publish::new(&format!("t/{n}"), "promised".repeat(20)).qos(1, 1);
        site.publish(publish.retained());
    }
    drop(site);
    (disk.bytes("log-00000001"), places[1]..places[9])
}

/// A log without the mark that is written at a stop, as a power cut leaves it.
fn cut_off(sync: Sync) -> (Vec<u8>, std::ops::Range<usize>) {
    let (mut log, middle) = ten_messages(sync);
    log.truncate(log.len() - MARK);
    (log, middle)
}

/// The bytes of a mark in a log.
const MARK: usize = 8 + 17;

fn with_log(log: &[u8]) -> Disk {
    let disk = Disk::default();
    disk.put("log-00000001", log.to_vec());
    disk
}

/// A bit that was turned, or a block of zeros, in what had been synced long ago: the good records
/// behind it are not cut off.
#[test]
fn damage_in_what_was_synced_is_not_taken_for_a_power_cut() {
    let (log, middle) = ten_messages(Sync::Os);
    for at in middle.step_by(61).chain([12, 20, 36]) {
        for zeros in [false, true] {
            let mut log = log.clone();
            if zeros {
                log[at..at + 64].fill(0)
            } else {
                log[at] ^= 0x10
            }
            let disk = with_log(&log);
            let error = refused(&disk).to_string();
            assert!(error.contains("log-00000001 is damaged at byte"), "{error}");
            assert_eq!((disk.names().len(), disk.bytes("log-00000001")), (1, log));
        }
    }
    // With each group synced, the next one says so; a stop is not needed.
    let (mut log, middle) = cut_off(Sync::Always);
    log[middle.start + 30] ^= 1;
    let error = refused(&with_log(&log)).to_string();
    assert!(error.contains("is damaged at byte"), "{error}");
    // In the last mark nothing is lost.
    let (mut log, _) = ten_messages(Sync::Os);
    let end = log.len() - 1;
    log[end] ^= 1;
    let site = site_on(Settings::default(), &with_log(&log));
    assert_eq!(site.broker.counters().retained_messages, 10);
}

/// The pages of what was not synced are written in any order: the site comes up again, also where a
/// client has published the mark of another log.
#[test]
fn a_power_cut_may_leave_holes_in_what_was_not_synced() {
    let other = ten_messages(Sync::Os).0;
    let (mut log, middle) = cut_off(Sync::Never);
    log[middle.start..middle.start + 64].fill(0);
    for behind in [&[][..], &other[other.len() - MARK..]] {
        let disk = with_log(&[&log, behind].concat());
        let site = site_on(Settings::default(), &disk);
        assert_eq!(site.broker.counters().retained_messages, 1);
        let torn = disk.bytes("torn-log-00000001");
        assert_eq!(torn.len(), log.len() + behind.len() - middle.start, "it is kept");
        site.publish(Publish::new("t", "goes on").qos(1, 1).retained());
        let (site, _) = killed(&disk);
        assert_eq!(site.broker.counters().retained_messages, 2);
    }
}

/// What was synced while the broker ran is known a moment later, without a stop.
#[test]
fn a_quiet_log_says_how_much_of_it_was_synced() {
    let (site, disk) = first();
    site.publish(Publish::new("t", "promised").qos(1, 1).retained());
    let len = disk.bytes("log-00000001").len();
    eventually("the mark", || disk.bytes("log-00000001").len() == len + MARK);
    let disk = disk.after_kill();
    let mut log = disk.bytes("log-00000001");
    log[len - 1] ^= 1;
    disk.put("log-00000001", log);
    let error = refused(&disk).to_string();
    assert!(error.contains("is damaged at byte 37"), "{error}");
    drop(site);
}

#[test]
fn damage_that_no_power_cut_makes_is_not_passed_over() {
    let (site, disk) = first();
    site.publish(Publish::new("a", "1").qos(1, 1).retained());
    drop(site);
    let disk = disk.after_kill();
    let log = disk.bytes("log-00000001");

    let with = |name: &str, bytes: Vec<u8>| {
        let disk = disk.after_kill();
        disk.put(name, bytes);
        disk
    };
    let mut newer = log.clone();
    newer[11] = 4;
    for (disk, expected) in [
        (with("log-00000001", newer), "log-00000001 was written by a newer version (format 4"),
        (with("log-00000001", b"PK\x03\x04, a zip file".to_vec()), "log-00000001 is not a file"),
        (with("log-00000002", log.clone()), ""),
        (with("log-00000003", log.clone()), "log-00000002 is missing"),
        (with("snapshot-00000002", log[..log.len() - 1].to_vec()), "snapshot-00000002 is damaged"),
    ] {
        if expected.is_empty() {
            // A second file behind the first is how a log goes on.
            site_on(Settings::default(), &disk);
            let mut torn = disk.bytes("log-00000001");
            torn.pop();
            disk.put("log-00000001", torn);
            let error = refused(&disk).to_string();
            assert!(error.contains("log-00000001 is damaged at byte 76"), "{error}");
            continue;
        }
        let before: Vec<_> = disk.names().iter().map(|name| disk.bytes(name)).collect();
        let error = refused(&disk).to_string();
        assert!(error.contains(expected), "{error}");
        let after: Vec<_> = disk.names().iter().map(|name| disk.bytes(name)).collect();
        assert_eq!(before, after, "nothing is changed");
    }
}

/// A log of an older form is read, and what is written now goes into a file of its own, which a
/// program that knows the older form alone refuses.
#[test]
fn an_older_form_is_read_and_followed_by_a_new_one() {
    let (site, disk) = first();
    site.publish(Publish::new("t", "old").qos(1, 1).retained());
    drop(site);
    let disk = disk.after_kill();
    let mut old = disk.bytes("log-00000001");
    assert_eq!(old[11], 3, "the form that this program writes");
    old[11] = 1;
    // It ends in the middle of a record.
    disk.put("log-00000001", [&old[..], &[1, 2, 3]].concat());
    for payload in ["new", "newer"] {
        let site = site_on(Settings::default(), &disk);
        assert_eq!(disk.bytes("log-00000001"), old, "whole, and not written to");
        assert_eq!(disk.bytes("log-00000002")[11], 3);
        assert_eq!(site.broker.counters().retained_messages, 1);
        site.publish(Publish::new("t", payload).qos(1, 1).retained());
        let mut reader = site.subscriber(V4, "r", "t", 0);
        assert_eq!(reader.received().text(), payload);
    }
    let torn = disk.after_power_cut(0);
    let site = site_on(Settings::default(), &torn);
    assert_eq!(site.broker.counters().retained_messages, 1, "the old file is durable");
    assert!(!disk.names().iter().any(|name| name == "log-00000003"), "{:?}", disk.names());
}

/// The power fails at random moments, while publishers go on: whatever was acknowledged before is
/// there, and in its order.
#[test]
fn power_cuts_amid_traffic_take_nothing_that_was_acknowledged() {
    let disk = Disk::default();
    let site = site_on(careful(Settings::default()), &disk);
    let lasting = Connect::lasting(V5, "c");
    let mut wire = site.enter(&lasting, false);
    wire.subscribe("load/+", 2);
    wire.vanish();
    // The queue of a client that is away holds a thousand.
    const EACH: u16 = 300;
    let acknowledged = [(); 3].map(|()| AtomicU16::new(0));
    let (site, disk) = (&site, &disk);
    std::thread::scope(|scope| {
        for (me, acknowledged) in acknowledged.iter().enumerate() {
            scope.spawn(move || {
                let mut wire = site.client(V5, &format!("p{me}"));
                let topic = format!("load/{me}");
                for n in 1..=EACH {
                    let qos = 1 + (me % 2) as u8;
                    let publish = Publish::new(&topic, n.to_string()).qos(qos, n);
                    wire.publish(publish.clone());
                    wire.expect(&if qos == 1 { puback(n) } else { pubrec(n) });
                    if qos == 2 {
                        wire.send(&pubrel(n));
                        wire.expect(&pubcomp(n));
                    }
                    acknowledged.store(n, Ordering::Release);
                }
            });
        }
        let read = || [0, 1, 2].map(|me| acknowledged[me].load(Ordering::Acquire));
        let mut cuts = 0usize;
        loop {
            let before = read();
            // The bytes that reach the disk beyond the last sync differ each time.
            let cut = disk.after_power_cut(cuts * 37 % 500);
            let site = site_on(careful(Settings::default()), &cut);
            let waiting = site.broker.client("c").expect("the session").queued_messages;
            let promised: usize = before.iter().map(|n| usize::from(*n)).sum();
            assert!(waiting >= promised, "cut {cuts}: {waiting} of {before:?} are left");
            cuts += 1;
            if before == [EACH; 3] {
                let mut wire = site.enter(&lasting, true);
                let mut next = [1u16; 3];
                for _ in 0..3 * EACH {
                    let got = wire.received();
                    let me: usize = got.topic["load/".len()..].parse().unwrap();
                    assert_eq!(got.text(), next[me].to_string(), "in the order of {}", got.topic);
                    next[me] += 1;
                    // Refused, which ends the exchange at once.
                    let ack = if got.first >> 1 & 3 == 1 { puback } else { pubrec };
                    wire.send(&with_code(ack(got.id), 0x80));
                }
                break;
            }
        }
        assert!(cuts > 3, "the traffic was over before the power failed");
    });
}
