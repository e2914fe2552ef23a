//! Updates that an operator starts with the reference's messages (rules 24 and 27).

use hook::{Identity, Origin, PublishVerdict, Role};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::harness::{Session, Site, TOPIC, request};

/// An HTTP server on loopback that gives this answer to everybody, and its address.
async fn server(answer: impl Into<Vec<u8>>) -> String {
    let answer = answer.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await.unwrap());
                }
                socket.write_all(&answer).await.unwrap();
            });
        }
    });
    format!("http://{address}")
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn account(site: &Site, role: Role) -> Session {
    let identity = Identity { name: Some("ann".into()), role };
    site.session(request("form"), identity, u32::MAX, &[])
}

fn file(url: &str, device: Option<&str>) -> Value {
    let mut file = json!({"variable": "firmware_file", "metadata": {"file": {"url": url}}});
    if let Some(device) = device {
        file["device"] = device.into();
    }
    file
}

/// The next answer: its text and its type.
async fn answer(operator: &mut Session) -> (String, String) {
    let message = operator.next().await;
    assert_eq!(message["variable"], "firmware_validation", "{message}");
    let metadata = &message["metadata"];
    assert_eq!((&metadata["user_id"], &metadata["session_id"]), (&json!("ann"), &json!("form")));
    assert_eq!(metadata["show_markdown"], false);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&message["value"]), text(&metadata["type"]))
}

async fn calculating(operator: &mut Session) {
    assert_eq!(answer(operator).await, ("Calculating file size...".into(), "warning".into()));
}

async fn open_site() -> Site {
    Site::with(|settings| settings.fetch_allow = vec!["127.0.0.0/8".parse().unwrap()]).await
}

