//! QoS 0 from publishers that are faster than their subscribers.

use std::{sync::mpsc, thread, time::Duration};

use crate::support::*;

/// A queue this short would lose most of what is said, if nobody waited.
const QUEUE: usize = 256;
const MESSAGES: usize = 4_000;

fn site_with_short_queues() -> Site {
    let mut settings = broker::Settings { lanes: 2, ..broker::Settings::default() };
    settings.limits.queue_messages = QUEUE;
    site_with(settings)
}

/// Says all messages as fast as the socket takes them.
fn flood(mut wire: Wire, topic: &str, payload: &str) -> thread::JoinHandle<Wire> {
    let (topic, payload) = (topic.to_owned(), payload.to_owned());
    thread::spawn(move || {
        for n in 0..MESSAGES {
            wire.publish(Publish::new(&topic, format!("{n} {payload}")));
        }
        wire
    })
}

fn number(received: &Received) -> usize {
    received.text().split_once(' ').unwrap().0.parse().unwrap()
}

#[test]
fn many_publishers_fill_one_queue_and_nothing_is_lost() {
    let site = site_with_short_queues();
    let mut wire = site.subscriber(V4, "s", "t/+", 0);
    let floods: Vec<_> =
        ["t/0", "t/1", "t/2", "t/3"].map(|topic| flood(site.client(V5, topic), topic, "")).into();
    let mut next = [0; 4];
    for _ in 0..4 * MESSAGES {
        let received = wire.received();
        let publisher: usize = received.topic[2..].parse().unwrap();
        assert_eq!(number(&received), next[publisher], "in order");
        next[publisher] += 1;
    }
    floods.into_iter().for_each(|flood| flood.join().unwrap().leave());
    assert_eq!(site.broker.counters().dropped, 0);
}

/// The same where the messages take the way through the router.
#[test]
fn one_publisher_fills_many_queues_and_nothing_is_lost() {
    let site = site_with_short_queues();
    let mut wires: Vec<Wire> =
        (0..200).map(|n| site.subscriber(V4, &format!("s{n}"), "t", 0)).collect();
    let flood = flood(site.client(V5, "p"), "t", "");
    for wire in &mut wires {
        for n in 0..MESSAGES {
            assert_eq!(number(&wire.received()), n);
        }
    }
    flood.join().unwrap().leave();
    assert!(site.broker.counters().routed > 0, "the router was not used at all");
    assert_eq!(site.broker.counters().dropped, 0);
}

/// Were it waited for at each message, this would take minutes.
#[test]
fn who_reads_nothing_is_not_waited_for_again() {
    let mut settings = broker::Settings::default();
    settings.limits.queue_messages = 2_000;
    settings.limits.publish_hold = Duration::from_millis(500);
    let site = site_with(settings);
    let _slow = site.subscriber(V4, "slow", "t", 0);
    // More than all buffers of the kernel and the queue take.
    let flood = flood(site.client(V5, "p"), "t", &"x".repeat(10_000));
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        flood.join().unwrap().silent();
        done.send(())
    });
    is_done.recv_timeout(Duration::from_secs(40)).expect("it is waited for again and again");
    assert!(site.broker.counters().dropped > 0, "the slow one got everything");
    assert!(site.broker.client("slow").is_some_and(|client| client.connected));
}

/// What is promised, and the retained messages of a new subscription, do not wait for a stream of
/// QoS 0 to end, nor for room in a queue that it fills [MQTT-3.3.1-9].
#[test]
fn a_stream_at_qos_0_starves_nothing_else_of_its_session() {
    let mut settings = broker::Settings::default();
    settings.limits.queue_messages = 500;
    settings.limits.publish_hold = Duration::from_millis(100);
    let site = site_with(settings);
    site.publish(Publish::new("retained", "r").retained());
    let mut wire = site.subscriber(V5, "s", "stream", 0);
    wire.subscribe("promised", 1);
    let mut stream = site.client(V5, "p");
    let message = Publish::new("stream", vec![b'x'; 30_000]);
    // Until all buffers of the kernel and the queue are full.
    while site.broker.counters().dropped == 0 {
        stream.publish(message.clone());
        stream.silent();
    }
    site.publish(Publish::new("promised", "p").qos(1, 1));
    wire.send(&subscribe(V5, 1, &[], &[("retained", 0)]));
    let mut missing = vec!["promised", "retained"];
    for taken in 0.. {
        assert!(taken < 2_000, "{missing:?} wait for the stream to end");
        let packet = wire.packet();
        if packet[0] == 0x90 {
            continue;
        }
        let got = Received::parse(&packet, V5);
        missing.retain(|topic| *topic != got.topic);
        if missing.is_empty() {
            break;
        }
        // For each message that is taken two more come.
        stream.publish(message.clone());
        stream.publish(message.clone());
        stream.silent();
    }
    assert_eq!(site.broker.counters().slow_clients, 0);
}
