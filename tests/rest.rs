//! REST for scripts: tokens of users, what each role may do, requests that may be repeated, and
//! the audit that names who did what.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::{Value, json};
use support::{
    Client, Connect, Daemon, Site, eventually,
    http::{Admin, Response},
};

/// A request with an `Idempotency-Key`.
fn keyed(daemon: &Daemon, path: &str, key: &str, body: &Value) -> Response {
    let admin = daemon.admin();
    let headers = [
        format!("Host: {}", daemon.admin_address()),
        format!("Authorization: Bearer {}", admin.token()),
        format!("Idempotency-Key: {key}"),
    ];
    let headers: Vec<_> = headers.iter().map(String::as_str).collect();
    admin.raw("POST", &format!("/api/v1/{path}"), &headers, Some(&body.to_string()))
}

fn post(admin: &Admin, path: &str, body: &Value) -> Response {
    admin.request("POST", &format!("/api/v1/{path}"), Some(body))
}

fn add_user(daemon: &Daemon, name: &str, role: &str) {
    let user = json!({"name": name, "role": role, "password": "correct horse"});
    assert_eq!(post(&daemon.admin(), "users", &user).status, 201);
}

/// A token for a user: its id and itself.
fn add_token(daemon: &Daemon, user: &str, body: &Value) -> (String, String) {
    let made = post(&daemon.admin(), &format!("users/{user}/tokens"), body);
    assert_eq!(made.status, 201, "{}", made.body);
    let text = |name: &str| made.json()[name].as_str().unwrap().to_owned();
    (text("id"), text("token"))
}

#[test]
fn a_token_does_what_its_users_role_allows_until_it_is_revoked() {
    let site = Site::new();
    let daemon = site.start();
    let mut tokens = Vec::new();
    for role in ["service", "operator", "admin"] {
        add_user(&daemon, role, role);
        tokens.push(add_token(&daemon, role, &json!({"label": "ci"})));
    }
    let by = |daemon: &Daemon, place: usize| Admin::new(daemon.admin_address(), &tokens[place].1);
    let status = |daemon: &Daemon, place, method, path: &str, body: Option<&Value>| {
        by(daemon, place).request(method, &format!("/api/v1/{path}"), body).status
    };
    let device = json!({"id": "pump-1"});
    // Rows: what is asked for; columns: service, operator, admin.
    for (method, path, body, expected) in [
        ("GET", "devices", None, [200, 200, 200]),
        ("GET", "audit", None, [403, 200, 200]),
        ("PUT", "freeze", None, [403, 200, 200]),
        ("GET", "users", None, [403, 403, 200]),
        ("POST", "devices", Some(&device), [403, 403, 201]),
    ] {
        for (place, expected) in expected.into_iter().enumerate() {
            assert_eq!(status(&daemon, place, method, path, body), expected, "{method} {path}");
        }
    }
    // A token is for this interface alone.
    assert!(Client::try_connect(daemon.mqtt(), &Connect::id("x")).is_ok(), "open mode");
    let as_password = Connect {
        username: Some("operator".into()),
        password: Some(tokens[1].1.clone().into()),
        ..Connect::id("y")
    };
    assert!(Client::try_connect(daemon.mqtt(), &as_password).is_err());

    let listed = daemon.admin().get("/api/v1/users/operator/tokens");
    let row = &listed["tokens"][0];
    assert_eq!((&row["id"], &row["label"]), (&json!(tokens[1].0), &json!("ci")));
    assert!(row["last_used"].is_u64() && row["expires"].is_null(), "{row}");
    let database = std::fs::read(site.path().join("data/fuota.db")).unwrap();
    let log = std::fs::read(site.path().join("data/fuota.db-wal")).unwrap_or_default();
    for (_, token) in &tokens {
        assert!(!listed.to_string().contains(token));
        let holds = |bytes: &[u8]| bytes.windows(token.len()).any(|part| part == token.as_bytes());
        assert!(!holds(&database) && !holds(&log), "only a hash of it is kept");
    }

    // It survives kill -9, follows its user's role, and ends with a word.
    daemon.kill();
    let daemon = site.start();
    assert_eq!(status(&daemon, 1, "GET", "devices", None), 200);
    let patch = json!({"role": "service"});
    assert_eq!(daemon.admin().request("PATCH", "/api/v1/users/operator", Some(&patch)).status, 200);
    assert_eq!(status(&daemon, 1, "DELETE", "freeze", None), 403);
    let path = format!("/api/v1/users/operator/tokens/{}", tokens[1].0);
    assert_eq!(daemon.admin().request("DELETE", &path, None).status, 204);
    assert_eq!(status(&daemon, 1, "GET", "devices", None), 401);
    assert_eq!(daemon.admin().request("DELETE", "/api/v1/users/admin", None).status, 204);
    assert_eq!(status(&daemon, 2, "GET", "devices", None), 401, "it goes with its user");
    daemon.kill();
    let daemon = site.start();
    assert_eq!(status(&daemon, 1, "GET", "devices", None), 401, "also after a restart");
    assert_eq!(status(&daemon, 2, "GET", "devices", None), 401);
    assert_eq!(status(&daemon, 0, "GET", "devices", None), 200);
}

