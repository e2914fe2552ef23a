use std::collections::BTreeMap;

use hook::{ConnectVerdict, Identity, Role};

use crate::{
    Actor, AuthMode, DevicePatch, Import, ImportError, ImportedUser, NewDevice, NewUser, Password,
    ServiceError, UserPatch, UserRole,
    harness::{Site, TOPIC, request, token_request},
};

const TOKEN: &str = "token-of-a-0123456789";
/// Written by mosquitto_passwd; the passwords stand beside it.
const PASSWORDS: &str = include_str!("../../../../tests/fixtures/mosquitto/passwords");

async fn token_site() -> Site {
    Site::with(|settings| settings.mode = AuthMode::Token).await
}

fn device(id: &str, token: Option<&str>) -> NewDevice {
    NewDevice { id: id.into(), token: token.map(Into::into), ..NewDevice::default() }
}

fn user(name: &str, role: UserRole) -> ImportedUser {
    let line = PASSWORDS.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let hash = line.unwrap_or("$6$damaged").to_owned();
    ImportedUser { name: name.into(), role, password_hash: Password(hash) }
}

fn login(client: &str, user: &str, password: &str) -> hook::ConnectRequest {
    hook::ConnectRequest {
        username: Some(user.into()),
        password: Some(password.into()),
        ..request(client)
    }
}

fn accepted(name: &str, role: Role) -> ConnectVerdict {
    ConnectVerdict::Accept(Identity { name: Some(name.into()), role })
}

fn foreign(site: &Site, name: &str) -> bool {
    site.service.0.accounts.get(name).unwrap().password.is_foreign()
}

fn ids(site: &Site) -> Vec<String> {
    let devices = site.service.devices(&Default::default());
    devices.into_iter().filter(|device| device.registered).map(|device| device.id).collect()
}

#[tokio::test]
async fn every_row_that_cannot_be_added_is_named_and_nothing_is() {
    let site = token_site().await;
    site.service.add_device(device("known", Some(TOKEN)), None, &Actor::default()).await.unwrap();
    let import = Import {
        devices: vec![
            device("a", None),
            device("no name", None),
            device("b", Some("short")),
            device("known", None),
            device("c", Some(TOKEN)),
            device("d", Some("token-of-d-0123456789")),
            device("e", Some("token-of-d-0123456789")),
            device("a", None),
        ],
        users: vec![
            user("grafana", UserRole::Service),
            user("a", UserRole::Service),
            user("nobody", UserRole::Service),
            user("known", UserRole::Service),
        ],
    };
    for dry_run in [true, false] {
        let error = site
            .service
            .import(import.clone(), dry_run, None, &Actor::default())
            .await
            .unwrap_err();
        let ImportError::Rows(problems) = error else { panic!("{error}") };
        let found: Vec<_> = problems
            .iter()
            .map(|problem| (problem.list, problem.row, problem.detail.as_str()))
            .collect();
        for (row, (list, number, words)) in found.iter().zip([
            ("devices", 1, "is not a name"),
            ("devices", 2, "128 bits"),
            ("devices", 3, "registered already"),
            ("devices", 4, "another device's"),
            ("devices", 6, "stands there twice"),
            ("devices", 7, "also devices[0]"),
            ("users", 1, "damaged"),
            ("users", 2, "damaged"),
            ("users", 3, "a registered device"),
        ]) {
            assert!((row.0, row.1) == (list, number) && row.2.contains(words), "{row:?} {words}");
        }
        assert_eq!(found.len(), 9, "{found:?}");
        assert!(ids(&site) == ["known"] && site.service.users().is_empty());
    }
    let many = Import { devices: vec![device("x", None); 100_001], ..Import::default() };
    let error = site.service.import(many, true, None, &Actor::default()).await.unwrap_err();
    assert!(matches!(error, ImportError::Service(ServiceError::Invalid { .. })), "{error}");
}

