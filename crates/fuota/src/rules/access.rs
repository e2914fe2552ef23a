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
    // Nobody slips out of a denial by a name that the pattern cannot hold.
    for odd in ["+", "a/b"] {
        let odd = session(&site, odd, Some("hist"), Role::Service);
        assert!(!odd.may_publish("client/x") && odd.may_subscribe("client/x"));
    }
}

#[tokio::test]
async fn a_rule_for_an_account_stands_in_line_with_those_for_its_role() {
    let site = Site::with(|settings| {
        rules(
            settings,
            &[
                "deny user:hist subscribe a/secret",
                "allow service subscribe a/#",
                "allow user:hist,user:dev-1,operator subscribe b/#",
                "deny any all #",
                "allow user:hist all c/#",
            ],
        );
    })
    .await;
    let hist = session(&site, "c", Some("hist"), Role::Service);
    assert!(hist.may_subscribe("a/x") && hist.may_subscribe("b/#"));
    for filter in ["a/secret", "a/#", "c/x"] {
        assert!(!hist.may_subscribe(filter), "{filter}");
    }
    let other = session(&site, "hist", Some("other"), Role::Service);
    assert!(other.may_subscribe("a/#") && !other.may_subscribe("b/x"), "a client id is no name");
    let device = session(&site, "c", Some("dev-1"), Role::Device);
    assert!(device.may_subscribe("b/x") && !device.may_subscribe("a/x"));
    assert!(session(&site, "c", Some("o"), Role::Operator).may_subscribe("b/x"));
    // In open mode nobody becomes an account by a name without a proof.
    let stranger = session(&site, "hist", Some("hist"), Role::Anonymous);
    assert!(!stranger.may_subscribe("b/x"));
}
