use std::time::Duration;

use hook::{ConnectRequest, ConnectVerdict, Identity, ReasonKind, Role, SubscribeVerdict};

use crate::{
    Actor, AuthMode, DevicePatch, NewDevice, NewUser, Password, ServiceError, UserPatch, UserRole,
    harness::{Site, TOPIC, request, token_request},
};

const TOKEN: &str = "token-of-a-0123456789";
const PASSWORD: &str = "correct horse";

async fn token_site() -> Site {
    let site = Site::with(|settings| settings.mode = AuthMode::Token).await;
    add_accounts(&site).await;
    site
}

/// The device `a`, and a user for each role, named after it.
async fn add_accounts(site: &Site) {
    let a = NewDevice { id: "a".into(), token: Some(TOKEN.into()), ..NewDevice::default() };
    site.service.add_device(a, None, &Actor::default()).await.unwrap();
    for role in [UserRole::Device, UserRole::Service, UserRole::Operator, UserRole::Admin] {
        let (added, _) =
            site.service.add_user(user(role.name(), role), None, &Actor::default()).await.unwrap();
        assert_eq!(added.password, None, "a given password is not shown");
    }
    site.broker.disconnected.lock().clear();
}

fn user(name: &str, role: UserRole) -> NewUser {
    NewUser { name: name.into(), role, password: Some(Password(PASSWORD.into())) }
}

fn login(client: &str, user: &str, password: &str) -> ConnectRequest {
    ConnectRequest {
        username: Some(user.into()),
        password: Some(password.into()),
        ..request(client)
    }
}

fn from(address: &str, request: ConnectRequest) -> ConnectRequest {
    ConnectRequest { address: Some(address.parse().unwrap()), ..request }
}

fn refused(verdict: ConnectVerdict) -> ReasonKind {
    match verdict {
        ConnectVerdict::Reject(reason) => reason.kind,
        other => panic!("let in: {other:?}"),
    }
}

fn accepted(name: &str, role: Role) -> ConnectVerdict {
    ConnectVerdict::Accept(Identity { name: Some(name.into()), role })
}

#[tokio::test]
async fn each_role_logs_in_with_its_password_in_both_modes() {
    for mode in [AuthMode::Open, AuthMode::Token] {
        let site = Site::with(|settings| settings.mode = mode).await;
        add_accounts(&site).await;
        for (name, role) in [
            ("device", Role::Device),
            ("service", Role::Service),
            ("operator", Role::Operator),
            ("admin", Role::Admin),
        ] {
            let verdict = site.identify(&login("x", name, PASSWORD)).await;
            assert_eq!(verdict, accepted(name, role));
            // The second time it is remembered; a wrong one is refused all the same.
            assert_eq!(site.identify(&login("x", name, PASSWORD)).await, verdict);
            let wrong = site.identify(&login("x", name, "correct horsf")).await;
            assert_eq!(refused(wrong), ReasonKind::BadUserNameOrPassword);
            let none = ConnectRequest { username: Some(name.into()), ..request("x") };
            assert_eq!(
                refused(site.identify(&none).await),
                ReasonKind::BadUserNameOrPassword,
                "a user name is no token"
            );
        }
    }
}

#[tokio::test]
async fn token_mode_needs_a_proof_and_open_mode_does_not() {
    let site = token_site().await;
    for (login, kind) in [
        (request("x"), ReasonKind::NotAuthorized),
        (token_request("nobody has this token"), ReasonKind::BadUserNameOrPassword),
        (login("x", "stranger", PASSWORD), ReasonKind::BadUserNameOrPassword),
        (login("x", "a", "not its token, but long"), ReasonKind::BadUserNameOrPassword),
    ] {
        assert_eq!(refused(site.identify(&login).await), kind, "{login:?}");
    }
    assert_eq!(site.identify(&token_request(TOKEN)).await, accepted("a", Role::Device));
    assert_eq!(site.service.status().failed_logins, 3);

    let site = site.restart(|settings| settings.mode = AuthMode::Open).await;
    assert_eq!(site.identify(&request("x")).await, ConnectVerdict::Continue);
    let stranger = site.identify(&login("x", "stranger", PASSWORD)).await;
    assert_eq!(stranger, ConnectVerdict::Continue);
    assert_eq!(
        site.identify(&login("x", "admin", PASSWORD)).await,
        accepted("admin", Role::Admin),
        "users survive a restart"
    );
}

