//! What any MQTT broker must do, seen by a foreign client library and by raw frames.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use support::{Client, Connect, Packet, Publish, Site, Version, eventually, wire};
use tokio::{sync::mpsc, time::timeout};

/// A client of either version of rumqttc: what it published and what it heard.
struct Peer {
    client: Either,
    heard: mpsc::UnboundedReceiver<Heard>,
}

enum Either {
    V4(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Connected { session_present: bool },
    Subscribed,
    Message { topic: String, payload: Vec<u8>, qos: u8, retain: bool },
    Delivered,
    Ended,
}

impl Peer {
    async fn connect(site: &support::Daemon, id: &str, version: Version) -> Self {
        let (host, port) = (site.mqtt().ip().to_string(), site.mqtt().port());
        let (sender, heard) = mpsc::unbounded_channel();
        let client = match version {
            Version::V4 => {
                let mut options = rumqttc::MqttOptions::new(id, host, port);
                options.set_keep_alive(Duration::from_secs(60));
                let (client, events) = rumqttc::AsyncClient::new(options, 100);
                tokio::spawn(follow_v4(events, sender));
                Either::V4(client)
            }
            Version::V5 => {
                let mut options = rumqttc::v5::MqttOptions::new(id, host, port);
                options.set_keep_alive(Duration::from_secs(60));
                let (client, events) = rumqttc::v5::AsyncClient::new(options, 100);
                tokio::spawn(follow_v5(events, sender));
                Either::V5(client)
            }
        };
        let mut peer = Peer { client, heard };
        assert_eq!(peer.next().await, Heard::Connected { session_present: false });
        peer
    }

    async fn next(&mut self) -> Heard {
        timeout(support::PATIENCE, self.heard.recv()).await.expect("in time").expect("an event")
    }

    async fn subscribe(&mut self, filter: &str, qos: u8) {
        match &self.client {
            Either::V4(client) => client.subscribe(filter, qos_v4(qos)).await.expect("queued"),
            Either::V5(client) => client.subscribe(filter, qos_v5(qos)).await.expect("queued"),
        }
        assert_eq!(self.next().await, Heard::Subscribed);
    }

    async fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool) {
        let payload = payload.to_vec();
        match &self.client {
            Either::V4(client) => {
                client.publish(topic, qos_v4(qos), retain, payload).await.expect("queued");
            }
            Either::V5(client) => {
                client.publish(topic, qos_v5(qos), retain, payload).await.expect("queued");
            }
        }
        if qos > 0 {
            assert_eq!(self.next().await, Heard::Delivered, "acknowledged at QoS {qos}");
        }
    }
}

fn qos_v4(qos: u8) -> rumqttc::QoS {
    rumqttc::qos(qos).expect("0 to 2")
}

fn qos_v5(qos: u8) -> rumqttc::v5::mqttbytes::QoS {
    rumqttc::v5::mqttbytes::qos(qos).expect("0 to 2")
}

async fn follow_v4(mut events: rumqttc::EventLoop, sender: mpsc::UnboundedSender<Heard>) {
    use rumqttc::{Event, Packet as P};
    loop {
        let heard = match events.poll().await {
            Ok(Event::Incoming(P::ConnAck(ack))) => {
                Heard::Connected { session_present: ack.session_present }
            }
            Ok(Event::Incoming(P::SubAck(_))) => Heard::Subscribed,
            Ok(Event::Incoming(P::Publish(publish))) => Heard::Message {
                topic: publish.topic,
                payload: publish.payload.to_vec(),
                qos: publish.qos as u8,
                retain: publish.retain,
            },
            Ok(Event::Incoming(P::PubAck(_) | P::PubComp(_))) => Heard::Delivered,
            Ok(_) => continue,
            Err(_) => {
                let _ = sender.send(Heard::Ended);
                return;
            }
        };
        if sender.send(heard).is_err() {
            return;
        }
    }
}

