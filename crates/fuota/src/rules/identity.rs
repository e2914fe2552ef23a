use std::collections::BTreeMap;

use hook::{ConnectRequest, ConnectVerdict, Identity, Origin, ReasonKind, Role};

use crate::{
    Actor, DevicePatch, NewDevice, ServiceError,
    harness::{Site, TOPIC, request, token_request},
};

const TOKEN_A: &str = "token-of-a-0123456789";
const TOKEN_B: &str = "token-of-b-0123456789";

async fn site_with_two() -> Site {
    let site = Site::start().await;
    for (id, token) in [("a", TOKEN_A), ("b", TOKEN_B)] {
        let new = NewDevice { id: id.into(), token: Some(token.into()), ..NewDevice::default() };
        assert_eq!(
            site.service.add_device(new, None, &Actor::default()).await.unwrap().0.token,
            token
        );
    }
    site
}

fn login(client: &str, user: &str, password: Option<&str>) -> ConnectRequest {
    ConnectRequest {
        username: Some(user.into()),
        password: password.map(Into::into),
        ..request(client)
    }
}

fn is_refused(verdict: &ConnectVerdict) -> bool {
    matches!(verdict, ConnectVerdict::Reject(_))
}

#[tokio::test]
async fn rule_2_the_forms_of_a_token() {
    let site = site_with_two().await;
    let a = ConnectVerdict::Accept(Identity::device("a"));
    for form in [
        token_request(TOKEN_A),
        login("x", "Token", Some(TOKEN_A)),
        login("x", "a", Some(TOKEN_A)),
        login("x", TOKEN_A, None),
        login("x", TOKEN_A, Some("")),
        login("a", "a", Some(TOKEN_A)),
    ] {
        assert_eq!(site.identify(&form).await, a, "{form:?}");
    }
    for wrong in
        [login("x", "a", Some(TOKEN_B)), login("x", "a", None), login("x", "a", Some("guess"))]
    {
        let ConnectVerdict::Reject(reason) = site.identify(&wrong).await else {
            panic!("{wrong:?}")
        };
        assert_eq!(reason.kind, ReasonKind::BadUserNameOrPassword);
    }
    assert_eq!(
        site.identify(&login("x", "somebody", Some("password"))).await,
        ConnectVerdict::Continue
    );
}

#[tokio::test]
async fn rule_2_a_registered_id_needs_its_own_proof() {
    let site = site_with_two().await;
    assert!(is_refused(&site.identify(&request("a")).await), "no proof");
    assert!(
        is_refused(&site.identify(&login("a", "Token", Some(TOKEN_B))).await),
        "another's proof"
    );
    assert!(is_refused(&site.identify(&login("a", "Token", Some("an unregistered token"))).await));
    assert!(is_refused(&site.identify(&login("a", "somebody", Some("password"))).await));
    assert_eq!(site.identify(&request("c")).await, ConnectVerdict::Continue);
}

#[tokio::test]
async fn rule_2_two_proofs_that_differ_are_refused() {
    let site = site_with_two().await;
    let certificate = |cn: &str, token: &str| ConnectRequest {
        certificate_cn: Some(cn.into()),
        ..token_request(token)
    };
    assert!(is_refused(&site.identify(&certificate("a", TOKEN_B)).await));
    assert!(is_refused(&site.identify(&certificate("a", "an unregistered token")).await));
    assert!(is_refused(&site.identify(&certificate("no name", TOKEN_A)).await));
    assert_eq!(
        site.identify(&certificate("a", TOKEN_A)).await,
        ConnectVerdict::Accept(Identity::device("a"))
    );
}

