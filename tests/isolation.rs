//! Two devices on one topic, and everybody else who might listen: rules 24 and 25.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::json;
use support::{Client, Connect, Daemon, Device, Publish, Site, TOPIC, device::request, image};

/// Onlookers on both wildcards, at each QoS, in both versions.
fn onlookers(daemon: &Daemon) -> Vec<Client> {
    let mut onlookers = Vec::new();
    for (number, filter) in ["#", "tago/+/post", "tago/#", "+/data/post"].into_iter().enumerate() {
        for qos in 0..=2 {
            let id = format!("onlooker-{number}-{qos}");
            let connect = if qos == 1 { Connect::id(&id).v5() } else { Connect::id(&id) };
            let mut onlooker = Client::connect(daemon.mqtt(), &connect);
            assert!(onlooker.subscribe(filter, qos) <= 2, "{filter} is granted");
            onlookers.push(onlooker);
        }
    }
    onlookers
}

#[test]
fn each_device_gets_its_own_image_and_onlookers_get_none() {
    let site = Site::new();
    let (for_a, for_b) = (image(1, 20_000), image(2, 20_000));
    let daemon = site.start();
    let mut onlookers = onlookers(&daemon);
    let mut a = Device::connect(daemon.mqtt(), &Connect::id("a"));
    let mut b = Device::connect(daemon.mqtt(), &Connect::id("b"));
    site.drop_file("devices/a/image.bin", &for_a);
    site.drop_file("devices/b/image.bin", &for_b);
    let (for_a_manifest, for_b_manifest) = (a.manifest(), b.manifest());

    // Turn by turn, at every QoS, so that a block at the wrong device would be seen at once.
    let (mut got_a, mut got_b) = (Vec::new(), Vec::new());
    for index in 0..for_a_manifest.chunks {
        let ask = Publish::new(TOPIC, request(json!(index)).to_string());
        let ask = ask.qos(u8::try_from(index % 3).unwrap());
        a.client.publish(&ask);
        b.client.publish(&ask);
        got_b.extend(b.block(index));
        got_a.extend(a.block(index));
    }
    assert_eq!((for_a_manifest.size, for_b_manifest.size), (20_000, 20_000));
    assert!(got_a == for_a && got_b == for_b);
    a.client.send_publish(&Publish::new(TOPIC, request(json!("nonsense")).to_string()));
    a.error();
    a.client.expect_silence();
    b.client.expect_silence();

    // Order holds between one publisher and one subscriber, so the first thing that an onlooker
    // ever sees of a device tells that nothing went before it.
    a.client.publish(&Publish::new(TOPIC, "marker of a"));
    for onlooker in &mut onlookers {
        assert_eq!(onlooker.next_publish().text(), "marker of a");
    }
    b.client.publish(&Publish::new(TOPIC, "marker of b").qos(1));
    for onlooker in &mut onlookers {
        assert_eq!(onlooker.next_publish().text(), "marker of b");
        onlooker.expect_silence();
    }
}

#[test]
fn devices_do_not_hear_each_other_on_the_shared_topic() {
    let site = Site::new();
    let daemon = site.start();
    let mut onlooker = Client::connect(daemon.mqtt(), &Connect::id("onlooker"));
    onlooker.subscribe("tago/+/post", 1);
    let mut a = Device::connect(daemon.mqtt(), &Connect::id("a"));
    let mut b = Device::connect(daemon.mqtt(), &Connect::id("b"));
    let reading = json!({"variable": "temperature", "value": 21.5});
    for qos in 0..=2 {
        a.client.publish(&Publish::new(TOPIC, reading.to_string()).qos(qos));
        assert_eq!(onlooker.next_publish().json(), reading, "ordinary messages are for onlookers");
    }
    b.client.expect_silence();
    a.client.expect_silence();
    // Retained ordinary messages of others do not reach a downlink either.
    a.client.publish(&Publish::new(TOPIC, reading.to_string()).qos(1).retained());
    let mut c = Device::connect(daemon.mqtt(), &Connect::id("c"));
    c.client.expect_silence();
}

#[test]
fn shared_subscriptions_cannot_take_a_downlink() {
    let site = Site::new();
    let daemon = site.start();
    for connect in [Connect::id("old"), Connect::id("new").v5()] {
        let mut client = Client::connect(daemon.mqtt(), &connect);
        for filter in ["$share/g/tago/data/post", "$share/g/fuota/devices/old/down"] {
            assert!(client.subscribe(filter, 1) >= 0x80, "{filter} at {:?}", connect.version);
        }
        assert_eq!(client.subscribe("$share/g/plant/+/temperature", 1), 1, "others are allowed");
    }
}

#[test]
fn a_wildcard_beside_the_downlink_shows_nothing_twice() {
    // One client that is device and onlooker at once: its block comes once, on its downlink.
    let site = Site::new();
    let image = image(3, 3 * 4096);
    site.drop_file("devices/both/image.bin", &image);
    let daemon = site.start();
    let mut both = Client::connect(daemon.mqtt(), &Connect::id("both"));
    both.subscribe_all(&[("#", 2), ("tago/+/post", 1)]);
    let mut both = {
        assert_eq!(both.subscribe(TOPIC, 0), 0);
        Device { client: both }
    };
    both.expect_update(&image);
    both.client.expect_silence();
}

#[test]
fn a_client_that_never_subscribed_gets_its_answer_and_no_other_does() {
    // What the server has to say goes to the session that asked, whatever it subscribed to.
    let site = Site::new();
    let image = image(4, 2 * 4096);
    site.drop_file("all/image.bin", &image);
    let daemon = site.start();
    let mut asking = Client::connect(daemon.mqtt(), &Connect::id("asking"));
    let mut other = Device::connect(daemon.mqtt(), &Connect::id("other"));
    other.manifest();
    asking.publish(&Publish::new(TOPIC, request(json!(0)).to_string()));
    let answer = asking.next_publish();
    assert_eq!(answer.topic, TOPIC);
    other.client.expect_silence();
}

#[test]
fn services_write_to_a_devices_downlink_only_where_it_is_opened() {
    let mut site = Site::new();
    let down = "fuota/devices/pump-1/down";
    let command = json!({"variable": "reboot", "value": true}).to_string();
    {
        let daemon = site.start();
        let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
        let mut service = Client::connect(daemon.mqtt(), &Connect::id("service").v5());
        let code = service.publish(&Publish::new(down, command.as_str()).qos(1));
        assert_eq!(code, 0x87, "not authorized");
        let mut old_service = Client::connect(daemon.mqtt(), &Connect::id("service-3"));
        old_service.publish(&Publish::new(down, command.as_str()).qos(1));
        device.client.expect_silence();
        daemon.stop();
    }
    site.set("auth.open_downlink", "true");
    let daemon = site.start();
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    let mut other = Device::connect(daemon.mqtt(), &Connect::id("pump-2"));
    let mut service = Client::connect(daemon.mqtt(), &Connect::id("service").v5());
    for qos in 0..=2 {
        assert!(service.publish(&Publish::new(down, command.as_str()).qos(qos)) < 0x80);
        let heard = device.client.next_publish();
        assert_eq!((heard.topic.as_str(), heard.text()), (TOPIC, command.clone()));
    }
    other.client.expect_silence();
    // Firmware never comes from a client, opened or not.
    let forged = json!({"variable": "firmware_manifest", "value": "pending"}).to_string();
    assert!(service.publish(&Publish::new(down, forged).qos(1)) >= 0x80);
    device.client.expect_silence();
}
