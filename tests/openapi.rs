//! The description of the admin interface against the running daemon: what it names is there,
//! what is there it names, and answers are as it says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use support::{
    Client, Connect, Daemon, Device, Publish, Site, eventually,
    http::{Admin, Response},
    image,
};

/// Methods that the server has by itself beside each GET, and after which it closes.
const IMPLIED: [&str; 2] = ["HEAD", "OPTIONS"];

fn description(daemon: &Daemon) -> Value {
    daemon.admin().get("/api/v1/openapi.json")
}

/// Each operation: its path, its method in capitals, and what is said of it.
fn operations(description: &Value) -> Vec<(String, String, Value)> {
    let paths = description["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter();
            methods.map(|(method, about)| (path.clone(), method.to_uppercase(), about.clone()))
        })
        .collect()
}

/// The address of a path whose variable parts are filled with names of nothing.
fn filled(path: &str) -> String {
    path.replace("{id}", "1").replace("{token}", "00000000")
}

#[test]
fn methods_are_those_that_are_described() {
    let site = Site::new();
    let daemon = site.start();
    let mut described: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, method, _) in operations(&description(&daemon)) {
        described.entry(path).or_default().insert(method);
    }
    for (path, methods) in described {
        let answer = daemon.admin().request("TRACE", &filled(&path), None);
        assert_eq!(answer.status, 405, "{path}: {}", answer.body);
        let allow = answer.header("allow").expect("Allow");
        let mut allowed: BTreeSet<_> =
            allow.split(',').map(|method| method.trim().to_owned()).collect();
        allowed.retain(|method| !IMPLIED.contains(&method.as_str()));
        assert_eq!(allowed, methods, "{path}");
    }
}

/// The least role that may do each: a service reads, an operator runs updates, an admin does all.
const OPEN: [&str; 5] = [
    "GET /healthz",
    "GET /readyz",
    "GET /api/v1/session",
    "POST /api/v1/session",
    "DELETE /api/v1/session",
];
const SERVICE: [&str; 19] = [
    "GET /metrics",
    "GET /api/v1/openapi.json",
    "GET /api/v1/devices",
    "GET /api/v1/devices/{id}",
    "GET /api/v1/devices/{id}/why",
    "GET /api/v1/devices/{id}/timeline",
    "GET /api/v1/firmware",
    "GET /api/v1/firmware/{id}",
    "GET /api/v1/deployments",
    "GET /api/v1/deployments/{id}",
    "GET /api/v1/deployments/{id}/devices",
    "GET /api/v1/deployments/{id}/history",
    "GET /api/v1/fleet",
    "GET /api/v1/freeze",
    "GET /api/v1/events",
    "GET /api/v1/clients",
    "GET /api/v1/clients/{id}",
    "GET /api/v1/retained",
    "GET /api/v1/status",
];
const OPERATOR: [&str; 14] = [
    "GET /api/v1/audit",
    "POST /api/v1/firmware",
    "POST /api/v1/firmware/rescan",
    "DELETE /api/v1/firmware/{id}",
    "POST /api/v1/deployments",
    "PATCH /api/v1/deployments/{id}",
    "POST /api/v1/deployments/{id}/approve",
    "POST /api/v1/deployments/{id}/pause",
    "POST /api/v1/deployments/{id}/resume",
    "POST /api/v1/deployments/{id}/cancel",
    "POST /api/v1/deployments/{id}/retry",
    "POST /api/v1/deployments/{id}/rollback",
    "PUT /api/v1/freeze",
    "DELETE /api/v1/freeze",
];
const ADMIN: [&str; 16] = [
    "POST /api/v1/devices",
    "PATCH /api/v1/devices/{id}",
    "DELETE /api/v1/devices/{id}",
    "POST /api/v1/devices/{id}/links",
    "GET /api/v1/users",
    "POST /api/v1/users",
    "GET /api/v1/users/{id}",
    "PATCH /api/v1/users/{id}",
    "DELETE /api/v1/users/{id}",
    "GET /api/v1/users/{id}/tokens",
    "POST /api/v1/users/{id}/tokens",
    "DELETE /api/v1/users/{id}/tokens/{token}",
    "POST /api/v1/import",
    "DELETE /api/v1/clients/{id}",
    "DELETE /api/v1/retained",
    "POST /api/v1/backup",
];