async fn follow_v5(mut events: rumqttc::v5::EventLoop, sender: mpsc::UnboundedSender<Heard>) {
    use rumqttc::v5::{Event, mqttbytes::v5::Packet as P};
    loop {
        let heard = match events.poll().await {
            Ok(Event::Incoming(P::ConnAck(ack))) => {
                Heard::Connected { session_present: ack.session_present }
            }
            Ok(Event::Incoming(P::SubAck(_))) => Heard::Subscribed,
            Ok(Event::Incoming(P::Publish(publish))) => Heard::Message {
                topic: String::from_utf8(publish.topic.to_vec()).expect("UTF-8"),
                payload: publish.payload.to_vec(),
                qos: publish.qos as u8,
                retain: publish.retain,
            },
            Ok(Event::Incoming(P::PubAck(_) | P::PubComp(_))) => Heard::Delivered,
            Ok(_) => continue,
            Err(_) => {
                let _ = sender.send(Heard::Ended);
                return;
            }
        };
        if sender.send(heard).is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_cross_between_versions_at_every_qos() {
    let site = Site::new();
    let daemon = site.start();
    for (number, (from, to)) in [
        (Version::V4, Version::V4),
        (Version::V4, Version::V5),
        (Version::V5, Version::V4),
        (Version::V5, Version::V5),
    ]
    .into_iter()
    .enumerate()
    {
        let mut publisher = Peer::connect(&daemon, &format!("from-{number}"), from).await;
        let mut subscriber = Peer::connect(&daemon, &format!("to-{number}"), to).await;
        for granted in 0..=2 {
            let filter = format!("plant/{number}/{granted}/+");
            subscriber.subscribe(&filter, granted).await;
            for sent in 0..=2 {
                let topic = format!("plant/{number}/{granted}/é{sent}");
                let payload = format!("{from:?} {to:?} {sent}").into_bytes();
                publisher.publish(&topic, &payload, sent, false).await;
                let qos = sent.min(granted);
                let expected = Heard::Message { topic, payload, qos, retain: false };
                assert_eq!(subscriber.next().await, expected, "the lower of both QoS");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages_wait_for_subscribers() {
    let site = Site::new();
    let daemon = site.start();
    for version in [Version::V4, Version::V5] {
        let mut publisher =
            Peer::connect(&daemon, &format!("publisher-{version:?}"), version).await;
        let topic = format!("state/{version:?}");
        publisher.publish(&topic, b"old", 1, true).await;
        publisher.publish(&topic, b"on", 1, true).await;
        let mut late = Peer::connect(&daemon, &format!("late-{version:?}"), version).await;
        late.subscribe("state/#", 1).await;
        let message = |payload: &[u8], retain| Heard::Message {
            topic: topic.clone(),
            payload: payload.to_vec(),
            qos: 1,
            retain,
        };
        assert_eq!(late.next().await, message(b"on", true), "the newest, marked as retained");
        publisher.publish(&topic, b"off", 1, true).await;
        assert_eq!(late.next().await, message(b"off", false), "a live one is not marked");
        // Nothing deletes it but an empty retained message.
        publisher.publish(&topic, b"", 1, false).await;
        assert_eq!(late.next().await, message(b"", false));
        let mut later = Peer::connect(&daemon, &format!("later-{version:?}"), version).await;
        later.subscribe(&topic, 1).await;
        assert_eq!(later.next().await, message(b"off", true));
        publisher.publish(&topic, b"", 1, true).await;
        let mut last = Client::connect(daemon.mqtt(), &Connect::id("last"));
        last.subscribe(&topic, 1);
        last.expect_silence();
    }
}

#[test]
fn a_will_is_published_when_a_connection_breaks_and_not_after_disconnect() {
    let site = Site::new();
    let daemon = site.start();
    let mut watcher = Client::connect(daemon.mqtt(), &Connect::id("watcher"));
    watcher.subscribe("wills/#", 2);
    for version in [Version::V4, Version::V5] {
        for qos in 0..=2 {
            let topic = format!("wills/{version:?}/{qos}");
            let mut will = Publish::new(&topic, "gone").qos(qos);
            will.retain = qos == 2;
            let mut connect = Connect::id("dying").will(will);
            connect.version = version;
            Client::connect(daemon.mqtt(), &connect).disconnect();
            watcher.expect_silence();
            Client::connect(daemon.mqtt(), &connect).break_off();
            let heard = watcher.next_publish();
            assert_eq!((heard.text().as_str(), heard.qos), ("gone", qos));
            assert_eq!(heard.topic, topic);
        }
    }
    let mut late = Client::connect(daemon.mqtt(), &Connect::id("late"));
    late.subscribe("wills/#", 0);
    assert!(late.next_publish().retain);
}

#[test]
fn a_second_connection_takes_the_session_over() {
    let site = Site::new();
    let daemon = site.start();
    for version in [Version::V4, Version::V5] {
        let mut connect = Connect::id("twin");
        connect.version = version;
        let first = Client::connect(daemon.mqtt(), &connect);
        let mut second = Client::connect(daemon.mqtt(), &connect);
        let code = first.expect_closed();
        if version == Version::V5 {
            assert_eq!(code, Some(0x8E), "session taken over");
        }
        second.ping();
        second.disconnect();
    }
}

#[test]
fn a_session_waits_for_its_client() {
    let site = Site::new();
    let daemon = site.start();
    for version in [Version::V4, Version::V5] {
        let id = format!("sleeper-{version:?}");
        let mut connect = Connect::id(&id).persistent();
        connect.version = version;
        let (mut sleeper, present) = Client::connect_session(daemon.mqtt(), &connect);
        assert!(!present);
        sleeper.subscribe("orders/#", 2);
        sleeper.disconnect();
        let mut sender = Client::connect(daemon.mqtt(), &Connect::id("sender"));
        for number in 0..100_u8 {
            sender.publish(&Publish::new("orders/1", [number]).qos(1 + number % 2));
        }
        let (mut sleeper, present) = Client::connect_session(daemon.mqtt(), &connect);
        assert!(present, "{version:?}");
        for number in 0..100_u8 {
            let heard = sleeper.next_publish();
            assert_eq!((heard.payload[0], heard.qos), (number, 1 + number % 2), "in order");
        }
        sleeper.expect_silence();
        sleeper.disconnect();
        // A clean start forgets it.
        connect.clean = true;
        let (mut sleeper, present) = Client::connect_session(daemon.mqtt(), &connect);
        assert!(!present);
        sender.publish(&Publish::new("orders/1", "late").qos(1));
        sleeper.expect_silence();
    }
}

#[test]
fn what_was_not_acknowledged_is_sent_again_on_the_next_connection() {
    let site = Site::new();
    let daemon = site.start();
    let connect = Connect::id("forgetful").persistent();
    let mut client = Client::connect(daemon.mqtt(), &connect);
    client.subscribe("orders/#", 1);
    let mut sender = Client::connect(daemon.mqtt(), &Connect::id("sender"));
    sender.publish(&Publish::new("orders/1", "one").qos(1));
    // Read without an acknowledgement.
    let first = match client.next_packet() {
        Some(Packet::Publish(publish)) => publish,
        other => panic!("expected a PUBLISH, got {other:?}"),
    };
    assert!(!first.dup);
    client.break_off();
    let (mut client, present) = Client::connect_session(daemon.mqtt(), &connect);
    assert!(present);
    let again = client.next_publish();
    assert_eq!((again.payload, again.id, again.dup), (first.payload, first.id, true));
    client.expect_silence();
}

#[test]
fn qos_2_arrives_exactly_once() {
    let site = Site::new();
    let daemon = site.start();
    let mut subscriber = Client::connect(daemon.mqtt(), &Connect::id("subscriber"));
    subscriber.subscribe("orders/#", 2);
    let connect = Connect::id("sender").persistent();
    let mut sender = Client::connect(daemon.mqtt(), &connect);
    let mut publish = Publish::new("orders/1", "one").qos(2);
    publish.id = 9;
    sender.send_publish(&publish);
    assert_eq!(sender.next_packet(), Some(Packet::PubRec { id: 9, code: 0 }));
    // The PUBREC is lost with the connection, so the sender tries again on the next one.
    sender.break_off();
    let (mut sender, present) = Client::connect_session(daemon.mqtt(), &connect);
    assert!(present);
    publish.dup = true;
    sender.send_publish(&publish);
    assert_eq!(sender.next_packet(), Some(Packet::PubRec { id: 9, code: 0 }));
    sender.send_bytes(&wire::frame(0x62, &[0, 9]));
    assert_eq!(sender.next_packet(), Some(Packet::PubComp { id: 9 }));
    // A PUBREL that arrives twice is answered twice.
    sender.send_bytes(&wire::frame(0x62, &[0, 9]));
    assert_eq!(sender.next_packet(), Some(Packet::PubComp { id: 9 }));
    // The id is free again: the same number is another message now.
    publish.dup = false;
    publish.payload = b"two".to_vec();
    sender.publish(&publish);
    assert_eq!(subscriber.next_publish().text(), "one");
    assert_eq!(subscriber.next_publish().text(), "two");
    subscriber.expect_silence();
}

#[test]
fn subscriptions_end_with_unsubscribe() {
    let site = Site::new();
    let daemon = site.start();
    let mut client = Client::connect(daemon.mqtt(), &Connect::id("client"));
    assert_eq!(client.subscribe_all(&[("a/+", 1), ("b/#", 2), ("c", 0)]), [1, 2, 0]);
    client.unsubscribe("a/+");
    client.unsubscribe("never/there");
    let mut sender = Client::connect(daemon.mqtt(), &Connect::id("sender"));
    for topic in ["a/1", "b/1", "c"] {
        sender.publish(&Publish::new(topic, topic).qos(1));
    }
    // Order is promised per topic and QoS only.
    let mut heard = [client.next_publish().text(), client.next_publish().text()];
    heard.sort();
    assert_eq!(heard, ["b/1", "c"]);
    client.expect_silence();
}

#[test]
fn order_holds_under_load_at_every_qos() {
    let site = Site::new();
    let daemon = site.start();
    for qos in 0..=2 {
        let mut subscriber = Client::connect(daemon.mqtt(), &Connect::id("subscriber"));
        subscriber.subscribe("load/#", qos);
        let address = daemon.mqtt();
        let sender = std::thread::spawn(move || {
            let mut sender = Client::connect(address, &Connect::id("sender"));
            for number in 0..500_u32 {
                sender.publish(&Publish::new("load/1", number.to_be_bytes()).qos(qos));
            }
        });
        for number in 0..500_u32 {
            assert_eq!(subscriber.next_publish().payload, number.to_be_bytes(), "QoS {qos}");
        }
        sender.join().expect("sent");
    }
}

#[test]
fn a_topic_that_is_not_ascii_harms_nobody() {
    // Row 1 of what one client can do to the stock router.
    let site = Site::new();
    let daemon = site.start();
    let mut subscriber = Client::connect(daemon.mqtt(), &Connect::id("subscriber"));
    subscriber.subscribe_all(&[("é/#", 1), ("plain/#", 1)]);
    let mut sender = Client::connect(daemon.mqtt(), &Connect::id("sender"));
    for qos in 0..=2 {
        sender.publish(&Publish::new("é/x", "accent").qos(qos).retained());
        assert_eq!(subscriber.next_publish().text(), "accent");
        sender.publish(&Publish::new("plain/x", "plain").qos(qos));
        assert_eq!(subscriber.next_publish().text(), "plain");
    }
}

#[test]
fn a_client_that_breaks_the_protocol_ends_alone() {
    let site = Site::new();
    let daemon = site.start();
    let mut bystander = Client::connect(daemon.mqtt(), &Connect::id("bystander"));
    bystander.subscribe("plant/#", 1);
    let hostile: [&[u8]; 7] = [
        &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],    // no length ends here
        &[0x30, 5, 0, 9, b'a', b'b', b'c'],       // a topic longer than its packet
        &[0x20, 2, 0, 0],                         // a CONNACK from a client
        &[0x90, 3, 0, 1, 0],                      // a SUBACK from a client
        &[0xB0, 2, 0, 1],                         // an UNSUBACK from a client
        &[0x36, 7, 0, 1, b'a', 0, 1, b'x', b'y'], // QoS 3
        &[0x82, 5, 0, 0, 0, 1, b'a'],             // packet id 0
    ];
    for version in [Version::V4, Version::V5] {
        for bytes in hostile {
            let mut connect = Connect::id("hostile");
            connect.version = version;
            let mut client = Client::connect(daemon.mqtt(), &connect);
            client.send_bytes(bytes);
            client.expect_closed();
            bystander.publish(&Publish::new("plant/x", "alive").qos(1));
            assert_eq!(bystander.next_publish().text(), "alive", "{version:?} after {bytes:x?}");
        }
    }
    eventually("only the bystander is left", || {
        let clients = daemon.admin().rows("clients");
        (clients.len() == 1).then_some(())
    });
}

#[test]
fn a_shared_subscription_gives_each_message_to_one_member() {
    let site = Site::new();
    let daemon = site.start();
    let mut members: Vec<Client> = ["old", "new"]
        .map(|id| if id == "new" { Connect::id(id).v5() } else { Connect::id(id) })
        .map(|connect| Client::connect(daemon.mqtt(), &connect))
        .into();
    for member in &mut members {
        assert_eq!(member.subscribe("$share/workers/jobs/+", 1), 1);
    }
    // Another group with the same filter has its own copy: row 7 of the stock router's faults.
    let mut other = Client::connect(daemon.mqtt(), &Connect::id("other"));
    other.subscribe("$share/audit/jobs/+", 1);
    let mut sender = Client::connect(daemon.mqtt(), &Connect::id("sender"));
    for number in 0..40_u8 {
        sender.publish(&Publish::new("jobs/1", [number]).qos(1));
    }
    for number in 0..40_u8 {
        assert_eq!(other.next_publish().payload, [number]);
    }
    let mut done: Vec<u8> = members.iter_mut().flat_map(drain).collect();
    done.sort_unstable();
    assert_eq!(done, (0..40).collect::<Vec<u8>>(), "each job once");
}

/// First payload bytes of all that has arrived. QoS 1 is acknowledged to the publisher only
/// after it was queued here, and a queue is written before a PINGRESP that is asked for later.
fn drain(client: &mut Client) -> Vec<u8> {
    let mut heard = Vec::new();
    while let Some(publish) = client.next_publish_before_ping() {
        heard.push(publish.payload[0]);
    }
    heard
}

#[test]
fn properties_of_mqtt_5_reach_those_who_can_read_them() {
    let site = Site::new();
    let daemon = site.start();
    let mut new = Client::connect(daemon.mqtt(), &Connect::id("new").v5());
    let mut old = Client::connect(daemon.mqtt(), &Connect::id("old"));
    new.subscribe("plant/#", 1);
    old.subscribe("plant/#", 1);
    let mut sender = Client::connect(daemon.mqtt(), &Connect::id("sender").v5());
    let mut publish = Publish::new("plant/x", "hot").qos(1);
    // A user property `unit` = `K`, and content type `text/plain`.
    publish.properties = b"\x03\x00\x0atext/plain\x26\x00\x04unit\x00\x01K".to_vec();
    for qos in [1, 0] {
        sender.publish(&publish.clone().qos(qos));
        let heard = new.next_publish();
        for part in [&b"text/plain"[..], b"unit"] {
            assert!(heard.properties.windows(part.len()).any(|window| window == part), "{heard:?}");
        }
        assert_eq!(old.next_publish().text(), "hot", "row 4: no property harms an old client");
    }
}
