//! Devices, firmware, clients, retained messages, readiness: over REST.

use super::*;

#[tokio::test]
async fn a_device_from_registration_to_rotation() {
    let interface = Interface::start().await;
    let new =
        json!({"id": "pump-1", "groups": ["b", "a"], "labels": {"floor": "2"}, "model": "P1"});
    let added = interface.ask(Method::POST, "/api/v1/devices", Some(new.clone())).await;
    assert_eq!(added.status, StatusCode::CREATED, "{}", added.body);
    assert_eq!(added.headers["location"], "/api/v1/devices/pump-1");
    assert_eq!(added.headers["cache-control"], "no-store", "it carries a token");
    let token = added.body["token"].as_str().unwrap().to_owned();

    let one = interface.get("/api/v1/devices/pump-1").await;
    assert_eq!(one["model"], "P1");
    assert_eq!(one["labels"], json!({"floor": "2"}));
    assert_eq!(one["online"], false);
    assert!(!one.to_string().contains(&token));

    let path = "/api/v1/devices/pump-1";
    let changed = interface.ask(Method::PATCH, path, Some(json!({"model": "P2"}))).await;
    assert_eq!(changed.status, StatusCode::OK);
    assert_eq!(changed.body["model"], "P2");
    assert_eq!(changed.body["labels"], json!({"floor": "2"}), "what is not named stays");
    assert!(changed.body.get("token").is_none());
    let rotated = interface.ask(Method::PATCH, path, Some(json!({"rotate_token": true}))).await;
    assert_ne!(rotated.body["token"].as_str().unwrap(), token);

    let again = interface.problem(Method::POST, "/api/v1/devices", Some(new)).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn devices_come_in_pages_and_by_filter() {
    let interface = Interface::start().await;
    for (id, group) in [("d1", "odd"), ("d2", "even"), ("d3", "odd"), ("d4", "even"), ("d5", "odd")]
    {
        let new = json!({"id": id, "groups": [group]});
        let added = interface.ask(Method::POST, "/api/v1/devices", Some(new)).await;
        assert_eq!(added.status, StatusCode::CREATED);
    }
    let (mut ids, mut path) = (Vec::new(), "/api/v1/devices?limit=2".to_owned());
    loop {
        let page = interface.get(&path).await;
        ids.extend(page["devices"].as_array().unwrap().iter().map(|device| device["id"].clone()));
        match page["next"].as_str() {
            Some(next) => path = format!("/api/v1/devices?limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!(ids, ["d1", "d2", "d3", "d4", "d5"]);
    let odd = interface.get("/api/v1/devices?group=odd&limit=3").await;
    assert_eq!(odd["devices"].as_array().unwrap().len(), 3);
    assert_eq!(odd["next"], Value::Null, "a full last page promises no other");
    assert_eq!(interface.get("/api/v1/devices?online=true").await["devices"], json!([]));
    assert_eq!(interface.get("/api/v1/devices?search=D9").await["devices"], json!([]));
    for query in ["limit=0", "limit=1001", "limit=x", "colour=red", "online=perhaps"] {
        let path = format!("/api/v1/devices?{query}");
        let answer = interface.problem(Method::GET, &path, None).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_device_names_the_field() {
    let interface = Interface::start().await;
    for (body, status, part) in [
        (json!({"id": "a b"}), 422, "id"),
        (json!({"id": "a", "groups": ["x y"]}), 422, "groups"),
        (json!({"id": "a", "model": "x y"}), 422, "model"),
        (json!({"id": "a", "token": "short"}), 422, "token"),
        (json!({"id": 5}), 400, "id"),
        (json!({}), 400, "id"),
        (json!({"id": "a", "colour": 1}), 400, "colour"),
        (json!([]), 400, "body"),
    ] {
        let answer = interface.problem(Method::POST, "/api/v1/devices", Some(body.clone())).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.body);
        assert!(answer.body["detail"].as_str().unwrap().contains(part), "{body}: {}", answer.body);
        if status == 422 {
            assert_eq!(answer.body["field"], part, "{body}");
        }
    }
    let unknown = interface.problem(Method::PATCH, "/api/v1/devices/nobody", Some(json!({}))).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn firmware_is_listed_with_what_was_refused() {
    let interface = Interface::start().await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while interface.service.firmware().len() < 2 {
        assert!(tokio::time::Instant::now() < deadline, "the files are found");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let listed = interface.get("/api/v1/firmware").await;
    let files = listed["firmware"].as_array().unwrap();
    let by_path = |start: &str| {
        let is_it = |file: &&Value| file["path"].as_str().unwrap().starts_with(start);
        files.iter().find(is_it).unwrap_or_else(|| panic!("no {start} in {listed}")).clone()
    };
    let pump = by_path("pump-1.0.0.bin");
    assert_eq!(pump["state"], "accepted");
    assert_eq!(pump["version"], json!({"value": "1.0.0", "from": "file name"}));
    let lost = by_path("attic");
    assert_eq!(lost["state"], "refused");
    assert!(lost["reason"].as_str().unwrap().contains("folder"), "{lost}");
    let id = pump["id"].as_str().unwrap();
    assert_eq!(interface.get(&format!("/api/v1/firmware/{id}")).await, pump);
    let first = interface.get("/api/v1/firmware?limit=1").await;
    let next = first["next"].as_str().unwrap();
    let second = interface.get(&format!("/api/v1/firmware?limit=1&after={next}")).await;
    assert_eq!(second["next"], Value::Null);
    assert_ne!(first["firmware"], second["firmware"]);
}

#[tokio::test]
async fn clients_are_listed_shown_and_disconnected() {
    let interface = Interface::start().await;
    let listed = interface.get("/api/v1/clients").await;
    let ids: Vec<&Value> =
        listed["clients"].as_array().unwrap().iter().map(|client| &client["id"]).collect();
    assert_eq!(ids, ["a/b c", "away", "dashboard"], "in order");
    assert!(listed["clients"][0].get("subscriptions").is_none(), "a list stays bounded");
    let one = interface.get("/api/v1/clients/a%2Fb%20c").await;
    assert_eq!(
        one,
        json!({
            "id": "a/b c", "connected": true, "name": "hall", "role": "service", "protocol": "5",
            "address": "192.0.2.1:5000", "since_seconds": 90, "idle_seconds": 3,
            "queued_messages": 4, "queued_bytes": 500, "inflight": 2, "subscription_count": 1,
            "subscriptions": [{"filter": "plant/#", "qos": 1}],
        })
    );
    let away = interface.get("/api/v1/clients?connected=false").await;
    assert_eq!(away["clients"].as_array().unwrap().len(), 1);
    let some = interface.get("/api/v1/clients?prefix=a&limit=1").await;
    assert_eq!((&some["clients"][0]["id"], &some["next"]), (&json!("a/b c"), &json!("a/b c")));
    let rest = interface.get("/api/v1/clients?prefix=a&limit=1&after=a%2Fb%20c").await;
    assert_eq!((&rest["clients"][0]["id"], &rest["next"]), (&json!("away"), &Value::Null));

    let gone = interface.ask(Method::DELETE, "/api/v1/clients/a%2Fb%20c", None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let disconnected = interface.broker.disconnected.lock().unwrap().clone();
    assert_eq!(disconnected, [("a/b c".to_owned(), ReasonKind::AdministrativeAction)]);
    for path in ["/api/v1/clients/away", "/api/v1/clients/nobody"] {
        let answer = interface.problem(Method::DELETE, path, None).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn retained_messages_are_listed_in_pages_and_removed_by_filter() {
    let interface = Interface::start().await;
    let message = |topic: &str, payload: &[u8]| RetainedMessage {
        topic: topic.into(),
        payload: Bytes::copy_from_slice(payload),
        qos: Qos::AtLeastOnce,
        expires_in: (topic == "c").then_some(60),
    };
    let large = vec![b'x'; 3 << 20];
    *interface.broker.retained.lock().unwrap() = vec![
        message("a", "größe".as_bytes()),
        message("b", &[0xff, 0]),
        message("c", b"1"),
        message("d", &large),
        message("e", &large),
        message("f", b"2"),
    ];
    let all = interface.get("/api/v1/retained").await;
    assert_eq!(
        all["retained"].as_array().unwrap()[..3],
        [
            json!({"topic": "a", "qos": 1, "size": 7, "expires_in_seconds": null,
                   "encoding": "utf-8", "payload": "größe"}),
            json!({"topic": "b", "qos": 1, "size": 2, "expires_in_seconds": null,
                   "encoding": "base64", "payload": "/wA="}),
            json!({"topic": "c", "qos": 1, "size": 1, "expires_in_seconds": 60,
                   "encoding": "utf-8", "payload": "1"}),
        ]
    );
    let topics = |page: &Value| -> Vec<String> {
        let rows = page["retained"].as_array().unwrap();
        rows.iter().map(|row| row["topic"].as_str().unwrap().to_owned()).collect()
    };
    // A page ends where it would grow too large, and goes on with the next one.
    assert_eq!((topics(&all).join(""), &all["next"]), ("abcd".into(), &json!("d")));
    let rest = interface.get("/api/v1/retained?after=d").await;
    assert_eq!((topics(&rest).join(""), &rest["next"]), ("ef".into(), &Value::Null));
    let one = interface.get("/api/v1/retained?limit=3").await;
    assert_eq!((topics(&one).join(""), &one["next"]), ("abc".into(), &json!("c")));

    let wrong = interface.problem(Method::GET, "/api/v1/retained?filter=a%23", None).await;
    assert_eq!(
        (wrong.status, &wrong.body["field"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("filter"))
    );
    let missing = interface.problem(Method::DELETE, "/api/v1/retained", None).await;
    assert_eq!(missing.status, StatusCode::BAD_REQUEST, "{}", missing.body);
    let busy = interface.problem(Method::DELETE, "/api/v1/retained?filter=x", None).await;
    assert_eq!(busy.status, StatusCode::SERVICE_UNAVAILABLE);
    let removed = interface.ask(Method::DELETE, "/api/v1/retained?filter=%23", None).await;
    assert_eq!((removed.status, removed.body), (StatusCode::OK, json!({"removed": 6})));
}

#[tokio::test]
async fn nothing_there_and_not_like_that() {
    let interface = Interface::start().await;
    for path in [
        "/index.html",
        "/api",
        "/api/",
        "/api/v1",
        "/api/v1/nothing",
        "/api/v2/devices",
        "/nothing",
    ] {
        let answer = interface.problem(Method::GET, path, None).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    for (method, path) in [
        (Method::DELETE, "/api/v1/status"),
        (Method::PUT, "/api/v1/devices"),
        (Method::POST, "/healthz"),
    ] {
        let answer = interface.problem(method, path, None).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert!(answer.headers["allow"].to_str().unwrap().contains("GET"), "{path}");
    }
    let bad = interface.problem(Method::GET, "/api/v1/devices/%ff", None).await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    // Without the token, an address that does not exist is told from none that does.
    let url = format!("http://{}/api/v1/nothing", interface.address);
    let answer = interface.http.get(url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(answer.headers()["www-authenticate"], "Bearer realm=\"fuotad\"");
}

#[tokio::test]
async fn readiness_has_its_reasons() {
    let interface = Interface::start().await;
    let url = |path: &str| format!("http://{}{path}", interface.address);
    let ready = interface.http.get(url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::OK, "and it needs no token");
    *interface.problem.lock().unwrap() = Some("the disk is gone".to_owned());
    let ready = interface.http.get(url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body: Value = ready.json().await.unwrap();
    assert_eq!(
        body,
        json!({"ready": false, "checks": [
            {"name": "mqtt", "ok": true},
            {"name": "store", "ok": false, "reason": "the disk is gone"},
        ]})
    );
    let health = interface.http.get(url("/healthz")).send().await.unwrap();
    assert_eq!(health.status(), StatusCode::OK, "the process lives all the same");
    let status = interface.get("/api/v1/status").await;
    assert_eq!(status["version"], "1.2.3");
    assert_eq!(status["ready"], false);
    assert_eq!(status["broker"]["connections"], 7);
    assert_eq!(status["broker"]["router_renewals"], 1);
    assert!(status["fuota"]["devices"]["total"].is_u64(), "{status}");
}

#[tokio::test]
async fn the_page_is_open_and_the_metrics_are_not() {
    let interface = Interface::start().await;
    let get = |path: &str| interface.http.get(format!("http://{}{path}", interface.address));
    let page = get("/").send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    assert_eq!(get("/metrics").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let metrics = get("/metrics").bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(metrics.status(), StatusCode::OK);
    let text = metrics.text().await.unwrap();
    assert!(text.contains("\nfuotad_mqtt_connections 7\n"), "{text}");
    let user = fuota::NewUser {
        name: "prometheus".into(),
        role: fuota::UserRole::Service,
        password: Some(fuota::Password("correct horse".into())),
    };
    interface.service.add_user(user, None, &fuota::Actor::default()).await.unwrap();
    let as_user = get("/metrics").basic_auth("prometheus", Some("correct horse"));
    assert_eq!(as_user.send().await.unwrap().status(), StatusCode::OK);
}
