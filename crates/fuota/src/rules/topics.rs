use hook::{Identity, Origin, PublishVerdict, Role, SubscribeVerdict};

use crate::{
    Actor, NewUser, UserRole,
    harness::{Session, Site, TOPIC, request},
};

const REQUEST: &str = r#"{"variable":"firmware_request","value":0}"#;

fn staff(site: &Site, role: Role) -> Session {
    let identity = Identity { name: Some("account".into()), role };
    site.session(request("account"), identity, u32::MAX, &[])
}

#[tokio::test]
async fn rule_24_what_only_the_server_says_is_refused_and_counted() {
    let site = Site::start().await;
    let mut device = site.connect("dev-1").await;
    for name in [
        "firmware_manifest",
        "firmware_block",
        "fuota_error",
        "firmware_validation",
        "firmware_file",
    ] {
        let payload = format!(r#"{{"variable":"{name}","value":0}}"#);
        for origin in [Origin::Live, Origin::Will] {
            assert!(
                matches!(device.publish_to(TOPIC, &payload, origin), PublishVerdict::Reject(_)),
                "{name}"
            );
        }
        let array = format!(r#"[{{"variable":"t"}},{payload}]"#);
        assert!(matches!(device.publish(array), PublishVerdict::Reject(_)), "{name}");
        let mut service = staff(&site, Role::Service);
        assert!(matches!(service.publish(&payload), PublishVerdict::Reject(_)), "{name}");
        let down = service.publish_to("fuota/devices/dev-1/down", &payload, Origin::Live);
        assert!(matches!(down, PublishVerdict::Reject(_)), "{name}");
    }
    assert_eq!(site.service.status().refused, 25);
}

#[tokio::test]
async fn rule_24_a_request_as_a_will_is_dropped() {
    let site = Site::start().await;
    site.drop_file("fw.bin", &[1; 50]).await;
    let mut device = site.connect("dev-1").await;
    assert_eq!(device.publish_to(TOPIC, REQUEST, Origin::Will), PublishVerdict::Consume);
    device.nothing();
    let array = format!(r#"[{{"variable":"gone"}},{REQUEST}]"#);
    let PublishVerdict::Replace(rest) = device.publish_to(TOPIC, array, Origin::Will) else {
        panic!("the rest stays")
    };
    assert_eq!(rest.payload.unwrap(), r#"[{"variable":"gone"}]"#);
    device.nothing();
}

#[tokio::test]
async fn rule_25_others_pass_and_requests_never_do() {
    let site = Site::start().await;
    site.drop_file("fw.bin", &[1; 50]).await;
    let mut device = site.connect("dev-1").await;
    assert_eq!(device.publish("not json"), PublishVerdict::Continue);
    assert_eq!(device.publish(r#"{"variable":"t","value":1}"#), PublishVerdict::Continue);
    assert_eq!(device.publish_to("other/topic", REQUEST, Origin::Live), PublishVerdict::Continue);
    let array = format!(r#"[{{"variable":"t","value":1.0}},{REQUEST}]"#);
    let PublishVerdict::Replace(rest) = device.publish(array) else { panic!("the rest goes on") };
    assert_eq!(rest.payload.unwrap(), r#"[{"variable":"t","value":1.0}]"#);
    assert_eq!(device.block().await.0, 0);
}

#[tokio::test]
async fn rule_25_who_hears_what_on_the_reference_topic() {
    let site = Site::start().await;
    let mut device = site.connect("dev-1").await;
    assert_eq!(device.subscribe(TOPIC), SubscribeVerdict::Consume);
    assert_eq!(device.subscribe("tago/#"), SubscribeVerdict::Continue);
    for shared in ["$share/g/tago/data/post", "$share/g/fuota/devices/dev-1/down"] {
        assert!(matches!(device.subscribe(shared), SubscribeVerdict::Reject(_)), "{shared}");
    }
    assert_eq!(device.subscribe("$share/g/other"), SubscribeVerdict::Continue);
    for role in [Role::Service, Role::Operator, Role::Admin] {
        let mut account = staff(&site, role);
        assert_eq!(account.subscribe(TOPIC), SubscribeVerdict::Continue);
        assert!(matches!(account.publish(REQUEST), PublishVerdict::Reject(_)), "rule 1: no device");
        assert!(matches!(
            account.subscribe("$share/g/tago/data/post"),
            SubscribeVerdict::Reject(_)
        ));
    }
    assert_eq!(site.service.devices(&Default::default()).len(), 1);
}

#[tokio::test]
async fn rule_24_services_write_to_a_devices_downlink() {
    let site = Site::start().await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    let (topic, command) = ("fuota/devices/dev-1/down", r#"{"variable":"command","value":1}"#);
    let mut service = staff(&site, Role::Service);
    assert_eq!(service.publish_to(topic, command, Origin::Live), PublishVerdict::Consume);
    assert_eq!(device.next().await["variable"], "command");
    let away = service.publish_to("fuota/devices/nobody/down", command, Origin::Live);
    assert!(matches!(away, PublishVerdict::Reject(_)), "nothing is kept for a device that is away");
    let mut other = site.connect("dev-2").await;
    assert!(matches!(other.publish_to(topic, command, Origin::Live), PublishVerdict::Reject(_)));
    device.nothing();

    // A will is no way around it: not for a device, and not for an account that is gone.
    let will = other.publish_to(topic, command, Origin::Will);
    assert!(matches!(will, PublishVerdict::Reject(_)));
    let will = service.publish_to(topic, command, Origin::Will);
    assert!(matches!(will, PublishVerdict::Reject(_)), "there is no such account");
    let user = NewUser { name: "account".into(), role: UserRole::Service, password: None };
    site.service.add_user(user, None, &Actor::default()).await.unwrap();
    assert_eq!(service.publish_to(topic, command, Origin::Will), PublishVerdict::Consume);
    assert_eq!(device.next().await["variable"], "command");

    let site = Site::with(|settings| settings.open_downlink = true).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    let mut other = site.connect("dev-2").await;
    assert_eq!(other.publish_to(topic, command, Origin::Live), PublishVerdict::Consume);
    assert_eq!(device.next().await["variable"], "command");
}

/// On any dialect's topic: what comes to ThingsBoard's goes on below `fuota/devices/`.
#[tokio::test]
async fn rule_24_nothing_forged_goes_on_under_another_topic() {
    let site = Site::start().await;
    let forged = r#"{"variable":"firmware_manifest","value":"pending"}"#;
    let mut refused = 0;
    for topic in ["attributes", "telemetry", "rpc/request/1"] {
        let topic = format!("v1/devices/me/{topic}");
        for origin in [Origin::Live, Origin::Will] {
            for mut client in [site.connect("dev-1").await, staff(&site, Role::Service)] {
                let verdict = client.publish_to(&topic, forged, origin);
                assert!(matches!(verdict, PublishVerdict::Reject(_)), "{topic}: {verdict:?}");
                refused += 1;
                let verdict = client.publish_to(&topic, r#"{"variable":"t"}"#, origin);
                assert!(!matches!(verdict, PublishVerdict::Reject(_)), "{topic}: {verdict:?}");
            }
        }
    }
    assert_eq!(site.service.status().refused, refused);
}

/// Where a device of each dialect listens, what only the server says to it, and what is as good as
/// any other message for those of other dialects.
const LISTENING: [(&str, &[u8]); 4] = [
    (TOPIC, br#"{"variable":"firmware_manifest"}"#),
    ("v1/devices/me/attributes", br#"{"fw_title":"x"}"#),
    ("$aws/things/dev-1/jobs/notify-next", br#"{"jobs":[{"pump":1}]}"#),
    ("fuota/v1/down", &[0x81, 0xa1, b'x']),
];
const DOWN: &str = "fuota/devices/dev-1/down";

#[tokio::test]
async fn rule_24_a_device_hears_what_is_forged_in_other_dialects_alone() {
    for (own, _) in LISTENING {
        let site = Site::start().await;
        let mut device = site.connect("dev-1").await;
        assert_eq!(device.subscribe(own), SubscribeVerdict::Consume);
        let mut service = staff(&site, Role::Service);
        let mut refused = 0;
        for (topic, words) in LISTENING {
            let verdict = service.publish_to(DOWN, words, Origin::Live);
            // The reference's words are refused everywhere.
            if topic == own || topic == TOPIC {
                refused += 1;
                let PublishVerdict::Reject(reason) = verdict else { panic!("{own}: {topic}") };
                assert!(reason.text.contains("other words"), "{}", reason.text);
                device.nothing();
            } else {
                assert_eq!(verdict, PublishVerdict::Consume, "{own}: {topic}");
                let message = device.unwritten().await;
                assert_eq!((&*message.topic, &message.payload.to_bytes()[..]), (own, words));
            }
        }
        assert_eq!(site.service.status().refused, refused, "{own}");
    }
}

#[tokio::test]
async fn rule_24_a_device_of_unknown_or_mixed_dialects_is_kept_from_all_forgeries() {
    let site = Site::start().await;
    let mut service = staff(&site, Role::Service);
    let mut refused = 0;
    let mut all_refused = |site: &Site, what: &str| {
        for (topic, words) in LISTENING {
            let verdict = service.publish_to(DOWN, words, Origin::Live);
            let PublishVerdict::Reject(reason) = verdict else { panic!("{what}: {topic}") };
            assert!(reason.text.contains("other words"), "{}", reason.text);
            refused += 1;
        }
        assert_eq!(site.service.status().refused, refused, "{what}");
    };
    all_refused(&site, "never seen");
    let mut device = site.connect("dev-1").await;
    all_refused(&site, "connected, and in no dialect");
    device.publish(r#"{"variable":"temperature","value":1}"#);
    all_refused(&site, "acted in one, and listens to none");
    device.subscribe(TOPIC);
    device.subscribe("v1/devices/me/attributes");
    all_refused(&site, "listens in two");
    device.nothing();
    device.end();
    all_refused(&site, "away");

    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.publish_to("fuota/v1/up", [3, 4, 4, 1, b'1'], Origin::Live);
    all_refused(&site, "spoke in a second one");
    device.nothing();
}

#[tokio::test]
async fn rule_17_the_65th_request_of_a_message_gets_an_error() {
    let site = Site::start().await;
    site.drop_file("fw.bin", &[7; 10_000]).await;
    let mut device = site.connect("dev-1").await;
    device.subscribe(TOPIC);
    device.manifest().await;
    let requests: Vec<_> = (0..65)
        .map(|index| format!(r#"{{"variable":"firmware_request","value":{index}}}"#))
        .collect();
    assert_eq!(device.publish(format!("[{}]", requests.join(","))), PublishVerdict::Consume);
    let (mut blocks, mut errors) = (0, 0);
    for _ in 0..65 {
        match device.next().await["variable"].as_str().unwrap() {
            "firmware_block" => blocks += 1,
            _ => errors += 1,
        }
    }
    assert_eq!((blocks, errors), (64, 1));
}