/// Every operation, by everybody who may and who may not, in each way to say who one is.
#[test]
fn each_operation_asks_for_its_role() {
    let site = Site::new();
    let daemon = site.start();
    let admin = daemon.admin();
    let (host, password) = (format!("Host: {}", daemon.admin_address()), "correct horse");
    let roles = ["service", "operator", "admin"];
    // The headers of a login: a token, the password, and the page's, with and without its proof.
    let mut logins: Vec<(usize, Vec<String>)> =
        vec![(roles.len() - 1, vec![format!("Authorization: Bearer {}", admin.token())])];
    let mut without_proof = Vec::new();
    for (place, role) in roles.iter().enumerate() {
        let user = json!({"name": role, "role": role, "password": password});
        assert_eq!(admin.request("POST", "/api/v1/users", Some(&user)).status, 201);
        let path = format!("/api/v1/users/{role}/tokens");
        let token = admin.request("POST", &path, Some(&json!({"label": "x"}))).json();
        logins.push((
            place,
            vec![format!("Authorization: Bearer {}", token["token"].as_str().unwrap())],
        ));
        let pair = STANDARD.encode(format!("{role}:{password}"));
        logins.push((place, vec![format!("Authorization: Basic {pair}")]));
        let login = json!({"name": role, "password": password}).to_string();
        let page = admin.raw("POST", "/api/v1/session", &[&host], Some(&login));
        let cookie = page.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        let csrf = page.json()["csrf"].as_str().unwrap().to_owned();
        let cookie = format!("Cookie: {cookie}");
        logins.push((place, vec![cookie.clone(), format!("X-CSRF-Token: {csrf}")]));
        without_proof.push((place, vec![cookie]));
    }
    let strangers = ["Authorization: Bearer wrong", "X-Nobody: 1"];
    for (path, method, _) in operations(&description(&daemon)) {
        let operation = format!("{method} {path}");
        let tables: [&[&str]; 4] = [&OPEN, &SERVICE, &OPERATOR, &ADMIN];
        let least = tables.iter().position(|table| table.contains(&&*operation));
        let least = least.unwrap_or_else(|| panic!("whose is {operation}?"));
        let ask = |headers: &[String]| {
            let mut all = vec![host.as_str()];
            all.extend(headers.iter().map(String::as_str));
            let query = if path.ends_with("/events") { "?follow=false" } else { "" };
            // Without a body: who may do it hears of that.
            admin.raw(&method, &format!("{}{query}", filled(&path)), &all, None).status
        };
        if least == 0 {
            continue;
        }
        for stranger in strangers {
            let status = ask(&[stranger.to_owned()]);
            assert_eq!(status, 401, "{operation} with {stranger}");
        }
        for (place, headers) in &logins {
            let status = ask(headers);
            assert_ne!(status, 401, "{operation} as {} with {headers:?}", roles[*place]);
            assert_eq!(
                status == 403,
                place + 1 < least,
                "{status}: {operation} as {} with {headers:?}",
                roles[*place]
            );
        }
        for (place, headers) in &without_proof {
            let status = ask(headers);
            let refused = place + 1 < least || method != "GET";
            assert_eq!(
                status == 403,
                refused,
                "{status}: {operation} as {} by its cookie alone",
                roles[*place]
            );
        }
    }
}

/// The names in a refusal of an unknown member: `a`, `b`.
fn expected(answer: &Response) -> BTreeSet<String> {
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("unknown field `no-such-member`"), "{detail}");
    let Some((_, names)) = detail.split_once(", expected ") else { return BTreeSet::new() };
    names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn resolve<'a>(description: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(target) => description.pointer(target.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