#[test]
fn tokens_are_for_those_who_may_use_the_interface() {
    let site = Site::new();
    let daemon = site.start();
    add_user(&daemon, "ann", "operator");
    add_user(&daemon, "pump-1", "device");
    let make = |user: &str, body: Value| {
        post(&daemon.admin(), &format!("users/{user}/tokens"), &body).status
    };
    assert_eq!(make("nobody", json!({})), 404);
    assert_eq!(make("pump-1", json!({})), 409, "a device has a token of its own kind");
    assert_eq!(make("ann", json!({"expires_in_days": 0})), 422);
    assert_eq!(make("ann", json!({"label": "x".repeat(65)})), 422);
    for _ in 0..64 {
        assert_eq!(make("ann", json!({})), 201);
    }
    assert_eq!(make("ann", json!({})), 409, "there is a bound");
}

#[test]
fn a_create_with_a_key_happens_once_whatever_is_lost_on_the_way() {
    let site = Site::new();
    let mut daemon = site.start();
    add_user(&daemon, "bob", "operator");
    let creates = [
        (
            "devices",
            json!({"id": "pump-1", "labels": {"b": "2", "a": "1"}}),
            json!({"id": "pump-2"}),
        ),
        (
            "users",
            json!({"name": "ann", "role": "service"}),
            json!({"name": "ann", "role": "admin"}),
        ),
        ("users/bob/tokens", json!({"label": "ci"}), json!({"label": "cd"})),
        (
            "import",
            json!({"devices": [{"id": "i-1"}, {"id": "i-2", "token": "0123456789abcdef"}]}),
            json!({"devices": [{"id": "i-3"}]}),
        ),
    ];
    let mut first = Vec::new();
    for (path, body, _) in &creates {
        let made = keyed(&daemon, path, "the key", body);
        assert_eq!(made.status, 201, "{path}: {}", made.body);
        first.push(made.json());
    }
    let uploaded = daemon.admin().upload(
        "/api/v1/firmware",
        &["Idempotency-Key: k"],
        "a-1.0.0.bin",
        b"a",
        &[],
    );
    assert_eq!(uploaded.status, 201, "{}", uploaded.body);
    let deploy = json!({"firmware": uploaded.json()["id"], "target": {"all": true}});
    let deployed = keyed(&daemon, "deployments", "the key", &deploy);
    assert_eq!(deployed.status, 201, "{}", deployed.body);

    // As a script does whose connection broke, and whose daemon died, before it had the answer.
    for round in ["again", "after kill -9"] {
        if round == "after kill -9" {
            daemon.kill();
            daemon = site.start();
        }
        for ((path, body, other), first) in creates.iter().zip(&first) {
            let again = keyed(&daemon, path, "the key", body);
            assert_eq!(again.status, 200, "{path} {round}: {}", again.body);
            assert_eq!(again.json(), *first, "{path} {round}: with the secret that was made");
            let used = keyed(&daemon, path, "the key", other);
            assert_eq!(used.status, 409, "{path} {round}: {}", used.body);
            assert!(used.body.contains("Idempotency-Key"), "{}", used.body);
        }
        let upload = |bytes: &[u8]| {
            daemon.admin().upload(
                "/api/v1/firmware",
                &["Idempotency-Key: k"],
                "a-1.0.0.bin",
                bytes,
                &[],
            )
        };
        assert_eq!((upload(b"a").status, upload(b"b").status), (200, 409), "{round}");
        assert_eq!(keyed(&daemon, "deployments", "the key", &deploy).status, 200, "{round}");
        assert_eq!(daemon.admin().rows("devices").len(), 3, "{round}");
        assert_eq!(daemon.admin().rows("users").len(), 2, "{round}");
        assert_eq!(daemon.admin().rows("deployments").len(), 1, "{round}");
    }
    // What was made up works.
    let token = first[0]["token"].as_str().unwrap();
    assert!(Client::try_connect(daemon.mqtt(), &Connect::token(token)).is_ok());
    let token = first[2]["token"].as_str().unwrap();
    let by_bob = Admin::new(daemon.admin_address(), token);
    assert_eq!(by_bob.request("GET", "/api/v1/devices", None).status, 200);
    // Without a key, the same again is refused, and with another one too.
    let (path, body, _) = &creates[0];
    assert_eq!(post(&daemon.admin(), path, body).status, 409);
    assert_eq!(keyed(&daemon, path, "another key", body).status, 409);
    // What is gone is not said to be there.
    assert_eq!(daemon.admin().request("DELETE", "/api/v1/devices/pump-1", None).status, 204);
    let gone = keyed(&daemon, path, "the key", body);
    assert_eq!(gone.status, 409, "{}", gone.body);
    assert!(gone.body.contains("removed since"), "{}", gone.body);
    assert_eq!(keyed(&daemon, path, "", body).status, 422, "an empty key is none");
}