#[tokio::test]
async fn what_was_imported_logs_in_also_after_a_crash() {
    let site = token_site().await;
    let mut import = Import {
        devices: vec![device("a", Some(TOKEN)), device("b", None)],
        users: vec![user("grafana", UserRole::Service), user("pump-1", UserRole::Device)],
    };
    import.devices[0].labels = BTreeMap::from([("floor".into(), "3".into())]);
    import.devices[0].groups = vec!["hall-2".into(), "hall-1".into()];
    assert!(
        site.service
            .import(import.clone(), true, None, &Actor::default())
            .await
            .unwrap()
            .0
            .devices
            .is_empty()
    );
    assert!(ids(&site).is_empty(), "a dry run");
    let (imported, _) = site.service.import(import, false, None, &Actor::default()).await.unwrap();
    assert_eq!((imported.devices.len(), imported.users), (2, 2));
    assert_eq!(imported.devices[0].token, None, "it was given");
    let made = imported.devices[1].token.clone().unwrap();
    let site = site.crash().await;
    let a = site.service.device("a").unwrap();
    assert_eq!((a.groups.len(), a.labels["floor"].as_str()), (2, "3"));
    for (login, name, role) in [
        (token_request(TOKEN), "a", Role::Device),
        (token_request(&made), "b", Role::Device),
        (login("x", "grafana", "tulip-mania-1637"), "grafana", Role::Service),
        (login("x", "pump-1", "pw1"), "pump-1", Role::Device),
    ] {
        assert_eq!(site.identify(&login).await, accepted(name, role));
    }
    let wrong = site.identify(&login("x", "grafana", "tulip-mania-1638")).await;
    assert!(matches!(wrong, ConnectVerdict::Reject(_)));
    assert_eq!(ids(&site), ["a", "b", "pump-1"]);
}

#[tokio::test]
async fn what_cannot_be_written_is_taken_back_altogether() {
    let site = Site::start().await;
    let mut seen = site.connect("seen").await;
    seen.subscribe(TOPIC);
    let patch = DevicePatch { groups: Some(vec!["g".into()]), ..DevicePatch::default() };
    site.service.set_device("seen", patch, &Actor::default()).await.unwrap();
    let database = rusqlite::Connection::open(site.dir.path().join("data/fuota.db")).unwrap();
    database
        .execute_batch(
            "CREATE TRIGGER full BEFORE INSERT ON device WHEN NEW.id = 'z'
             BEGIN SELECT RAISE(ABORT, 'full'); END",
        )
        .unwrap();
    let import = Import {
        devices: vec![device("a", Some(TOKEN)), device("seen", None), device("z", None)],
        users: vec![user("pump-1", UserRole::Device)],
    };
    let error =
        site.service.import(import.clone(), false, None, &Actor::default()).await.unwrap_err();
    assert!(matches!(error, ImportError::Service(ServiceError::Unavailable(_))), "{error}");
    let nothing = |site: &Site| {
        assert!(ids(site).is_empty() && site.service.users().is_empty(), "{:?}", ids(site));
        assert_eq!(site.service.device("seen").unwrap().groups, ["g"]);
        assert!(site.service.device("a").is_none());
    };
    nothing(&site);
    assert_eq!(site.identify(&request("seen")).await, ConnectVerdict::Continue);
    assert_ne!(site.identify(&token_request(TOKEN)).await, accepted("a", Role::Device));
    let site = site.restart(|_| {}).await;
    nothing(&site);
    database.execute_batch("DROP TRIGGER full").unwrap();
    site.service.import(import, false, None, &Actor::default()).await.unwrap();
    assert_eq!(ids(&site), ["a", "pump-1", "seen", "z"]);
    assert_eq!(site.service.device("seen").unwrap().groups, [""; 0], "as the import says");
}

#[tokio::test]
async fn importing_ends_the_sessions_without_a_proof() {
    let site = Site::start().await;
    for name in ["a", "pump-1", "other"] {
        site.connect(name).await.subscribe(TOPIC);
    }
    site.broker.disconnected.lock().clear();
    let import =
        Import { devices: vec![device("a", None)], users: vec![user("pump-1", UserRole::Device)] };
    site.service.import(import, false, None, &Actor::default()).await.unwrap();
    let mut ended = site.broker.disconnected.lock().clone();
    ended.sort();
    assert_eq!(ended, ["a", "pump-1"]);
}