#[tokio::test]
async fn rule_2_a_certificate_beside_another_account_is_refused() {
    let site = token_site().await;
    let certificate = |cn: &str, user: &str| ConnectRequest {
        certificate_cn: Some(cn.into()),
        ..login("x", user, PASSWORD)
    };
    for (cn, user) in [("a", "device"), ("service", "service"), ("a", "admin")] {
        let verdict = site.identify(&certificate(cn, user)).await;
        assert_eq!(refused(verdict), ReasonKind::NotAuthorized, "{cn} {user}");
    }
    let same = site.identify(&certificate("device", "device")).await;
    assert_eq!(same, accepted("device", Role::Device));
}

/// Users and devices share one name space: a device with the name of a service would have its rights,
/// by rules for `user:NAME`, and its sessions.
#[tokio::test]
async fn rule_3_a_certificate_is_not_another_account_of_its_name() {
    for mode in [AuthMode::Open, AuthMode::Token] {
        let site = Site::with(|settings| settings.mode = mode).await;
        add_accounts(&site).await;
        let certificate =
            |cn: &str| ConnectRequest { certificate_cn: Some(cn.into()), ..request("dashboard") };
        for user in ["service", "operator", "admin"] {
            let verdict = site.identify(&certificate(user)).await;
            assert_eq!(refused(verdict), ReasonKind::NotAuthorized, "{user}");
        }
        for device in ["device", "a", "new"] {
            let verdict = site.identify(&certificate(device)).await;
            assert_eq!(verdict, accepted(device, Role::Device));
        }
    }
}

#[tokio::test]
async fn rule_2_the_name_of_a_device_user_needs_its_password() {
    let site = Site::start().await;
    add_accounts(&site).await;
    assert_eq!(refused(site.identify(&request("device")).await), ReasonKind::BadUserNameOrPassword);
    let other = site.identify(&login("device", "Token", TOKEN)).await;
    assert_eq!(refused(other), ReasonKind::BadUserNameOrPassword);
    let own = site.identify(&login("device", "device", PASSWORD)).await;
    assert_eq!(own, accepted("device", Role::Device));
    assert_eq!(site.identify(&request("service")).await, ConnectVerdict::Continue);
}

#[tokio::test]
async fn rule_3_anothers_session_is_not_taken_over_in_token_mode() {
    let site = token_site().await;
    let owner = Identity { name: Some("service".into()), role: Role::Service };
    site.broker.owners.lock().insert("dashboard".into(), owner);
    for stranger in [login("dashboard", "admin", PASSWORD), login("dashboard", "a", TOKEN)] {
        let verdict = site.identify(&stranger).await;
        assert_eq!(refused(verdict), ReasonKind::NotAuthorized, "{stranger:?}");
    }
    let own = site.identify(&login("dashboard", "service", PASSWORD)).await;
    assert_eq!(own, accepted("service", Role::Service));
}

