//! What becomes of the files of the log when the disk fails.

use crate::{
    durability::killed,
    support::{
        disk::{Disk, Sync},
        *,
    },
};
use broker::{Persistence, Settings};

/// Makes a log so large that it is followed by another file.
fn fill_log(site: &Site) {
    let payload = vec![b'x'; 500_000];
    let mut writer = site.client(V5, "w");
    for n in 1..=35 {
        writer.publish(Publish::new("big", &payload).qos(1, n).retained());
        writer.expect(&puback(n));
    }
}

/// A broker whose log is synced by nobody but the writer, at the end of each file.
fn synced_by_file(disk: &Disk) -> Site {
    let persistence = Persistence { sync: broker::journal::Sync::Never, ..Persistence::default() };
    site_on(Settings { persistence: Some(persistence), ..Settings::default() }, disk)
}

/// A file that could not be begun whole is no successor of the one that is still written: that may
/// end in the middle of a record.
#[test]
fn a_log_that_could_not_be_followed_may_end_anywhere() {
    let disk = Disk::default();
    let site = synced_by_file(&disk);
    disk.fail_once(Sync::Names);
    fill_log(&site);
    eventually("a new file was begun in vain", || disk.has_failed());
    for n in ["kept", "torn"] {
        site.publish(Publish::new(n, n).qos(1, 1).retained());
    }
    let disk = disk.after_kill();
    assert_eq!(disk.names(), ["log-00000001"]);
    // Where it could not even be removed, or that was not durable.
    for header in [None, Some(&b""[..]), Some(&disk.bytes("log-00000001")[..12])] {
        let disk = disk.after_kill();
        if let Some(header) = header {
            disk.put("log-00000002", header.to_vec());
        }
        let mut log = disk.bytes("log-00000001");
        log.pop();
        disk.put("log-00000001", log);
        for start in 0..2 {
            let site = site_on(Settings::default(), &disk);
            assert_eq!(site.broker.counters().retained_messages, 2 + start, "{header:?}");
            site.publish(Publish::new(&format!("goes on {start}"), "x").qos(1, 1).retained());
        }
    }
}

/// The system may have thrown away what it could not write.
#[test]
fn a_log_that_could_not_be_synced_is_replaced() {
    let disk = Disk::default();
    let site = synced_by_file(&disk);
    disk.fail_once(Sync::File);
    fill_log(&site);
    site.publish(Publish::new("last", "x").qos(1, 1).retained());
    let replaced = || disk.names() == ["log-00000002", "snapshot-00000002"];
    eventually("all of it is written anew", replaced);
    let (site, _) = killed(&disk);
    assert_eq!(site.broker.counters().retained_messages, 2);
}

/// What a client heard is not so must not be so after the next start: else its next message under
/// the packet id would be taken for a copy.
#[test]
fn what_could_not_be_synced_and_was_refused_is_not_in_the_log() {
    let disk = Disk::default();
    let site = site_on(careful(Settings::default()), &disk);
    let (reader, writer) = (Connect::lasting(V5, "reader"), Connect::lasting(V5, "writer"));
    let mut wire = site.enter(&reader, false);
    wire.subscribe("t", 2);
    wire.vanish();
    let mut wire = site.enter(&writer, false);
    disk.set_broken(true);
    wire.publish(Publish::new("t", "refused").qos(2, 7));
    let (got, code) = (wire.packet(), with_code(pubrec(7), 0x97));
    assert_eq!((got[0], &got[2..5]), (code[0], &code[2..5]), "{got:02x?}");
    // No snapshot mends it before the end of the process.
    let (site, _) = killed(&disk);
    let mut wire = site.enter(&writer, true);
    wire.publish(Publish::new("t", "another").qos(2, 7));
    wire.expect(&pubrec(7));
    let mut wire = site.enter(&reader, true);
    assert_eq!(wire.received().text(), "another");
}

/// At its end there is no other write that would show it.
#[test]
fn a_log_that_could_not_be_synced_at_its_end_is_written_anew() {
    let disk = Disk::default();
    let site = synced_by_file(&disk);
    site.publish(Publish::new("last", "x").qos(1, 1).retained());
    disk.fail_once(Sync::File);
    drop(site);
    assert!(disk.has_failed());
    let site = site_on(Settings::default(), &disk.after_power_cut(0));
    assert_eq!(site.broker.counters().retained_messages, 1);
}
