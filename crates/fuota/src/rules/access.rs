use hook::{Identity, Role};

use crate::{
    Settings,
    harness::{Session, Site, TOPIC, request},
};

fn session(site: &Site, client: &str, name: Option<&str>, role: Role) -> Session {
    let identity = Identity { name: name.map(Into::into), role };
    site.session(request(client), identity, u32::MAX, &[])
}

fn rules(settings: &mut Settings, lines: &[&str]) {
    settings.rules = lines.iter().map(|line| line.parse().unwrap()).collect();
}

#[tokio::test]
async fn rule_26_devices_go_anywhere_but() {
    let site = Site::start().await;
    for device in [
        session(&site, "dev-1", Some("dev-1"), Role::Device),
        session(&site, "dev-1", None, Role::Anonymous),
    ] {
        for topic in ["plant/1", TOPIC, "fuota/other", "$aws/things/dev-1/jobs/get"] {
            assert!(device.may_publish(topic), "{topic}");
        }
        for filter in [
            "#",
            "plant/+/x",
            TOPIC,
            "$share/g/plant/#",
            "$SYS/#",
            "$SYS/broker/uptime",
            "$aws/things/dev-1/jobs/#",
            "fuota/devices/dev-1/down",
        ] {
            assert!(device.may_subscribe(filter), "{filter}");
        }
        for filter in [
            "$aws/things/dev-2/jobs/#",
            "$aws/things/+/jobs/#",
            "$aws/#",
            "$other/x",
            "$share/g/$other/x",
            "fuota/devices/dev-2/down",
        ] {
            assert!(!device.may_subscribe(filter), "{filter}");
        }
    }
    let refused = site.service.status().refused;
    assert_eq!(refused, 12, "each is counted");
    let service = session(&site, "s", Some("s"), Role::Service);
    assert!(service.may_subscribe("#") && service.may_publish("plant/1"));
}

#[tokio::test]
async fn strict_limits_devices_to_what_is_listed() {
    let site = Site::with(|settings| {
        settings.strict = true;
        rules(
            settings,
            &[
                "allow device publish plant/%d/#",
                "allow device subscribe cmd/%d",
                "allow device subscribe cmd/all",
            ],
        );
    })
    .await;
    let device = session(&site, "c", Some("dev-1"), Role::Device);
    for topic in ["plant/dev-1/t", "plant/dev-1", TOPIC] {
        assert!(device.may_publish(topic), "{topic}");
    }
    for topic in ["plant/dev-2/t", "plant", "other"] {
        assert!(!device.may_publish(topic), "{topic}");
    }
    for filter in ["cmd/dev-1", "cmd/all", "$share/g/cmd/all", TOPIC, "$aws/things/dev-1/jobs/#"] {
        assert!(device.may_subscribe(filter), "{filter}");
    }
    for filter in ["cmd/+", "#", "$SYS/#", "cmd/dev-2", "$share/g/#"] {
        assert!(!device.may_subscribe(filter), "{filter}");
    }
    let anonymous = session(&site, "dev-1", None, Role::Anonymous);
    assert!(!anonymous.may_publish("plant/dev-1/t"), "the rule is the devices' alone");
    assert!(anonymous.may_publish(TOPIC));
    assert!(session(&site, "s", Some("s"), Role::Service).may_subscribe("#"));
}

#[tokio::test]
async fn the_first_rule_decides_and_a_denial_covers_what_overlaps() {
    let site = Site::with(|settings| {
        rules(
            settings,
            &[
                "allow any subscribe secret/%u",
                "deny device,service all secret/#",
                "deny service publish %c/x",
            ],
        );
    })
    .await;
    let service = session(&site, "client", Some("hist"), Role::Service);
    assert!(service.may_subscribe("secret/hist"), "the first");
    assert!(!service.may_publish("secret/hist"));
    for filter in ["secret/x", "secret/#", "#", "+/x", "$share/g/#"] {
        assert!(!service.may_subscribe(filter), "{filter} would show a part of secret/#");
    }
    assert!(service.may_subscribe("open/#") && service.may_publish("other/x"));
    assert!(!service.may_publish("client/x"), "%c");
    let operator = session(&site, "o", Some("o"), Role::Operator);
    assert!(operator.may_subscribe("#") && operator.may_publish("secret/x"));
    // A name with a wildcard in it does not widen the rule.
    let odd = session(&site, "+", Some("hist"), Role::Service);
    assert!(odd.may_publish("client/x"));
}