#[tokio::test]
async fn rule_27_an_operator_starts_an_update_from_an_address() {
    let site = open_site().await;
    let (mut device, mut other) = (site.listening("dev-1").await, site.listening("dev-2").await);
    let mut operator = account(&site, Role::Operator);
    let url = format!("{}/files/pump.bin", server(ok(&[7; 250])).await);
    let message = json!([
        // What signs the address is shown to nobody.
        file(&format!("{url}?X-Amz-Signature=5ecret"), Some("dev-1")),
        {"variable": "firmware_version", "value": "1.4.0"},
        {"variable": "note", "value": "ours"},
    ]);
    let verdict = operator.publish(message.to_string());
    let PublishVerdict::Replace(rest) = verdict else { panic!("{verdict:?}") };
    assert_eq!(rest.payload.unwrap(), r#"[{"value":"ours","variable":"note"}]"#);
    calculating(&mut operator).await;
    let ready = "Ready: 250 bytes (3 chunks). Manifest Sent.";
    assert_eq!(answer(&mut operator).await, (ready.into(), "success".into()));
    assert_eq!(device.manifest().await["version"], "1.4.0");
    assert_eq!(device.download(0, 3).await, [7; 250]);
    other.nothing();
    let parameters = site.service.device("dev-1").unwrap().parameters.unwrap();
    assert_eq!(
        serde_json::to_value(&parameters).unwrap(),
        json!({"ota_url": url, "ota_size": 250, "ota_chunks": 3})
    );
    let view = site.service.deployment(1).unwrap();
    assert_eq!((&*view.created_by, view.target.device.as_deref()), ("ann", Some("dev-1")));

    // The same again, to a device that has it: whoever names the device means it. And the same
    // name with other bytes, as a form sends it; the parameters are replaced.
    operator.publish_to("fuota/devices/dev-1/down", file(&url, None).to_string(), Origin::Live);
    calculating(&mut operator).await;
    assert_eq!(answer(&mut operator).await.0, ready);
    device.manifest().await;
    device.download(0, 3).await;
    let url = format!("{}/files/pump.bin", server(ok(&[8; 101])).await);
    operator.publish_to("fuota/devices/dev-1/down", file(&url, None).to_string(), Origin::Live);
    calculating(&mut operator).await;
    let ready = "Ready: 101 bytes (2 chunks). Manifest Sent.";
    assert_eq!(answer(&mut operator).await, (ready.into(), "success".into()));
    device.manifest().await;
    assert_eq!(device.download(0, 2).await, [8; 101]);
    let parameters = site.service.device("dev-1").unwrap().parameters.unwrap();
    assert_eq!((parameters.ota_url, parameters.ota_size), (url, 101));
    // They are known after a crash.
    let before = site.service.device("dev-1").unwrap().parameters;
    site.until_written("dev-1", "downloaded").await;
    let site = site.crash().await;
    assert_eq!(site.service.device("dev-1").unwrap().parameters, before);
}

#[tokio::test]
async fn rule_27_an_upload_of_this_server_needs_no_permission() {
    let site = Site::start().await;
    let firmware = site.upload("pump-1.0.0.bin", &[1; 250]).await;
    let mut operator = account(&site, Role::Admin);
    for url in [
        format!("https://fuotad.example:8080/api/v1/firmware/{firmware}"),
        "uploads/pump-1.0.0.bin".into(),
        firmware,
    ] {
        let mut device = site.listening("dev-1").await;
        operator.publish(file(&url, Some("dev-1")).to_string());
        calculating(&mut operator).await;
        let (text, tone) = answer(&mut operator).await;
        assert_eq!((&*text, &*tone), ("Ready: 250 bytes (3 chunks). Manifest Sent.", "success"));
        device.manifest().await;
        device.download(0, 3).await;
        device.end();
    }
    // A device that is away gets it when it is back, and nothing is claimed.
    operator.publish(file("uploads/pump-1.0.0.bin", Some("dev-1")).to_string());
    calculating(&mut operator).await;
    let (text, tone) = answer(&mut operator).await;
    assert!(text.starts_with("Ready: 250 bytes (3 chunks). The manifest follows: dev-1"), "{text}");
    assert_eq!(tone, "warning");
    site.listening("dev-1").await.manifest().await;
}

#[tokio::test]
async fn rule_27_what_cannot_be_fetched_says_so_and_reaches_nobody() {
    let site = open_site().await;
    let mut device = site.listening("dev-1").await;
    let mut operator = account(&site, Role::Operator);
    let redirect = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let huge = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
    let broken = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nonly this";
    let missing = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let no_size = "Error: Could not determine file size.";
    for (url, reason) in [
        ("ftp://127.0.0.1/x".to_owned(), "only http and https"),
        ("nonsense".into(), "no address"),
        ("http://user:pass@127.0.0.1/x".into(), "no password"),
        ("http://[::1]:1/x".into(), "not in fuota.fetch_allow"),
        ("http://127.0.0.1:1/x".into(), "no answer"),
        (server(redirect).await, "redirects"),
        (server(huge).await, "store.max_size"),
        (server(broken).await, "broke off"),
        (server(missing).await, "404"),
        (server(ok(b"")).await, "empty"),
    ] {
        operator.publish(file(&url, Some("dev-1")).to_string());
        calculating(&mut operator).await;
        let message = operator.next().await;
        assert_eq!(message["value"], no_size, "{url}");
        assert_eq!(message["metadata"]["type"], "danger");
        let why = message["metadata"]["reason"].as_str().unwrap();
        assert!(why.contains(reason), "{url}: {why}");
    }
    for (message, text) in [
        (json!({"variable": "firmware_file", "device": "dev-1"}), "File URL not found."),
        (file("http://127.0.0.1/x", Some("nobody")), "Internal Error. There is no device nobody."),
        (file("http://127.0.0.1/x", None), "Internal Error. no device is named"),
    ] {
        operator.publish(message.to_string());
        calculating(&mut operator).await;
        let (said, tone) = answer(&mut operator).await;
        assert!(said.starts_with(text), "{said}");
        assert_eq!(tone, "danger");
    }
    let two = file("http://127.0.0.1/x", Some("dev-2")).to_string();
    operator.publish_to("fuota/devices/dev-1/down", two, Origin::Live);
    calculating(&mut operator).await;
    assert!(answer(&mut operator).await.0.contains("the topic names dev-1, and the message dev-2"));
    device.nothing();
    assert!(site.service.firmware().is_empty());
    // Nothing is fetched where nothing is allowed.
    let site = site.restart(|settings| settings.fetch_allow.clear()).await;
    let mut device = site.listening("dev-1").await;
    let mut operator = account(&site, Role::Operator);
    operator.publish(file(&server(ok(&[1; 9])).await, Some("dev-1")).to_string());
    calculating(&mut operator).await;
    let message = operator.next().await;
    assert!(message["metadata"]["reason"].as_str().unwrap().contains("fetch_allow is empty"));
    device.nothing();
}

#[tokio::test]
async fn rule_27_nobody_else_starts_an_update() {
    let site = open_site().await;
    let mut device = site.listening("dev-1").await;
    let order = file(&server(ok(&[1; 9])).await, Some("dev-1")).to_string();
    let mut senders = vec![
        account(&site, Role::Service),
        account(&site, Role::Device),
        account(&site, Role::Anonymous),
        site.connect("dev-2").await,
    ];
    let mut refused = 0;
    for sender in &mut senders {
        for topic in [TOPIC, "fuota/devices/dev-1/down"] {
            for origin in [Origin::Live, Origin::Will] {
                let verdict = sender.publish_to(topic, &order, origin);
                assert!(matches!(verdict, PublishVerdict::Reject(_)), "{topic} {verdict:?}");
                refused += 1;
            }
        }
        sender.nothing();
    }
    // Nor an operator's will, nor one with something hidden beside it.
    let mut operator = account(&site, Role::Operator);
    let hidden = format!(r#"[{order},{{"variable":"firmware_block","value":0}}]"#);
    for (payload, origin) in [(&order, Origin::Will), (&hidden, Origin::Live)] {
        let verdict = operator.publish_to(TOPIC, payload, origin);
        assert!(matches!(verdict, PublishVerdict::Reject(_)), "{verdict:?}");
        refused += 1;
    }
    assert_eq!(site.service.status().refused, refused);
    operator.nothing();
    device.nothing();
    assert!(site.service.deployments(None, None, 10).is_empty());
}

#[tokio::test]
async fn an_order_is_over_when_its_device_runs_it_or_another_follows() {
    let site = Site::start().await;
    let mut operator = account(&site, Role::Operator);
    let mut order = async |firmware: &str, device: &str| {
        operator.publish(file(firmware, Some(device)).to_string());
        calculating(&mut operator).await;
        answer(&mut operator).await
    };
    let (one, two) = (
        site.upload("pump-1.0.0.bin", &[1; 250]).await,
        site.upload("pump-2.0.0.bin", &[2; 250]).await,
    );
    let mut devices = Vec::new();
    for id in ["dev-1", "dev-2"] {
        devices.push(site.listening(id).await);
        order(&one, id).await;
    }
    for device in &mut devices {
        device.manifest().await;
        device.download(0, 3).await;
    }
    devices[0].publish(r#"{"variable":"firmware_status","metadata":{"version":"1.0.0"}}"#);
    site.until_state("dev-1", "updated").await;
    // The second has not shown yet that it runs it; the next one is for it.
    order(&two, "dev-2").await;
    let state = |id| {
        let view = site.service.deployment(id).unwrap();
        (view.state, view.reason.unwrap_or_default())
    };
    assert_eq!(state(1), ("ended", "its device runs it".into()));
    assert_eq!(state(2), ("ended", "another order for the device followed it".into()));
    assert_eq!(state(3).0, "running");
    assert_eq!(devices[1].manifest().await["version"], "2.0.0");
}