#[tokio::test]
async fn rule_2_an_unregistered_token_is_a_device_of_its_own() {
    let site = Site::start().await;
    let mut device = site.connect_as(token_request("nobody knows me")).await.unwrap();
    assert_eq!(device.client.identity.role, Role::Anonymous);
    device.subscribe(TOPIC);
    let devices = site.service.devices(&Default::default());
    let id = &devices[0].id;
    assert!(id.starts_with("t-") && id.len() == 18, "{id}");
    // Nobody takes its place by calling himself so.
    let mut impostor = site.connect(id).await;
    impostor.subscribe(TOPIC);
    assert_eq!(site.service.devices(&Default::default()).len(), 2);
    // And the same token is the same device after a restart.
    let site = site.restart(|_| {}).await;
    drop(site.connect_as(token_request("nobody knows me")).await.unwrap());
    assert!(site.service.device(id).is_some_and(|device| device.online));
}

#[tokio::test]
async fn rule_1_a_device_is_who_acts_as_one() {
    let site = Site::start().await;
    let mut dashboard = site.connect("dashboard").await;
    dashboard.subscribe("#");
    dashboard.publish_to("plant/1", r#"{"variable":"t"}"#, Origin::Live);
    // Nor does a will make one, or what is refused.
    dashboard.publish_to(TOPIC, r#"{"variable":"t"}"#, Origin::Will);
    dashboard.publish(r#"{"variable":"firmware_block"}"#);
    assert!(site.service.devices(&Default::default()).is_empty());
    site.connect("1-listens").await.subscribe(TOPIC);
    site.connect("2-asks").await.ask(0);
    site.connect("3-speaks").await.publish(r#"{"variable":"t"}"#);
    let ids = |site: &Site| -> Vec<_> {
        site.service.devices(&Default::default()).into_iter().map(|device| device.id).collect()
    };
    assert_eq!(ids(&site), ["1-listens", "2-asks", "3-speaks"]);
    // Accounts of people and programs never are, whatever they do.
    for role in [Role::Service, Role::Operator, Role::Admin] {
        let identity = Identity { name: Some("account".into()), role };
        let mut account = site.session(request("account"), identity, u32::MAX, &[]);
        account.subscribe(TOPIC);
        account.publish(r#"{"variable":"firmware_request","value":0}"#);
        account.publish(r#"{"variable":"t"}"#);
    }
    assert_eq!(ids(&site).len(), 3);
}

#[tokio::test]
async fn rule_4_the_original_of_a_fingerprint_is_shown() {
    let site = Site::start().await;
    site.connect("boiler room/7").await.subscribe(TOPIC);
    let device = site.service.devices(&Default::default()).pop().unwrap();
    assert!(device.id.starts_with("c-") && device.id.len() == 18, "{}", device.id);
    assert_eq!(device.client_id.as_deref(), Some("boiler room/7"));
    // Case counts.
    for id in ["pump", "PUMP"] {
        let new = NewDevice { id: id.into(), ..NewDevice::default() };
        site.service.add_device(new, None, &Actor::default()).await.unwrap();
    }
}

#[tokio::test]
async fn rule_5_the_longest_idle_are_forgotten_first() {
    let site = Site::with(|settings| settings.max_unregistered = 2).await;
    for id in ["one", "two"] {
        site.connect(id).await.subscribe(TOPIC);
    }
    let ids = |site: &Site| {
        site.service
            .devices(&Default::default())
            .into_iter()
            .map(|device| device.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&site), ["one", "two"]);
    let mut third = site.connect("three").await;
    third.subscribe(TOPIC);
    assert_eq!(ids(&site), ["one", "two"], "both are connected, so the third is not remembered");
    let new = NewDevice { id: "two".into(), ..NewDevice::default() };
    site.service.add_device(new, None, &Actor::default()).await.unwrap();
    let mut fourth = site.connect("four").await;
    fourth.subscribe(TOPIC);
    assert_eq!(ids(&site), ["four", "one", "two"], "registered ones do not count");
    fourth.end();
    site.connect("five").await.subscribe(TOPIC);
    assert_eq!(ids(&site), ["five", "one", "two"]);
}

#[tokio::test]
async fn registering_checks_what_is_given() {
    let site = Site::start().await;
    let base = || NewDevice { id: "a".into(), ..NewDevice::default() };
    for (new, field) in [
        (NewDevice { id: "no name".into(), ..base() }, "id"),
        (NewDevice { id: "t-0123456789abcdef".into(), ..base() }, "id"),
        (NewDevice { token: Some("short".into()), ..base() }, "token"),
        (NewDevice { groups: vec!["a/b".into()], ..base() }, "groups"),
        (NewDevice { model: Some("".into()), ..base() }, "model"),
        (NewDevice { labels: BTreeMap::from([("k".into(), "\0".into())]), ..base() }, "labels"),
    ] {
        let error = site.service.add_device(new, None, &Actor::default()).await.unwrap_err();
        assert!(
            matches!(&error, ServiceError::Invalid { field: found, .. } if *found == field),
            "{error}"
        );
    }
    let (added, _) = site.service.add_device(base(), None, &Actor::default()).await.unwrap();
    assert!(added.token.len() >= 32);
    assert!(matches!(
        site.service.add_device(base(), None, &Actor::default()).await,
        Err(ServiceError::Conflict(_))
    ));
    let same_token = NewDevice { id: "b".into(), token: Some(added.token), ..base() };
    assert!(matches!(
        site.service.add_device(same_token, None, &Actor::default()).await,
        Err(ServiceError::Conflict(_))
    ));
    assert!(site.service.device("b").is_none());
}

#[tokio::test]
async fn registering_ends_the_sessions_without_a_proof() {
    let site = Site::start().await;
    let mut squatter = site.connect("a").await;
    squatter.subscribe(TOPIC);
    site.service
        .add_device(NewDevice { id: "a".into(), ..NewDevice::default() }, None, &Actor::default())
        .await
        .unwrap();
    assert_eq!(*site.broker.disconnected.lock(), ["a"]);
}

#[tokio::test]
async fn a_rotated_token_works_until_the_new_one_logs_in() {
    let site = site_with_two().await;
    let rotate = DevicePatch { rotate_token: true, ..DevicePatch::default() };
    let new = site.service.set_device("a", rotate, &Actor::default()).await.unwrap().token.unwrap();
    let a = ConnectVerdict::Accept(Identity::device("a"));
    assert_eq!(site.identify(&token_request(TOKEN_A)).await, a);
    assert_eq!(site.identify(&token_request(&new)).await, a);
    assert_ne!(site.identify(&token_request(TOKEN_A)).await, a, "an unknown token by now");
    let site = site.restart(|_| {}).await;
    assert_eq!(site.identify(&token_request(&new)).await, a);
    let now = DevicePatch { rotate_token: true, now: true, ..DevicePatch::default() };
    site.service.set_device("a", now, &Actor::default()).await.unwrap();
    assert_ne!(site.identify(&token_request(&new)).await, a);
}

#[tokio::test]
async fn rule_28_a_second_rotation_keeps_the_token_that_the_device_has() {
    let site = site_with_two().await;
    let rotate = DevicePatch { rotate_token: true, ..DevicePatch::default() };
    let actor = Actor::default();
    let lost = site.service.set_device("a", rotate.clone(), &actor).await.unwrap().token.unwrap();
    let new = site.service.set_device("a", rotate.clone(), &actor).await.unwrap().token.unwrap();
    let a = ConnectVerdict::Accept(Identity::device("a"));
    let site = site.restart(|_| {}).await;
    assert_eq!(site.identify(&token_request(TOKEN_A)).await, a, "the one in the field");
    assert_ne!(site.identify(&token_request(&lost)).await, a, "it never logged in");
    assert_eq!(site.identify(&token_request(&new)).await, a);
    assert_ne!(site.identify(&token_request(TOKEN_A)).await, a);
    // From here on `new` is the one in the field; with `now` all before end.
    site.service.set_device("a", rotate, &actor).await.unwrap();
    let now = DevicePatch { rotate_token: true, now: true, ..DevicePatch::default() };
    let last = site.service.set_device("a", now, &actor).await.unwrap().token.unwrap();
    assert_ne!(site.identify(&token_request(&new)).await, a);
    assert_eq!(site.identify(&token_request(&last)).await, a);
}

#[tokio::test]
async fn rule_28_a_rotation_that_cannot_be_written_changes_nothing() {
    for now in [false, true] {
        let site = site_with_two().await;
        let actor = Actor::default();
        let rotate = DevicePatch { rotate_token: true, ..DevicePatch::default() };
        let shown = site.service.set_device("a", rotate, &actor).await.unwrap().token.unwrap();
        site.forbid_writing(&["audit"]);
        let patch = DevicePatch {
            rotate_token: true,
            now,
            groups: Some(vec!["g".into()]),
            labels: Some(BTreeMap::from([("site".into(), "north".into())])),
            model: Some("m".into()),
        };
        let error = site.service.set_device("a", patch, &actor).await.unwrap_err();
        assert!(matches!(error, ServiceError::Unavailable(_)), "{error}");
        // Whatever is written of the device from here on holds nothing of it.
        let mut device = site.connect_as(token_request(TOKEN_A)).await.unwrap();
        device.subscribe(TOPIC);
        device.end();
        let a = ConnectVerdict::Accept(Identity::device("a"));
        let site = site.restart(|_| {}).await;
        let view = site.service.device("a").unwrap();
        assert!(view.last_seen.is_some(), "something was written");
        assert!(view.groups.is_empty() && view.labels.is_empty() && view.model.is_none());
        assert_eq!(site.identify(&token_request(TOKEN_A)).await, a);
        assert_eq!(site.identify(&token_request(&shown)).await, a, "the one that was shown");
        assert_ne!(site.identify(&token_request(TOKEN_A)).await, a);
    }
}

#[tokio::test]
async fn a_change_is_there_after_a_restart_and_offers_what_it_makes_fit() {
    let site = site_with_two().await;
    site.drop_file("groups/g/fw.bin", &[1; 50]).await;
    let mut device = site.connect_as(token_request(TOKEN_A)).await.unwrap();
    device.subscribe(TOPIC);
    device.nothing();
    let patch = DevicePatch {
        groups: Some(vec!["g".into()]),
        labels: Some(BTreeMap::from([("site".into(), "north".into())])),
        model: Some("m".into()),
        ..DevicePatch::default()
    };
    site.service.set_device("a", patch, &Actor::default()).await.unwrap();
    device.manifest().await;
    assert!(matches!(
        site.service.set_device("nobody", DevicePatch::default(), &Actor::default()).await,
        Err(ServiceError::NotFound(_))
    ));
    let site = site.restart(|_| {}).await;
    let view = site.service.device("a").unwrap();
    assert_eq!(
        (view.groups, view.labels["site"].as_str(), view.model.as_deref()),
        (vec!["g".to_owned()], "north", Some("m"))
    );
    assert!(view.registered && !view.online);
}

#[tokio::test]
async fn rule_2_what_an_sdk_says_about_itself_is_no_token() {
    let site = site_with_two().await;
    let sdk = "?SDK=PythonV2&Version=1.0.0";
    assert_eq!(site.identify(&login("dev-1", sdk, None)).await, ConnectVerdict::Continue);
    let certificate =
        ConnectRequest { certificate_cn: Some("dev-1".into()), ..login("dev-1", sdk, None) };
    let device = |id: &str| ConnectVerdict::Accept(Identity::device(id));
    assert_eq!(site.identify(&certificate).await, device("dev-1"));
    let with_token = login("x", &format!("Token{sdk}"), Some(TOKEN_A));
    assert_eq!(site.identify(&with_token).await, device("a"));
}