#[tokio::test]
async fn a_removed_or_changed_user_is_out_at_once() {
    let site = token_site().await;
    let identity = |name: &str, role| Identity { name: Some(name.into()), role };
    for (client, name, role) in [
        ("s1", "service", Role::Service),
        ("s2", "service", Role::Service),
        ("o1", "operator", Role::Operator),
    ] {
        site.broker.owners.lock().insert(client.into(), identity(name, role));
    }
    let ended = |site: &Site| {
        let mut ended = std::mem::take(&mut *site.broker.disconnected.lock());
        ended.sort();
        ended
    };
    assert_eq!(
        site.identify(&login("s1", "service", PASSWORD)).await,
        accepted("service", Role::Service)
    );
    site.service.remove_user("service", &Actor::default()).await.unwrap();
    assert_eq!(ended(&site), ["s1", "s2", "service"]);
    let again = site.identify(&login("s1", "service", PASSWORD)).await;
    assert_eq!(refused(again), ReasonKind::BadUserNameOrPassword, "what was remembered is gone");
    // A login that was let in before, and whose session starts only now.
    let late = identity("service", Role::Service);
    drop(site.session(request("s3"), late, u32::MAX, &[]));
    assert_eq!(ended(&site), ["s3"]);
    site.service.remove_user("device", &Actor::default()).await.unwrap();
    ended(&site);
    let late = identity("device", Role::Device);
    let mut late = site.session(login("d1", "device", PASSWORD), late, u32::MAX, &[]);
    assert_eq!(ended(&site), ["d1"]);
    assert_eq!(late.subscribe(TOPIC), SubscribeVerdict::Consume, "it hears nothing");

    let patch = UserPatch { new_password: true, ..UserPatch::default() };
    let changed = site.service.set_user("operator", patch, &Actor::default()).await.unwrap();
    assert_eq!(ended(&site), ["o1", "operator"]);
    let password = changed.password.unwrap().0;
    assert!(password.len() >= 32);
    refused(site.identify(&login("x", "operator", PASSWORD)).await);
    let new = site.identify(&login("x", "operator", &password)).await;
    assert_eq!(new, accepted("operator", Role::Operator));
    let patch = UserPatch { role: Some(UserRole::Admin), ..UserPatch::default() };
    assert_eq!(
        site.service.set_user("operator", patch, &Actor::default()).await.unwrap().password,
        None
    );
    let new = site.identify(&login("x", "operator", &password)).await;
    assert_eq!(new, accepted("operator", Role::Admin));
    let site = site.restart(|_| {}).await;
    assert_eq!(site.service.user("service"), None);
    assert_eq!(site.service.user("operator").unwrap().role, UserRole::Admin);
}

/// A CONNECT that was let in, and whose session begins only when that was no longer true: it may have
/// waited for an older connection of its client id.
#[tokio::test]
async fn a_login_under_way_ends_with_what_it_proved() {
    let site = Site::start().await;
    add_accounts(&site).await;
    let mut number = 1 << 40;
    let mut numbered = |request: ConnectRequest| {
        number += 1;
        ConnectRequest { connection: number, ..request }
    };
    let cut = DevicePatch { rotate_token: true, now: true, ..DevicePatch::default() };
    let password = UserPatch { new_password: true, ..UserPatch::default() };
    let actor = Actor::default();
    let b = NewDevice { id: "b".into(), ..NewDevice::default() };
    for (case, login) in [
        ("token", ConnectRequest { client_id: "x".into(), ..token_request(TOKEN) }),
        ("password", login("x", "service", PASSWORD)),
        ("removal", login("x", "device", PASSWORD)),
        ("id", request("b")),
    ] {
        let late = numbered(login);
        let in_time = numbered(request("y"));
        let identity = |verdict| match verdict {
            ConnectVerdict::Accept(identity) => identity,
            ConnectVerdict::Continue => Identity::ANONYMOUS,
            other => panic!("{case}: {other:?}"),
        };
        let before = identity(site.identify(&late).await);
        let other = identity(site.identify(&in_time).await);
        match case {
            "token" => drop(site.service.set_device("a", cut.clone(), &actor).await.unwrap()),
            "password" => {
                drop(site.service.set_user("service", password.clone(), &actor).await.unwrap());
            }
            "removal" => site.service.remove_user("device", &actor).await.unwrap(),
            // Until now it was anybody's.
            _ => drop(site.service.add_device(b.clone(), None, &actor).await.unwrap()),
        }
        site.broker.disconnected.lock().clear();
        let id = late.client_id.to_string();
        let mut late = site.session(late, before, u32::MAX, &[]);
        if case != "password" {
            // What its session had subscribed to is there when it is back.
            assert_eq!(late.subscribe(TOPIC), SubscribeVerdict::Consume, "{case}");
        }
        drop(late);
        drop(site.session(in_time, other, u32::MAX, &[]));
        assert_eq!(*site.broker.disconnected.lock(), [id], "{case}");
    }
    // A login that is looked at from then on counts.
    site.broker.disconnected.lock().clear();
    let admin = numbered(login("x", "admin", PASSWORD));
    let ConnectVerdict::Accept(identity) = site.identify(&admin).await else { panic!() };
    drop(site.session(admin, identity, u32::MAX, &[]));
    assert_eq!(*site.broker.disconnected.lock(), [""; 0]);
}