#[tokio::test]
async fn rule_28_a_login_replaces_the_hash_of_another_broker() {
    let site = token_site().await;
    let users = ["grafana", "historian", "telegraf"].map(|name| user(name, UserRole::Service));
    let import = Import { users: users.into(), ..Import::default() };
    site.service.import(import, false, None, &Actor::default()).await.unwrap();
    for name in ["grafana", "historian"] {
        assert!(foreign(&site, name));
    }
    let wrong = site.identify(&login("x", "grafana", "guess")).await;
    assert!(matches!(wrong, ConnectVerdict::Reject(_)));
    let passwords = [
        ("grafana", "tulip-mania-1637"),
        ("historian", "south-sea-1720"),
        ("telegraf", "crab-nebula-1054"),
    ];
    for (name, password) in passwords {
        let hangs_on = site.service.credential(name);
        let verdict = site.identify(&login("x", name, password)).await;
        assert_eq!(verdict, accepted(name, Role::Service));
        site.until("a hash of ours", |site| !foreign(site, name)).await;
        // It is remembered, although the entry is another one: an address that waits gets in.
        let from_here =
            |login| hook::ConnectRequest { address: Some("192.0.2.1:1".parse().unwrap()), ..login };
        for _ in 0..6 {
            drop(site.identify(&from_here(login("x", name, "guess"))).await);
        }
        let again = site.identify(&from_here(login("x", name, password))).await;
        assert_eq!(again, accepted(name, Role::Service));
        assert_eq!(site.service.credential(name), hangs_on, "nor is a login of the page");
    }
    assert!(site.broker.disconnected.lock().iter().all(|id| id != "x"), "nobody was ended");
    let site = site.crash().await;
    for (name, password) in passwords {
        assert!(!foreign(&site, name));
        let verdict = site.identify(&login("x", name, password)).await;
        assert_eq!(verdict, accepted(name, Role::Service));
        let wrong = site.identify(&login("x", name, "guess")).await;
        assert!(matches!(wrong, ConnectVerdict::Reject(_)));
    }
}

#[tokio::test]
async fn rule_1_a_device_user_is_a_registered_device() {
    let site = Site::with(|settings| settings.max_unregistered = 0).await;
    site.drop_file("groups/g/fw.bin", &[1; 50]).await;
    let import = Import { users: vec![user("pump-1", UserRole::Device)], ..Import::default() };
    site.service.import(import, false, None, &Actor::default()).await.unwrap();
    // Before it was ever seen.
    let patch = DevicePatch { groups: Some(vec!["g".into()]), ..DevicePatch::default() };
    site.service.set_device("pump-1", patch, &Actor::default()).await.unwrap();
    let mut pump = site.connect_as(login("x", "pump-1", "pw1")).await.unwrap();
    pump.subscribe(TOPIC);
    pump.manifest().await;
    let rotate = DevicePatch { rotate_token: true, ..DevicePatch::default() };
    let conflict = site.service.set_device("pump-1", rotate, &Actor::default()).await;
    assert!(matches!(conflict, Err(ServiceError::Conflict(_))), "it has no token");
    let conflict = site.service.remove_device("pump-1", &Actor::default()).await;
    assert!(matches!(conflict, Err(ServiceError::Conflict(_))), "it is a user");
    pump.end();
    let site = site.crash().await;
    assert_eq!(site.service.device("pump-1").unwrap().groups, ["g"]);

    // A role that is no device's ends that, another one begins it.
    let role = |role| UserPatch { role: Some(role), ..UserPatch::default() };
    site.service.set_user("pump-1", role(UserRole::Service), &Actor::default()).await.unwrap();
    assert!(site.service.device("pump-1").is_none());
    site.service.set_user("pump-1", role(UserRole::Device), &Actor::default()).await.unwrap();
    assert!(site.service.device("pump-1").unwrap().groups.is_empty());
    let new = NewUser {
        name: "pump-2".into(),
        role: UserRole::Device,
        password: Some(Password("correct horse".into())),
    };
    site.service.add_user(new, None, &Actor::default()).await.unwrap();
    assert_eq!(ids(&site), ["pump-1", "pump-2"]);
    site.service.remove_user("pump-1", &Actor::default()).await.unwrap();
    let site = site.crash().await;
    assert_eq!(ids(&site), ["pump-2"]);
}
