//! What a session was promised beside its messages outlives the daemon that is killed: its place in
//! a shared subscription, and its will.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::{Client, Connect, Packet, Publish, Site, eventually};

const GROUP: &str = "$share/workers/jobs/#";

/// The next packet is this PUBLISH; it is not acknowledged.
fn unacknowledged(client: &mut Client, text: &str) {
    match client.next_packet() {
        Some(Packet::Publish(publish)) => assert_eq!(publish.text(), text),
        other => panic!("instead of {text}: {other:?}"),
    }
}

#[test]
fn what_a_member_has_goes_to_another_when_its_session_ends() {
    let site = Site::new();
    let daemon = site.start();
    let member = Connect::id("worker-1").v5().persistent();
    let mut first = Client::connect(daemon.mqtt(), &member);
    first.subscribe(GROUP, 1);
    let mut publisher = Client::connect(daemon.mqtt(), &Connect::id("publisher"));
    for job in ["1", "2"] {
        publisher.publish(&Publish::new("jobs/a", job).qos(1));
        unacknowledged(&mut first, job);
    }
    daemon.kill();

    let daemon = site.start();
    let mut second = Client::connect(daemon.mqtt(), &Connect::id("worker-2"));
    second.subscribe(GROUP, 1);
    let (mut first, present) = Client::connect_session(daemon.mqtt(), &member);
    assert!(present);
    assert_eq!(first.next_publish().text(), "1", "they are its own");
    unacknowledged(&mut first, "2");
    second.expect_silence();
    first.break_off();
    Client::connect(daemon.mqtt(), &Connect { clean: true, ..member }).disconnect();
    assert_eq!(second.next_publish().text(), "2");
    second.expect_silence();
}

#[test]
fn a_killed_daemon_publishes_wills_when_it_is_back() {
    let site = Site::new();
    let daemon = site.start();
    let will = |id: &str, delay: Option<u32>| {
        let mut will = Publish::new(&format!("state/{id}"), "gone").qos(1).retained();
        if let Some(seconds) = delay {
            will.properties = [&[0x18][..], &seconds.to_be_bytes()].concat();
        }
        Connect::id(id).v5().persistent().will(will)
    };
    let connects = [will("pump", None), will("valve", Some(3600)), will("gate", None)];
    let mut clients = connects.each_ref().map(|connect| Client::connect(daemon.mqtt(), connect));
    clients.iter_mut().for_each(Client::ping);
    let [mut pump, _valve, gate] = clients;
    gate.disconnect();
    // Behind what is in the log by then, which this one has to be before it is acknowledged.
    pump.subscribe("barrier", 1);
    pump.publish(&Publish::new("barrier", "x").qos(1));
    daemon.kill();

    for _ in 0..2 {
        let daemon = site.start();
        let retained = || daemon.admin().rows("retained");
        let row = eventually("the will is published", || retained().into_iter().next());
        assert_eq!(row["topic"], "state/pump");
        let mut reader = Client::connect(daemon.mqtt(), &Connect::id("reader"));
        reader.subscribe("state/#", 1);
        assert_eq!(reader.next_publish().topic, "state/pump");
        reader.expect_silence();
        daemon.kill();
    }
    // Its session ends, which does not wait for the delay.
    let daemon = site.start();
    let mut reader = Client::connect(daemon.mqtt(), &Connect::id("reader"));
    reader.subscribe("state/valve", 1);
    let again = Connect { will: None, clean: true, ..connects[1].clone() };
    Client::connect(daemon.mqtt(), &again).disconnect();
    assert_eq!(reader.next_publish().topic, "state/valve");
}