#[tokio::test]
async fn a_removed_device_is_forgotten_with_its_token() {
    let site = token_site().await;
    site.drop_file("all/fw.bin", &[1; 50]).await;
    let mut device = site.connect_as(token_request(TOKEN)).await.unwrap();
    device.subscribe(TOPIC);
    device.manifest().await;
    site.service.remove_device("a", &Actor::default()).await.unwrap();
    assert!(site.broker.disconnected.lock().contains(&device.client.id.to_string()));
    assert!(site.service.device("a").is_none());
    device.end();
    refused(site.identify(&token_request(TOKEN)).await);
    let missing = site.service.remove_device("a", &Actor::default()).await;
    assert!(matches!(missing, Err(ServiceError::NotFound(_))));
    let site = site.restart(|_| {}).await;
    assert!(site.service.device("a").is_none(), "nothing wrote it again");
    refused(site.identify(&token_request(TOKEN)).await);
    let again = NewDevice { id: "a".into(), token: Some(TOKEN.into()), ..NewDevice::default() };
    site.service.add_device(again, None, &Actor::default()).await.unwrap();
    assert_eq!(site.identify(&token_request(TOKEN)).await, accepted("a", Role::Device));
}

/// What it has got, what it is being given and its places in rollouts are there as before.
#[tokio::test]
async fn a_device_that_cannot_be_removed_has_forgotten_nothing() {
    let site = token_site().await;
    site.drop_file("all/fw-1.0.0.bin", &[1; 50]).await;
    let mut device = site.connect_as(token_request(TOKEN)).await.unwrap();
    device.subscribe(TOPIC);
    device.manifest().await;
    device.ask(0);
    device.next().await;
    let deployments = |site: &Site| {
        let all = site.service.deployments(None, None, 10);
        all.iter().map(|one| one.counts.clone()).collect::<Vec<_>>()
    };
    let (before, counts) = (site.service.device("a").unwrap(), deployments(&site));
    site.forbid_writing(&["audit"]);
    let error = site.service.remove_device("a", &Actor::default()).await.unwrap_err();
    assert!(matches!(error, ServiceError::Unavailable(_)), "{error}");
    site.allow_writing();
    device.end();
    let after = site.service.device("a").unwrap();
    assert_eq!((after.state, after.progress), (before.state, before.progress));
    assert_eq!(deployments(&site), counts);
    let mut device = site.connect_as(token_request(TOKEN)).await.unwrap();
    device.subscribe(TOPIC);
    device.nothing();
    site.service.remove_device("a", &Actor::default()).await.unwrap();
    device.end();
    assert_eq!(site.service.status().devices.registered, 1, "the user that is a device");
    assert_eq!(site.service.status().devices.total, 1);
}

#[tokio::test]
async fn names_are_one_name_space_and_what_is_given_is_checked() {
    let site = token_site().await;
    let device = NewDevice { id: "service".into(), ..NewDevice::default() };
    assert!(matches!(
        site.service.add_device(device, None, &Actor::default()).await,
        Err(ServiceError::Conflict(_))
    ));
    for name in ["a", "service"] {
        let taken =
            site.service.add_user(user(name, UserRole::Service), None, &Actor::default()).await;
        assert!(matches!(taken, Err(ServiceError::Conflict(_))), "{name}");
    }
    let short =
        NewUser { password: Some(Password("short".into())), ..user("n", UserRole::Service) };
    let reserved = user("t-0123456789abcdef", UserRole::Service);
    for (new, wanted) in [
        (user("no name", UserRole::Service), "name"),
        (user("Token", UserRole::Service), "name"),
        (reserved, "name"),
        (short, "password"),
    ] {
        let error = site.service.add_user(new, None, &Actor::default()).await.unwrap_err();
        assert!(
            matches!(&error, ServiceError::Invalid { field, .. } if *field == wanted),
            "{error}"
        );
    }
    site.service.set_user("service", UserPatch::default(), &Actor::default()).await.unwrap();
    assert!(site.broker.disconnected.lock().is_empty(), "nothing changed");
    let unknown = site.service.set_user("nobody", UserPatch::default(), &Actor::default()).await;
    assert!(matches!(unknown, Err(ServiceError::NotFound(_))));
    let shown = format!("{:?}", user("n", UserRole::Service));
    assert!(!shown.contains(PASSWORD), "{shown}");
}

