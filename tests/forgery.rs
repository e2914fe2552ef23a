//! What only the server may say, said by clients: rule 24.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::{Value, json};
use support::{Client, Connect, Device, Publish, Site, TOPIC, eventually, image};

/// Everything that only the server says, alone and hidden.
fn forgeries() -> Vec<String> {
    let alone = [
        json!({"variable": "firmware_manifest", "value": "pending", "metadata": {
            "total_size": 4, "total_chunks": 1, "chunk_size": 4096, "version": "6.6.6"}}),
        json!({"variable": "firmware_block", "value": 0, "metadata": {"data": "ZXZpbA==", "size": 4}}),
        json!({"variable": "fuota_error", "value": "go away"}),
        json!({"variable": "firmware_validation", "value": "all well", "metadata": {"type": "success"}}),
    ];
    let mut forgeries = Vec::new();
    for variable in alone {
        forgeries.push(variable.to_string());
        let reading = json!({"variable": "temperature", "value": 21.5});
        forgeries.push(Value::Array(vec![reading, variable]).to_string());
    }
    // The same name in other spellings of JSON.
    forgeries.push(r#"{"variable":"firmware\u005fblock","value":0}"#.into());
    forgeries.push(r#"{"variable":"temperature","value":0,"variable":"firmware_block"}"#.into());
    forgeries.push(r#"{"variable":"firmware_block","value":0,"variable":"temperature"}"#.into());
    // What JSON is only to parsers that are less strict.
    forgeries.push(r#"{"variable":"firmware_block","value":0}x"#.into());
    forgeries.push(r#"{"\ud800":1,"variable":"firmware\u005fblock","value":0}"#.into());
    forgeries.push(r#"[{"variable":"temperature"},{'variable':'firmware_block'}]"#.into());
    forgeries.push("{/**/\"variable\":\"firmware_manifest\"}".into());
    forgeries.push(r#"{"Variable":"firmware_block","value":0}"#.into());
    forgeries.push("\n\t [ {\"value\" : 0 , \"variable\" : \"firmware_block\" } ]".into());
    forgeries
}

#[test]
fn forged_messages_reach_nobody() {
    let site = Site::new();
    let image = image(1, 2 * 4096);
    site.drop_file("devices/victim/image.bin", &image);
    let daemon = site.start();
    let mut victim = Device::connect(daemon.mqtt(), &Connect::id("victim"));
    let manifest = victim.manifest();
    let mut onlooker = Client::connect(daemon.mqtt(), &Connect::id("onlooker"));
    onlooker.subscribe("#", 1);
    let mut forgers = [
        Client::connect(daemon.mqtt(), &Connect::id("forger-3")),
        Client::connect(daemon.mqtt(), &Connect::id("forger-5").v5()),
    ];
    for forgery in forgeries() {
        for (five, forger) in forgers.iter_mut().enumerate() {
            for qos in 0..=2 {
                for retain in [false, true] {
                    let mut publish = Publish::new(TOPIC, forgery.as_str()).qos(qos);
                    publish.retain = retain;
                    // Acknowledged whatever the version; MQTT 5 says that it was refused.
                    let code = forger.publish(&publish);
                    if five == 1 && qos > 0 {
                        assert!(code >= 0x80, "{code:#04x} for {forgery}");
                    }
                }
            }
        }
        victim.client.expect_silence();
    }
    for forger in &mut forgers {
        forger.publish(&Publish::new(TOPIC, "marker"));
        assert_eq!(onlooker.next_publish().text(), "marker", "no forgery went before it");
    }
    // Nothing was retained.
    for filter in ["#", "tago/+/post"] {
        let mut late = Client::connect(daemon.mqtt(), &Connect::id("late"));
        late.subscribe(filter, 1);
        late.expect_silence();
    }
    // And the victim's own update goes on.
    let (_, bytes) = victim.download(manifest);
    assert!(bytes == image);
}

#[test]
fn a_forged_will_is_never_published() {
    let site = Site::new();
    let daemon = site.start();
    let mut victim = Device::connect(daemon.mqtt(), &Connect::id("victim"));
    let mut onlooker = Client::connect(daemon.mqtt(), &Connect::id("onlooker"));
    onlooker.subscribe("#", 1);
    for (number, forgery) in forgeries().into_iter().enumerate() {
        let mut will = Publish::new(TOPIC, forgery).qos(u8::try_from(number % 3).unwrap());
        will.retain = number % 2 == 0;
        let id = format!("forger-{number}");
        let connect = Connect::id(&id).will(will);
        let connect = if number % 2 == 0 { connect.v5() } else { connect };
        // Refusing the CONNECT is as good as dropping the will.
        if let Ok((forger, _)) = Client::try_connect(daemon.mqtt(), &connect) {
            forger.break_off();
        }
        let admin = daemon.admin();
        eventually("the broken connection is noticed", || {
            let client = admin.request("GET", &format!("/api/v1/clients/{id}"), None);
            (client.status == 404 || client.json()["connected"] == false).then_some(())
        });
    }
    let mut speaker = Client::connect(daemon.mqtt(), &Connect::id("speaker"));
    speaker.publish(&Publish::new(TOPIC, "marker"));
    assert_eq!(onlooker.next_publish().text(), "marker");
    victim.client.expect_silence();
    let mut late = Client::connect(daemon.mqtt(), &Connect::id("late"));
    late.subscribe("#", 1);
    late.expect_silence();
}

#[test]
fn a_retained_request_is_answered_once_and_never_stored() {
    let site = Site::new();
    let image = image(1, 2 * 4096);
    site.drop_file("devices/pump/image.bin", &image);
    let daemon = site.start();
    let mut onlooker = Client::connect(daemon.mqtt(), &Connect::id("onlooker"));
    onlooker.subscribe("#", 1);
    let mut pump = Device::connect(daemon.mqtt(), &Connect::id("pump"));
    pump.manifest();
    for qos in 0..=2 {
        let request = json!({"variable": "firmware_request", "value": 1, "unit": "index"});
        let mut publish = Publish::new(TOPIC, request.to_string()).qos(qos);
        publish.retain = true;
        pump.client.publish(&publish);
        assert!(pump.block(1) == image[4096..]);
        pump.client.expect_silence();
    }
    onlooker.expect_silence();
    for filter in ["#", "tago/+/post"] {
        let mut late = Client::connect(daemon.mqtt(), &Connect::id("late"));
        late.subscribe(filter, 1);
        late.expect_silence();
    }
}

#[test]
fn a_will_where_its_client_may_not_publish_is_dropped() {
    let site = Site::new();
    site.drop_file("devices/victim/image.bin", &image(1, 4096));
    let daemon = site.start();
    let mut victim = Device::connect(daemon.mqtt(), &Connect::id("victim"));
    victim.manifest();
    let mut onlooker = Client::connect(daemon.mqtt(), &Connect::id("onlooker"));
    onlooker.subscribe_all(&[("#", 1), ("fuota/#", 1)]);
    let status = || daemon.admin().get("/api/v1/status")["broker"].clone();
    let request = json!({"variable": "firmware_request", "value": 0}).to_string();
    for (topic, payload, counter) in [
        ("fuota/devices/victim/down", "{}", "refused"),
        ("$SYS/broker/uptime", "now", "refused"),
        (TOPIC, request.as_str(), "publishes_consumed"),
    ] {
        for connect in [Connect::id("dying"), Connect::id("dying").v5()] {
            let before = status()[counter].as_u64().unwrap();
            let mut will = Publish::new(topic, payload).qos(1);
            will.retain = true;
            Client::connect(daemon.mqtt(), &connect.will(will)).break_off();
            eventually(counter, || (status()[counter] == before + 1).then_some(()));
        }
    }
    victim.client.expect_silence();
    onlooker.expect_silence();
}

#[test]
fn the_same_words_elsewhere_are_ordinary() {
    let site = Site::new();
    let daemon = site.start();
    let mut onlooker = Client::connect(daemon.mqtt(), &Connect::id("onlooker"));
    onlooker.subscribe("plant/#", 1);
    let mut client = Client::connect(daemon.mqtt(), &Connect::id("client"));
    for words in forgeries() {
        client.publish(&Publish::new("plant/log", words.as_str()).qos(1));
        assert_eq!(onlooker.next_publish().text(), words);
    }
    // And a firmware variable's name as a value is no firmware variable.
    onlooker.subscribe("tago/+/post", 1);
    let talk = json!({"variable": "note", "value": "firmware_block"}).to_string();
    client.publish(&Publish::new(TOPIC, talk.as_str()).qos(1));
    assert_eq!(onlooker.next_publish().text(), talk);
}

#[test]
fn refusals_are_counted() {
    let site = Site::new();
    let daemon = site.start();
    let refused = || {
        let status = daemon.admin().get("/api/v1/status");
        status["broker"]["refused"].as_u64().expect("a counter")
    };
    let before = refused();
    let mut forger = Client::connect(daemon.mqtt(), &Connect::id("forger"));
    forger.publish(&Publish::new(TOPIC, forgeries()[0].as_str()).qos(1));
    // A connection adds up what it did after it has written its answers.
    eventually("one refusal more", || (refused() == before + 1).then_some(()));
}

#[test]
fn a_command_is_refused_where_its_device_could_take_it_for_the_servers() {
    let mut site = Site::new();
    site.set("auth.open_downlink", "true");
    let daemon = site.start();
    let forged = || {
        let metrics = daemon.admin().request("GET", "/metrics", None).body;
        let line = metrics.lines().find_map(|line| line.strip_prefix("fuotad_forged_total "));
        line.expect("a counter").parse::<u64>().unwrap()
    };
    let mut service = Client::connect(daemon.mqtt(), &Connect::id("service").v5());
    let mut say = |payload: &[u8]| {
        service.publish(&Publish::new("fuota/devices/pump-1/down", payload).qos(1))
    };
    // An array of CBOR with one element, which would be a MANIFEST to a device of the native dialect.
    let command = [0x81, 0x18, 42];
    assert_eq!(say(&command), 0x87, "nobody knows which dialect it speaks");
    daemon.expect_log(&["refused a publish", "client=service", "(native)", "this device is away"]);
    eventually("it is counted", || (forged() == 1).then_some(()));

    let mut pump = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    assert_eq!(say(&command), 0);
    assert_eq!(pump.client.next_publish().payload, command);
    assert_eq!(say(forgeries()[0].as_bytes()), 0x87);
    pump.client.expect_silence();
    eventually("it is counted", || (forged() == 2).then_some(()));
    pump.client.break_off();

    let mut pump = Client::connect(daemon.mqtt(), &Connect::id("pump-1"));
    pump.subscribe("fuota/v1/down", 0);
    assert_eq!(say(&command), 0x87);
    assert_eq!(say(forgeries()[0].as_bytes()), 0x87, "rule 24 knows no dialect");
    pump.expect_silence();
    eventually("it is counted", || (forged() == 4).then_some(()));
}
