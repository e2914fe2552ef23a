//! Downloads over HTTP, with curl where it is there and by hand in any case.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
};

use serde_json::json;

use crate::support::{Client, Connect, Daemon, PATIENCE, Site, eventually, image, sha256};

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// One request on a connection of its own.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[String],
    body: &str,
) -> Answer {
    let mut stream = TcpStream::connect(address).expect("the listener");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{lines}\r\n{body}").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
    Answer { status: head[9..12].parse().unwrap(), head, body: bytes[end..].to_vec() }
}

fn get(address: SocketAddr, path: &str, headers: &[&str]) -> Answer {
    let headers: Vec<String> = headers.iter().map(|&line| line.to_owned()).collect();
    request(address, "GET", path, &headers, "")
}

pub fn site() -> Site {
    let mut site = Site::new();
    site.set("http.listen", "\"127.0.0.1:0\"");
    site
}

#[test]
fn ranges_conditions_and_what_is_past_the_end() {
    let bytes = image(1, 300_000);
    let site = site();
    site.drop_file("pump-1.4.2.bin", &bytes);
    let daemon = site.start();
    let http = daemon.address_after("downloads listening on http://");
    let path = "/devices/dev-1/firmware";
    let state = || daemon.admin().get("/api/v1/devices/dev-1");
    let etag = format!("\"{}\"", sha256(&bytes));

    let head = request(http, "HEAD", path, &[], "");
    assert_eq!((head.status, head.header("content-length")), (200, Some("300000")));
    assert_eq!((head.header("etag"), head.body.len()), (Some(&*etag), 0));
    assert_eq!(state()["progress"]["chunks_sent"], 0);

    let part = get(http, path, &["Range: bytes=100-199999"]);
    assert_eq!((part.status, part.header("content-range")), (206, Some("bytes 100-199999/300000")));
    assert!(part.body == bytes[100..200_000]);
    let past = get(http, path, &["Range: bytes=300000-"]);
    assert_eq!((past.status, past.header("content-range")), (416, Some("bytes */300000")));
    assert_eq!(get(http, path, &[&format!("If-None-Match: {etag}")]).status, 304);
    let other = get(http, path, &["Range: bytes=5-9", "If-Range: \"another\""]);
    assert_eq!((other.status, other.body.len()), (200, 300_000));
    assert!(other.body == bytes);
    assert_eq!(other.header("x-firmware-version"), Some("1.4.2"));
    eventually("downloaded", || (state()["state"] == "downloaded").then_some(()));
    assert_eq!(state()["dialect"], "http");

    let said = request(http, "POST", "/devices/dev-1/status", &[], r#"{"version":"1.4.2"}"#);
    assert_eq!(said.status, 204);
    eventually("updated", || (state()["state"] == "updated").then_some(()));
    assert_eq!(get(http, path, &[]).status, 204, "it has it");
    for (body, status) in [
        ("nonsense", 400),
        ("[]", 400),
        (r#" ["7.7.7"]"#, 400),
        (r#"{"version":""}"#, 400),
        (r#"{"version":" "}"#, 400),
        (r#"{"state":"well"}"#, 400),
        (r#" {"model":"m"}"#, 204),
        ("{}", 204),
    ] {
        let answer = request(http, "POST", "/devices/dev-1/status", &[], body);
        assert_eq!(answer.status, status, "{body}");
    }
    assert_eq!(state()["version"], "1.4.2");
}

#[test]
fn a_device_amid_an_image_hears_that_the_update_is_over() {
    let bytes = image(3, 300_000);
    let site = site();
    site.drop_file("pump-1.4.2.bin", &bytes);
    let daemon = site.start();
    let http = daemon.address_after("downloads listening on http://");
    let path = "/devices/dev-1/firmware";
    assert_eq!(get(http, path, &["Range: bytes=0-99999"]).status, 206);
    let cancelled = daemon.admin().request("POST", "/api/v1/deployments/1/cancel", None);
    assert_eq!(cancelled.status, 200, "{}", cancelled.body);
    let tag = format!("\"{}\"", sha256(&bytes));
    let (is, of) = (format!("If-Match: {tag}"), format!("If-Range: {tag}"));
    for headers in [
        &["Range: bytes=100000-"][..],
        &["Range: bytes=100000-", &is],
        &["Range: bytes=100000-", &of],
        &[&is],
    ] {
        let answer = get(http, path, headers);
        let said: serde_json::Value = serde_json::from_slice(&answer.body).expect("a problem");
        assert_eq!(answer.status, 410, "{headers:?}");
        assert!(said["detail"].as_str().unwrap().contains("cancelled"), "{said}");
    }
    // Whoever asks anew is told that there is nothing.
    for headers in [&[][..], &["Range: bytes=0-"]] {
        assert_eq!(get(http, path, headers).status, 204, "{headers:?}");
    }
}

#[test]
fn whatever_is_wrong_with_an_address_is_said_as_a_problem() {
    let site = site();
    let daemon = site.start();
    let http = daemon.address_after("downloads listening on http://");
    let signature = "0".repeat(64);
    let link = |end: &str| format!("/links/d1/{end}/{signature}");
    for (method, path, status) in [
        ("GET", link("abc"), 400),
        ("GET", link("-1"), 400),
        ("GET", link("100000000000000000000000"), 400),
        ("GET", "/links/%ff/1/2".to_owned(), 400),
        ("GET", "/devices/%ff/firmware".to_owned(), 400),
        ("POST", "/devices/%ff/status".to_owned(), 400),
        ("POST", "/devices/d1/firmware".to_owned(), 405),
        ("DELETE", "/devices/d1/status".to_owned(), 405),
        ("GET", "/nope".to_owned(), 404),
    ] {
        let answer = request(http, method, &path, &[], "");
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
        let said: serde_json::Value = serde_json::from_slice(&answer.body).expect("a problem");
        assert!(said["detail"].as_str().is_some_and(|text| text.len() > 10), "{said}");
    }
    let nope = daemon.admin().request("GET", "/api/v1/nope", None);
    assert!(nope.body.contains("nothing at /api/v1/nope"), "{}", nope.body);
}

#[test]
fn what_is_put_up_with_is_counted() {
    let bytes = image(7, 5000);
    let site = site();
    site.drop_file("pump-1.4.2.bin", &bytes);
    let daemon = site.start();
    let http = daemon.address_after("downloads listening on http://");
    let path = "/devices/dev-1/firmware";
    for headers in [
        &["Range: bytes=9-5"][..],
        &["Range: lines=0-1"],
        &["Range: bytes=0-1,5-6"],
        &["Range: bytes=0-1", "If-Range: Wed, 21 Oct 2015 07:28:00 GMT"],
    ] {
        let answer = get(http, path, headers);
        assert_eq!((answer.status, answer.body.len()), (200, 5000), "{headers:?}");
    }
    let spaced = get(http, path, &["Range: bytes= 100 - 199"]);
    assert_eq!((spaced.status, spaced.body), (206, bytes[100..200].to_vec()));
    let head = request(http, "HEAD", path, &["Range: bytes=0-1".into()], "");
    assert_eq!((head.status, head.header("content-length")), (200, Some("5000")));
    let report = |kind: &str| {
        let headers = [format!("Content-Type: {kind}")];
        request(http, "POST", "/devices/dev-1/status", &headers, "{}").status
    };
    assert_eq!(report("application/x-www-form-urlencoded"), 204);
    // These are as they should be.
    assert_eq!(report("application/json; charset=utf-8"), 204);
    assert_eq!(get(http, path, &["Range: bytes=0-1"]).status, 206);
    assert_eq!(get(http, path, &["Range: bytes=5000-"]).status, 416);
    let metrics = daemon.admin().request("GET", "/metrics", None).body;
    for quirk in [
        "range_malformed",
        "range_of_another_unit",
        "several_ranges",
        "if_range_not_a_tag",
        "range_with_spaces",
        "range_without_get",
        "report_not_called_json",
    ] {
        let line = format!("fuotad_dialect_quirks_total{{dialect=\"http\",quirk=\"{quirk}\"}} 1\n");
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
}

#[test]
fn parts_of_two_responses_make_a_whole_delivery() {
    let bytes = image(2, 200_000);
    let site = site();
    site.drop_file("pump-1.0.0.bin", &bytes);
    let daemon = site.start();
    let http = daemon.address_after("downloads listening on http://");
    let state = || daemon.admin().get("/api/v1/devices/dev-1");
    let path = "/devices/dev-1/firmware";
    let first = get(http, path, &["Range: bytes=0-99999"]);
    assert_eq!(state()["state"], "downloading");
    // Resumed after a restart of the server, in the middle of a block of its own counting.
    daemon.stop();
    let daemon = site.start();
    let http = daemon.address_after("downloads listening on http://");
    let state = || daemon.admin().get("/api/v1/devices/dev-1");
    let rest = get(http, path, &["Range: bytes=100000-"]);
    assert!([first.body, rest.body].concat() == bytes);
    eventually("downloaded", || (state()["state"] == "downloaded").then_some(()));
}

#[test]
fn a_device_leaves_places_for_others_and_gets_its_own_back() {
    let site = site();
    // More than sockets hold, so that a response that nobody reads lasts.
    site.drop_file("pump-1.4.2.bin", &image(9, 32 << 20));
    let daemon = site.start();
    let http = daemon.address_after("downloads listening on http://");
    let open = || {
        let mut stream = TcpStream::connect(http).expect("the listener");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /devices/dev-1/firmware HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        (stream, String::from_utf8_lossy(&status[9..]).parse::<u16>().unwrap())
    };
    let mut taken: Vec<_> = (0..8).map(|_| open()).collect();
    assert!(taken.iter().all(|(_, status)| *status == 200));
    let report = |id: &str| {
        request(http, "POST", &format!("/devices/{id}/status"), &[], r#"{"version":"1"}"#)
    };
    let refused = report("dev-1");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    assert_eq!(report("dev-2").status, 204);
    taken.pop();
    eventually("a place is free", || (report("dev-1").status == 204).then_some(()));
}

#[test]
fn a_token_or_a_signed_link_opens_and_nothing_else() {
    let bytes = image(3, 5000);
    let mut site = site();
    site.set("auth.mode", "\"token\"").set("fuota.drop_rollout", "\"all\"");
    site.set("fuota.on_existing", "\"deploy\"");
    site.drop_file("pump-1.0.0.bin", &bytes);
    let daemon = site.start();
    let http = daemon.address_after("downloads listening on http://");
    let admin = daemon.admin();
    let add = |id: &str| {
        let answer = admin.request("POST", "/api/v1/devices", Some(&json!({ "id": id })));
        answer.json()["token"].as_str().unwrap().to_owned()
    };
    let (one, two) = (add("dev-1"), add("dev-2"));
    let path = "/devices/dev-1/firmware";
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    assert_eq!(get(http, path, &[&bearer(&one)]).body, bytes);
    for (header, status) in [
        (bearer(&two), 401),
        (bearer(admin.token()), 401),
        (bearer("x"), 401),
        ("Authorization: Nonsense".into(), 401),
        ("X: y".into(), 401),
    ] {
        assert_eq!(get(http, path, &[&header]).status, status, "{header}");
    }
    // Nothing of the admin interface is here.
    for path in ["/api/v1/devices", "/healthz", "/"] {
        assert_eq!(get(http, path, &[&bearer(admin.token())]).status, 404);
    }
    let answer =
        admin.request("POST", "/api/v1/devices/dev-2/links", Some(&json!({ "seconds": 60 })));
    let link = answer.json()["path"].as_str().unwrap().to_owned();
    assert_eq!(get(http, &link, &[]).body, bytes);
    let parts: Vec<&str> = link.split('/').collect();
    let expires: u64 = parts[3].parse().unwrap();
    for (forged, status) in [
        (link.replace("dev-2", "dev-1"), 403),
        (link.replace(parts[3], &(expires + 1).to_string()), 403),
        (link.replace(parts[4], &"0".repeat(64)), 403),
        (format!("{link}0"), 403),
        (link.replace(parts[3], "x"), 400),
    ] {
        assert_eq!(get(http, &forged, &[]).status, status, "{forged}");
    }
    let wrong =
        admin.request("POST", "/api/v1/devices/dev-2/links", Some(&json!({ "seconds": 0 })));
    assert_eq!(wrong.status, 422);
    let short =
        admin.request("POST", "/api/v1/devices/dev-2/links", Some(&json!({ "seconds": 1 })));
    let link = short.json()["path"].as_str().unwrap().to_owned();
    eventually("the link ends", || (get(http, &link, &[]).status == 410).then_some(()));
}

#[test]
fn a_link_that_is_made_again_with_the_same_key_is_the_same() {
    let site = site();
    let daemon = site.start();
    let body = json!({ "id": "dev-1" });
    assert_eq!(daemon.admin().request("POST", "/api/v1/devices", Some(&body)).status, 201);
    let link = |daemon: &Daemon, key: &str, seconds: u64| {
        let admin = daemon.admin();
        let headers = [
            format!("Host: {}", daemon.admin_address()),
            format!("Authorization: Bearer {}", admin.token()),
            format!("Idempotency-Key: {key}"),
        ];
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        let body = json!({ "seconds": seconds }).to_string();
        admin.raw("POST", "/api/v1/devices/dev-1/links", &headers, Some(&body))
    };
    let first = link(&daemon, "k", 600);
    assert_eq!(first.status, 200, "{}", first.body);
    // A link of another second is another one.
    let mut number = 0;
    eventually("another second", || {
        number += 1;
        (link(&daemon, &number.to_string(), 600).body != first.body).then_some(())
    });
    assert_eq!(link(&daemon, "k", 600).body, first.body);
    daemon.kill();
    let daemon = site.start();
    assert_eq!(link(&daemon, "k", 600).body, first.body);
    assert_eq!(link(&daemon, "k", 601).status, 409);
    assert_eq!(link(&daemon, "", 600).status, 422);
}

#[test]
fn a_replaced_image_is_never_mixed_with_the_old_one() {
    let (old, new) = (image(4, 100_000), image(5, 100_000));
    let site = site();
    site.drop_file("pump-1.0.0.bin", &old);
    let daemon = site.start();
    let http = daemon.address_after("downloads listening on http://");
    let path = "/devices/dev-1/firmware";
    let first = get(http, path, &["Range: bytes=0-999"]);
    let etag = first.header("etag").unwrap().to_owned();
    site.drop_file("pump-1.0.0.bin", &new);
    let condition = format!("If-Range: {etag}");
    let whole = eventually("the new image", || {
        let answer = get(http, path, &["Range: bytes=1000-1999", &condition]);
        (answer.status == 200).then_some(answer)
    });
    assert!(whole.body == new);
}

#[test]
fn curl_resumes_and_gets_the_image() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: no curl here");
        return;
    }
    // More parts than the server has ready at once.
    let bytes = image(6, 3_000_000);
    let site = site();
    site.drop_file("pump-1.0.0.bin", &bytes);
    let daemon = site.start();
    let http = daemon.address_after("downloads listening on http://");
    let url = format!("http://{http}/devices/dev-1/firmware");
    let file = site.path().join("image");
    std::fs::write(&file, &bytes[..123_457]).unwrap();
    let curl = Command::new("curl")
        .args(["--silent", "--fail", "--continue-at", "-", "--output"])
        .arg(&file)
        .arg(&url)
        .status();
    assert!(curl.unwrap().success());
    assert!(std::fs::read(&file).unwrap() == bytes);
    // By now all of it is in memory.
    for id in ["dev-2", "dev-3"] {
        let whole = get(http, &format!("/devices/{id}/firmware"), &[]);
        assert!(whole.status == 200 && whole.body == bytes, "{id}");
    }
    // What curl had already was not served by this server: 30 blocks and a part of the next. An
    // MQTT connection of the same device knows of it.
    let mut device = Client::connect(daemon.mqtt(), &Connect::id("dev-1"));
    device.ping();
    let state = daemon.admin().get("/api/v1/devices/dev-1");
    assert_eq!(
        state["progress"]["chunks_sent"],
        state["progress"]["chunks_total"].as_u64().unwrap() - 31,
        "{state}"
    );
}