#[test]
fn two_at_once_with_one_key_make_one() {
    let site = Site::new();
    let daemon = site.start();
    let body = json!({"name": "ann", "role": "service"});
    let answers: Vec<_> = std::thread::scope(|scope| {
        let ask = || scope.spawn(|| keyed(&daemon, "users", "k", &body));
        let both: Vec<_> = (0..4).map(|_| ask()).collect();
        both.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 201]);
    assert!(answers.iter().all(|answer| answer.json() == answers[0].json()));
}

#[test]
fn the_audit_names_who_did_what_from_where() {
    let site = Site::new();
    let daemon = site.start();
    add_user(&daemon, "ann", "admin");
    let (id, token) = add_token(&daemon, "ann", &json!({"label": "laptop"}));
    let ann = Admin::new(daemon.admin_address(), &token);
    let ok = |method: &str, path: &str, body: Option<Value>| {
        let answer = ann.request(method, &format!("/api/v1/{path}"), body.as_ref());
        assert!(answer.status < 300, "{method} {path}: {}", answer.body);
    };
    ok("POST", "devices", Some(json!({"id": "pump-1"})));
    let patch = json!({"groups": ["b", "a"], "labels": {"hall": "2"}, "model": "x"});
    ok("PATCH", "devices/pump-1", Some(patch));
    ok("PATCH", "devices/pump-1", Some(json!({"rotate_token": true})));
    ok("DELETE", "devices/pump-1", None);
    ok("POST", "users", Some(json!({"name": "bob", "role": "service"})));
    ok("PATCH", "users/bob", Some(json!({"role": "operator", "new_password": true})));
    ok("DELETE", "users/bob", None);
    ok("POST", "import", Some(json!({"devices": [{"id": "i-1"}, {"id": "i-2"}]})));
    let mut client = Client::connect(daemon.mqtt(), &Connect::id("dashboard"));
    client.publish(&support::Publish::new("plant/a", "warm").qos(1).retained());
    ok("DELETE", "clients/dashboard", None);
    ok("DELETE", "retained?filter=plant/%23", None);
    let backup = site.path().join("backup");
    ok("POST", "backup", Some(json!({"path": backup.to_str().unwrap()})));

    let lines = eventually("all of it is written", || {
        let mut lines = daemon.admin().rows("audit");
        lines.reverse();
        (lines.len() == 13).then_some(lines)
    });
    let done: Vec<_> = lines
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            (text("action"), text("subject"), text("detail"))
        })
        .collect();
    let backup = backup.display().to_string();
    let token = format!("token {id}: laptop");
    let expected = [
        ("user added", "ann", "role admin"),
        ("token made", "ann", &token),
        ("registered", "pump-1", ""),
        ("changed", "pump-1", "groups b a, labels hall=2, model x"),
        ("token rotated", "pump-1", ""),
        ("removed", "pump-1", ""),
        ("user added", "bob", "role service"),
        ("user changed", "bob", "password, role operator"),
        ("user removed", "bob", ""),
        ("imported", "import", "2 devices, 0 users"),
        ("disconnected", "client dashboard", ""),
        ("removed", "retained messages", "plant/#: 1"),
        ("backed up", "site", &backup),
    ];
    let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(done, expected);
    let by_ann = json!(format!("ann (token {id})"));
    for (place, line) in lines.iter().enumerate() {
        let actor = if place < 2 { json!("admin token") } else { by_ann.clone() };
        assert_eq!((&line["actor"], &line["origin"]), (&actor, &json!("127.0.0.1")), "{line}");
    }
}