#[test]
fn members_that_the_server_takes_are_those_that_are_described() {
    let site = Site::new();
    let daemon = site.start();
    let description = description(&daemon);
    let (mut queries, mut bodies) = (0, 0);
    for (path, method, about) in operations(&description) {
        if ["/healthz", "/readyz"].contains(&path.as_str()) {
            continue; // whatever asks there wants an answer
        }
        let address = format!("{}?no-such-member=1", filled(&path));
        let answer = daemon.admin().request(&method, &address, None);
        assert_eq!(answer.status, 400, "{method} {path}: {}", answer.body);
        let parameters = about["parameters"].as_array().cloned().unwrap_or_default();
        let named = parameters.iter().filter(|one| one["in"] == "query");
        let named: BTreeSet<_> =
            named.map(|one| one["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(expected(&answer), named, "the query of {method} {path}");
        queries += 1;

        let body = &about["requestBody"]["content"]["application/json"]["schema"];
        if body.is_null() {
            continue;
        }
        let sent = json!({"no-such-member": 1});
        let answer = daemon.admin().request(&method, &filled(&path), Some(&sent));
        assert_eq!(answer.status, 400, "{method} {path}: {}", answer.body);
        let named = resolve(&description, body)["properties"].as_object().unwrap();
        assert_eq!(
            expected(&answer),
            named.keys().cloned().collect(),
            "the body of {method} {path}"
        );
        bodies += 1;
    }
    assert!(queries > 30 && bodies >= 8, "{queries} queries, {bodies} bodies");
}

/// Asks, and holds every answer to the description.
struct Checked {
    admin: Admin,
    description: Value,
    /// What was answered: method, path, status.
    seen: BTreeSet<(String, String, u16)>,
}

impl Checked {
    fn new(daemon: &Daemon) -> Checked {
        Checked { admin: daemon.admin(), description: description(daemon), seen: BTreeSet::new() }
    }

    /// A request to `path`, whose variable parts are `ids`.
    fn ask(
        &mut self,
        method: &str,
        path: &str,
        ids: &[&str],
        query: &str,
        body: Option<&Value>,
    ) -> Response {
        let mut address = path.to_owned();
        for (name, id) in ["{id}", "{token}"].iter().zip(ids) {
            address = address.replace(name, id);
        }
        let answer = self.admin.request(method, &(address + query), body);
        self.check(method, path, &answer);
        answer
    }

    /// The same, and the status that it must have.
    fn must(
        &mut self,
        status: u16,
        (method, path): (&str, &str),
        ids: &[&str],
        query: &str,
        body: Option<Value>,
    ) -> Value {
        let answer = self.ask(method, path, ids, query, body.as_ref());
        assert_eq!(answer.status, status, "{method} {path} {ids:?}{query}: {}", answer.body);
        let is_json = answer.header("content-type").is_some_and(|kind| kind.contains("json"));
        if is_json { answer.json() } else { Value::Null }
    }

    /// Holds an answer to what is described for its operation and status.
    fn check(&mut self, method: &str, path: &str, answer: &Response) {
        let what = format!("{method} {path} -> {}", answer.status);
        let operation = &self.description["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{what}: not described");
        let described = &operation["responses"][answer.status.to_string()];
        assert!(described.is_object(), "{what}: no such answer is described: {}", answer.body);
        let described = resolve(&self.description, described);
        for (name, header) in described["headers"].as_object().into_iter().flatten() {
            let is_there = answer.header(name).is_some();
            assert!(is_there || header["required"] != true, "{what}: no header {name}");
        }
        self.seen.insert((method.into(), path.into(), answer.status));
        let Some(content) = described["content"].as_object() else {
            assert_eq!(answer.body, "", "{what}: a body that is not described");
            return;
        };
        let kind = answer.header("content-type").expect("Content-Type");
        let kind = kind.split(';').next().unwrap();
        let described =
            content.get(kind).unwrap_or_else(|| panic!("{what}: {kind} is not described"));
        let schema = &described["schema"];
        match kind {
            "text/event-stream" => {
                for event in events(&answer.body) {
                    self.validate(schema, &event, &what);
                    if let Some(data) = event["data"].as_str() {
                        let data = serde_json::from_str(data).expect("JSON in data");
                        let schema = &schema["properties"]["data"]["contentSchema"];
                        self.validate(schema, &data, &what);
                    }
                }
            }
            kind if kind.ends_with("json") => self.validate(schema, &answer.json(), &what),
            _ => self.validate(schema, &answer.body.clone().into(), &what),
        }
    }

    fn validate(&self, schema: &Value, value: &Value, what: &str) {
        let mut schema = schema.clone();
        schema["components"] = self.description["components"].clone();
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let wrong: Vec<_> = validator
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(wrong.is_empty(), "{what}: {value} is not as described: {wrong:#?}");
    }
}

/// The events of a stream, each as an object of its fields.
fn events(stream: &str) -> Vec<Value> {
    let blocks = stream.split("\n\n").filter(|block| !block.trim().is_empty());
    let field = |line: &str| {
        let (name, value) = line.split_once(": ").expect("a field");
        (name.to_owned(), Value::from(value))
    };
    blocks.map(|block| block.lines().map(field).collect::<serde_json::Map<_, _>>().into()).collect()
}

#[test]
fn answers_are_as_they_are_described() {
    let mut site = Site::new();
    site.set("fuota.confirm_after", "\"100ms\"");
    site.drop_file("pump-1.4.2.bin", &image(1, 5_000));
    site.drop_file("attic/lost.bin", &image(2, 10));
    let daemon = site.start();
    let mut api = Checked::new(&daemon);
    let all = "/api/v1";
    let path = |rest: &str| format!("{all}/{rest}");

    for health in ["/healthz", "/readyz", "/metrics"] {
        api.must_text(health);
    }
    let session = path("session");
    api.must(200, ("GET", &session), &[], "", None);
    let login = json!({"token": daemon.admin().token()});
    api.must(201, ("POST", &session), &[], "", Some(login));
    api.must(401, ("POST", &session), &[], "", Some(json!({"token": "wrong"})));
    api.must(400, ("POST", &session), &[], "", Some(json!({"name": "ann"})));
    api.must(204, ("DELETE", &session), &[], "", None);
    api.must(200, ("GET", &path("fleet")), &[], "", None);
    // Devices.
    let devices = path("devices");
    let new = json!({"id": "pump-1", "groups": ["hall-2"], "labels": {"floor": "1"}, "model": "x"});
    api.must(204, ("POST", &devices), &[], "?dry_run=true", Some(new.clone()));
    api.must(201, ("POST", &devices), &[], "", Some(new.clone()));
    api.must(409, ("POST", &devices), &[], "", Some(new));
    api.must(422, ("POST", &devices), &[], "", Some(json!({"id": "a b"})));
    api.must(400, ("POST", &devices), &[], "", Some(json!({})));
    api.must(400, ("GET", &devices), &[], "?limit=0", None);
    api.must(400, ("GET", &devices), &[], "?state=flying", None);
    let one = path("devices/{id}");
    let rotate = json!({"rotate_token": true, "now": true, "model": "", "groups": []});
    api.must(200, ("PATCH", &one), &["pump-1"], "", Some(rotate));
    api.must(404, ("PATCH", &one), &["nobody"], "", Some(json!({})));
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-9"));
    device.expect_update(&image(1, 5_000));
    let done = eventually("the device is done", || {
        let one = daemon.admin().get("/api/v1/devices/pump-9");
        (one["state"] == "downloaded").then_some(one)
    });
    assert_eq!(done["firmware"]["version"], "1.4.2");
    api.must(200, ("GET", &one), &["pump-9"], "", None);
    api.must(404, ("GET", &one), &["nobody"], "", None);
    let listed = api.must(200, ("GET", &devices), &[], "?limit=1", None);
    assert_eq!(listed["next"], "pump-1");
    api.must(200, ("GET", &path("devices/{id}/why")), &["pump-9"], "", None);
    api.must(200, ("GET", &path("devices/{id}/timeline")), &["pump-9"], "?limit=2", None);

    let links = path("devices/{id}/links");
    api.must(200, ("POST", &links), &["pump-9"], "", Some(json!({"seconds": 60})));
    api.must(422, ("POST", &links), &["pump-9"], "", Some(json!({"seconds": 0})));
    api.must(404, ("POST", &links), &["nobody"], "", Some(json!({"seconds": 60})));

    // Users and their tokens.
    let users = path("users");
    let ann = json!({"name": "ann", "role": "operator"});
    api.must(201, ("POST", &users), &[], "", Some(ann.clone()));
    api.must(409, ("POST", &users), &[], "", Some(ann));
    api.must(422, ("POST", &users), &[], "", Some(json!({"name": "Token", "role": "admin"})));
    api.must(200, ("GET", &users), &[], "", None);
    let user = path("users/{id}");
    api.must(200, ("GET", &user), &["ann"], "", None);
    api.must(200, ("PATCH", &user), &["ann"], "", Some(json!({"new_password": true})));
    let tokens = path("users/{id}/tokens");
    let made = json!({"label": "ci", "expires_in_days": 1});
    let made = api.must(201, ("POST", &tokens), &["ann"], "", Some(made));
    api.must(200, ("GET", &tokens), &["ann"], "", None);
    api.must(404, ("GET", &tokens), &["bob"], "", None);
    let (token, id) = (made["token"].as_str().unwrap(), made["id"].as_str().unwrap());
    let mut by_ann =
        Checked { admin: Admin::new(daemon.admin_address(), token), ..Checked::new(&daemon) };
    by_ann.must(403, ("POST", &devices), &[], "", Some(json!({"id": "x"})));
    by_ann.must(200, ("PUT", &path("freeze")), &[], "", None);
    api.must(204, ("DELETE", &path("users/{id}/tokens/{token}")), &["ann", id], "", None);
    api.must(404, ("DELETE", &path("users/{id}/tokens/{token}")), &["ann", id], "", None);
    by_ann.must(401, ("GET", &devices), &[], "", None);

    // Import.
    let import = path("import");
    let hash =
        "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21l$KsXQl0KTMGnYYZ6yKpDNZBs2RjFkmzvTxNNnQW8rQ0c";
    let rows = json!({"devices": [{"id": "i-1"}], "users": [{"name": "bob", "role": "service", "password_hash": hash}]});
    api.must(204, ("POST", &import), &[], "?dry_run=true", Some(rows.clone()));
    api.must(201, ("POST", &import), &[], "", Some(rows.clone()));
    api.must(422, ("POST", &import), &[], "", Some(rows));

    // Firmware and deployments.
    let firmware = path("firmware");
    let uploaded = upload(&daemon, "valve-2.0.0.bin", b"valve");
    api.check("POST", &firmware, &uploaded);
    assert_eq!(uploaded.status, 201, "{}", uploaded.body);
    api.check("POST", &firmware, &upload(&daemon, "valve-2.0.0.bin", b"valve"));
    api.check("POST", &firmware, &upload(&daemon, "valve-2.0.0.bin", b"other"));
    let file = uploaded.json()["id"].as_str().unwrap().to_owned();
    let listed = api.must(200, ("GET", &firmware), &[], "", None);
    assert_eq!(listed["firmware"].as_array().unwrap().len(), 3);
    api.must(200, ("GET", &path("firmware/{id}")), &[&file], "", None);
    api.must(200, ("POST", &path("firmware/rescan")), &[], "", None);
    api.must(404, ("GET", &path("firmware/{id}")), &["0000000000000000"], "", None);
    let deployments = path("deployments");
    let new = json!({"firmware": file, "target": {"labels": "floor=1"}, "rollout": "canary"});
    api.must(200, ("POST", &deployments), &[], "?dry_run=true", Some(new.clone()));
    let made = api.must(201, ("POST", &deployments), &[], "", Some(new.clone()));
    api.must(409, ("POST", &deployments), &[], "", Some(new));
    let wrong = json!({"firmware": file, "target": {"labels": "floor="}});
    api.must(422, ("POST", &deployments), &[], "", Some(wrong));
    let id = made["id"].as_str().unwrap().to_owned();
    api.must(200, ("GET", &deployments), &[], "?state=running", None);
    api.must(200, ("GET", &path("deployments/{id}")), &[&id], "", None);
    api.must(404, ("GET", &path("deployments/{id}")), &["99"], "", None);
    let change = |patch| (("PATCH", path("deployments/{id}")), patch);
    for (status, ((method, path), patch)) in [
        (200, change(json!({"windows": ["01:00-02:00 UTC"], "limits": {"transfers": 5}}))),
        (
            200,
            change(json!({"windows": null, "limits": {"transfers": null}, "pause_at_percent": 10})),
        ),
        (200, change(json!({}))),
        (422, change(json!({"windows": ["sometimes"]}))),
        (422, change(json!({"limits": {"transfers": 0}}))),
        (422, change(json!({"pause_at_percent": 101}))),
        (400, change(json!({"limits": null}))),
        (400, change(json!({"colour": 1}))),
    ] {
        api.must(status, (method, &path), &[&id], "", Some(patch));
    }
    api.must(404, ("PATCH", &path("deployments/{id}")), &["99"], "", Some(json!({})));
    api.must(200, ("GET", &path("deployments/{id}/devices")), &["1"], "", None);
    api.must(200, ("POST", &path("firmware/rescan")), &[], "", None);
    api.must(200, ("GET", &path("deployments/{id}/history")), &["1"], "", None);
    // Each deployment has one address.
    for id in ["01", "+1", "%2B1"] {
        for rest in ["", "/devices", "/history"] {
            api.must(404, ("GET", &path(&format!("deployments/{{id}}{rest}"))), &[id], "", None);
        }
    }
    for (act, status) in [
        ("pause", 200),
        ("approve", 409),
        ("resume", 200),
        ("approve", 200),
        ("retry", 200),
        ("rollback", 200),
        ("cancel", 409),
    ] {
        api.must(status, ("POST", &path(&format!("deployments/{{id}}/{act}"))), &[&id], "", None);
    }
    let cancel = path("deployments/{id}/cancel");
    api.must(404, ("POST", &cancel), &["1"], "?device=nobody", None);
    api.must(409, ("POST", &cancel), &["1"], "?device=pump-9", None);
    api.must(200, ("POST", &cancel), &["1"], "", None);
    api.must(204, ("DELETE", &path("firmware/{id}")), &[&file], "", None);

    // The site.
    api.must(200, ("GET", &path("freeze")), &[], "", None);
    api.must(200, ("PUT", &path("freeze")), &[], "", None);
    api.must(200, ("DELETE", &path("freeze")), &[], "", None);
    api.must(200, ("GET", &path("status")), &[], "", None);
    api.must(200, ("GET", &path("audit")), &[], "?limit=100", None);
    api.must(200, ("GET", &path("openapi.json")), &[], "", None);
    api.must(200, ("GET", &path("events")), &[], "?follow=false", None);
    api.must(400, ("GET", &path("events")), &[], "?type=weather", None);
    let backup = json!({"path": site.path().join("backup").to_str().unwrap()});
    api.must(201, ("POST", &path("backup")), &[], "", Some(backup.clone()));
    api.must(422, ("POST", &path("backup")), &[], "", Some(backup));

    // The broker.
    let mut client = Client::connect(daemon.mqtt(), &Connect::id("dashboard").v5());
    client.subscribe("plant/#", 1);
    for payload in [&b"warm"[..], &[0xff]] {
        client
            .publish(&Publish::new(&format!("plant/{}", payload.len()), payload).qos(1).retained());
    }
    api.must(200, ("GET", &path("clients")), &[], "?connected=true", None);
    api.must(200, ("GET", &path("clients/{id}")), &["dashboard"], "", None);
    api.must(204, ("DELETE", &path("clients/{id}")), &["dashboard"], "", None);
    api.must(404, ("DELETE", &path("clients/{id}")), &["nobody"], "", None);
    let listed = api.must(200, ("GET", &path("retained")), &[], "?filter=plant/%23", None);
    assert_eq!(listed["retained"].as_array().unwrap().len(), 2);
    api.must(422, ("GET", &path("retained")), &[], "?filter=a%23", None);
    api.must(200, ("DELETE", &path("retained")), &[], "?filter=plant/%23", None);

    api.must(204, ("DELETE", &one), &["pump-1"], "", None);
    api.must(204, ("DELETE", &user), &["ann"], "", None);

    let missing: Vec<_> = operations(&api.description)
        .into_iter()
        .filter(|(path, method, _)| {
            let good =
                |(m, p, status): &(String, String, u16)| m == method && p == path && *status < 300;
            !api.seen.iter().any(good)
        })
        .map(|(path, method, _)| format!("{method} {path}"))
        .collect();
    assert!(missing.is_empty(), "never answered well: {missing:?}");
}

impl Checked {
    fn must_text(&mut self, path: &str) {
        let answer = self.ask("GET", path, &[], "", None);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
}

fn upload(daemon: &Daemon, name: &str, bytes: &[u8]) -> Response {
    daemon.admin().upload("/api/v1/firmware", &[], name, bytes, &[])
}