#[tokio::test]
async fn an_address_with_too_many_failures_waits_and_others_do_not() {
    let site = token_site().await;
    let (here, there) = ("192.0.2.1:1000", "192.0.2.2:1000");
    assert_eq!(
        site.identify(&from(here, login("x", "admin", PASSWORD))).await,
        accepted("admin", Role::Admin)
    );
    for _ in 0..6 {
        let wrong = site.identify(&from(here, login("x", "service", "wrong guess"))).await;
        assert_eq!(refused(wrong), ReasonKind::BadUserNameOrPassword);
    }
    let slowed = site.identify(&from(here, login("x", "service", PASSWORD))).await;
    assert_eq!(refused(slowed), ReasonKind::ServerBusy, "even the right one is not looked at");
    for (neighbour, name, role) in [
        (from(there, login("x", "service", PASSWORD)), "service", Role::Service),
        (from(here, token_request(TOKEN)), "a", Role::Device),
        (from(here, login("x", "admin", PASSWORD)), "admin", Role::Admin),
    ] {
        assert_eq!(site.identify(&neighbour).await, accepted(name, role));
    }
}

/// A historian with an old password tries on for ever, and a dashboard comes back behind the same
/// address: at a restart nobody's password is remembered.
#[tokio::test]
async fn one_wrong_password_does_not_shut_out_the_neighbours() {
    let site = token_site().await;
    let here = "192.0.2.1:1000";
    for _ in 0..10 {
        refused(site.identify(&from(here, login("h", "operator", "an old password"))).await);
    }
    let own = site.identify(&from(here, login("x", "service", PASSWORD))).await;
    assert_eq!(own, accepted("service", Role::Service));
    let address = Some(here.parse().unwrap());
    assert_eq!(site.service.log_in("admin", PASSWORD, address).await.unwrap(), UserRole::Admin);
    assert!(!site.service.is_slowed(address), "the page takes the admin token");
    site.service.wrong_admin_token(address);
    assert!(site.service.is_slowed(address), "until a wrong one was tried");
    // Who guesses has one guess, and what it says is the same whether there is such a user or not.
    for name in ["device", "nobody"] {
        let tries = [0; 2].map(|_| site.service.log_in(name, "guess", address));
        let [first, second] = futures_util::future::join_all(tries).await.try_into().unwrap();
        assert!(first.unwrap_err().to_string().contains("wrong"), "{name}");
        assert!(second.unwrap_err().to_string().contains("too many"), "{name}");
    }
}

/// Many guesses at once are no more than the same ones after each other.
#[tokio::test]
async fn guesses_that_come_together_wait_as_well() {
    let site = token_site().await;
    let here = "192.0.2.1:1000";
    let mut guesses = vec!["wrong guess"; 30];
    guesses.push(PASSWORD);
    let tries: Vec<_> =
        guesses.iter().map(|guess| from(here, login("x", "service", guess))).collect();
    let verdicts = futures_util::future::join_all(tries.iter().map(|one| site.identify(one))).await;
    let kinds: Vec<_> = verdicts.into_iter().map(refused).collect();
    let busy = |kind: &&ReasonKind| **kind == ReasonKind::ServerBusy;
    assert_eq!(kinds.iter().filter(busy).count(), 31 - 6, "{kinds:?}");
}

#[tokio::test]
async fn a_failed_login_does_not_say_which_names_are_known() {
    let site = token_site().await;
    let mut texts = std::collections::HashSet::new();
    for request in [
        token_request("nobody has this token"),
        login("x", "stranger", PASSWORD),
        login("x", "a", "not its token, but long"),
        login("x", "admin", "not its password"),
    ] {
        match site.identify(&request).await {
            ConnectVerdict::Reject(reason) => drop(texts.insert(reason.text)),
            other => panic!("let in: {other:?}"),
        }
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
    // At the page an unknown name is computed like a known one: there is no room for so many.
    let logins = (0..200).map(|_| site.service.log_in("stranger", PASSWORD, None));
    let refusals = futures_util::future::join_all(logins).await;
    let is_busy = |refusal: &Result<UserRole, ServiceError>| {
        matches!(refusal, Err(ServiceError::Unavailable(_)))
    };
    let busy = refusals.iter().filter(|refusal| is_busy(refusal)).count();
    assert!((100..200).contains(&busy), "{busy}");
    let mut wrong = refusals.into_iter().filter(|refusal| !is_busy(refusal));
    let known = site.service.log_in("admin", "not its password", None).await;
    assert_eq!(wrong.next().unwrap().unwrap_err().to_string(), known.unwrap_err().to_string());
}

/// A device that was removed tries on for ever, in each of the forms that devices log in with.
#[tokio::test]
async fn what_nobody_has_makes_no_password_wait() {
    let site = token_site().await;
    let here = "192.0.2.1:1000";
    let gone = "token-of-gone-0123456789";
    for _ in 0..10 {
        for request in [
            token_request(gone),
            login("gone", "gone", gone),
            ConnectRequest { username: Some(gone.into()), ..request("gone") },
            login("a", "a", gone),
        ] {
            refused(site.identify(&from(here, request)).await);
        }
    }
    let slowed = site.identify(&from(here, token_request(gone))).await;
    assert_eq!(refused(slowed), ReasonKind::ServerBusy, "it does not fill the log");
    let address = Some(here.parse().unwrap());
    assert!(!site.service.is_slowed(address), "the page takes the admin token");
    let first = site.identify(&from(here, login("x", "service", PASSWORD))).await;
    assert_eq!(first, accepted("service", Role::Service));
    assert_eq!(site.service.log_in("admin", PASSWORD, address).await.unwrap(), UserRole::Admin);
    assert_eq!(site.identify(&from(here, token_request(TOKEN))).await, accepted("a", Role::Device));
    assert_eq!(site.service.status().failed_logins, 41);
}

#[tokio::test]
async fn rule_28_an_old_token_ends_with_its_grace() {
    let site = Site::with(|settings| {
        settings.mode = AuthMode::Token;
        settings.rotation_grace = Duration::ZERO;
    })
    .await;
    add_accounts(&site).await;
    let rotate = DevicePatch { rotate_token: true, ..DevicePatch::default() };
    let new = site.service.set_device("a", rotate, &Actor::default()).await.unwrap().token.unwrap();
    refused(site.identify(&token_request(TOKEN)).await);
    assert_eq!(site.identify(&token_request(&new)).await, accepted("a", Role::Device));
}

#[tokio::test]
async fn rule_29_no_client_waits_for_the_database() {
    let site = token_site().await;
    let database = rusqlite::Connection::open(site.dir.path().join("data/fuota.db")).unwrap();
    database.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let change = UserPatch { role: Some(UserRole::Admin), ..UserPatch::default() };
    let service = site.service.clone();
    let changing =
        tokio::spawn(async move { service.set_user("operator", change, &Actor::default()).await });
    for (login, name, role) in [
        (token_request(TOKEN), "a", Role::Device),
        (login("x", "service", PASSWORD), "service", Role::Service),
        (login("x", "device", PASSWORD), "device", Role::Device),
    ] {
        let verdict = site.identify(&login).await;
        assert_eq!(verdict, accepted(name, role));
        let ConnectVerdict::Accept(identity) = verdict else { panic!() };
        let mut session = site.session(login, identity, u32::MAX, &[]);
        session.subscribe(TOPIC);
        session.publish(r#"{"variable":"t"}"#);
        if role == Role::Device {
            session.ask(0);
        }
    }
    assert!(!changing.is_finished(), "the database was held all the while");
    database.execute_batch("COMMIT").unwrap();
    assert_eq!(changing.await.unwrap().unwrap().user.role, UserRole::Admin);
}
