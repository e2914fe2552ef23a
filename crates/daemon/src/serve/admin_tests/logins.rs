//! Logins of the page, the streams of events that end with them, and who hears what.

use super::*;

#[tokio::test]
async fn a_login_is_a_cookie_and_ends_with_the_password() {
    let interface = Interface::start().await;
    let url = |path: &str| format!("http://{}/api/v1/{path}", interface.address);
    let user = fuota::NewUser {
        name: "ann".into(),
        role: fuota::UserRole::Operator,
        password: Some(fuota::Password("correct horse".into())),
    };
    interface.service.add_user(user, None, &fuota::Actor::default()).await.unwrap();
    let login = |body: Value| interface.http.post(url("session")).json(&body).send();
    for wrong in [
        json!({"name": "ann", "password": "wrong"}),
        json!({"token": "wrong"}),
        json!({"name": "ann"}),
        json!({"token": TOKEN, "name": "ann", "password": "correct horse"}),
    ] {
        let answer = login(wrong.clone()).await.unwrap();
        assert!(answer.status().is_client_error(), "{wrong}: {}", answer.status());
        assert!(!answer.headers().contains_key("set-cookie"), "{wrong}");
    }
    let answer = login(json!({"name": "ann", "password": "correct horse"})).await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let view: Value = answer.json().await.unwrap();
    assert_eq!((&view["name"], &view["role"]), (&json!("ann"), &json!("operator")));
    let csrf = view["csrf"].as_str().unwrap().to_owned();

    let with = |method: Method, path: &str, csrf: &str| {
        let request = interface.http.request(method, url(path)).header("cookie", &cookie);
        request.header("x-csrf-token", csrf).send()
    };
    let status = async |method, path, csrf| with(method, path, csrf).await.unwrap().status();
    assert_eq!(status(Method::GET, "devices", "").await, StatusCode::OK);
    assert_eq!(status(Method::PUT, "freeze", "").await, StatusCode::FORBIDDEN);
    assert_eq!(status(Method::PUT, "freeze", &csrf).await, StatusCode::OK);
    assert_eq!(interface.service.frozen().by.as_deref(), Some("ann"), "who did it");
    assert_eq!(status(Method::GET, "users", &csrf).await, StatusCode::FORBIDDEN, "an operator");

    let patch = fuota::UserPatch { new_password: true, ..fuota::UserPatch::default() };
    interface.service.set_user("ann", patch, &fuota::Actor::default()).await.unwrap();
    assert_eq!(status(Method::GET, "devices", "").await, StatusCode::UNAUTHORIZED);
    let nobody: Value = with(Method::GET, "session", "").await.unwrap().json().await.unwrap();
    assert_eq!(nobody["role"], Value::Null);
}

/// Of 16 connections a login gets two for streams of events, and all together eight.
#[tokio::test]
async fn streams_of_events_leave_places_for_others() {
    let interface = Interface::start().await;
    for name in ["ann", "bob", "cid", "dan"] {
        let user = fuota::NewUser {
            name: name.into(),
            role: fuota::UserRole::Service,
            password: Some(fuota::Password("correct horse".into())),
        };
        interface.service.add_user(user, None, &fuota::Actor::default()).await.unwrap();
    }
    let listen = async |name: &str| {
        let url = format!("http://{}/api/v1/events", interface.address);
        let request = interface.http.get(url).basic_auth(name, Some("correct horse"));
        request.send().await.unwrap()
    };
    let mut streams = Vec::new();
    for name in ["ann", "ann", "bob", "bob", "cid", "cid"] {
        streams.push(listen(name).await);
    }
    let refused = listen("ann").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.text().await.unwrap().contains("2 at once for one login"));
    streams.push(listen("dan").await);
    streams.push(listen("dan").await);
    assert!(streams.iter().all(|stream| stream.status() == StatusCode::OK));
    let all = interface.problem(Method::GET, "/api/v1/events", None).await;
    assert_eq!(all.status, StatusCode::SERVICE_UNAVAILABLE);
    let frozen = interface.ask(Method::PUT, "/api/v1/freeze", None).await;
    assert_eq!(frozen.status, StatusCode::OK);
    // The server notices on its own time that one is gone.
    drop(streams);
    while listen("ann").await.status() != StatusCode::OK {
        tokio::task::yield_now().await;
    }
}

/// What a stream of events says, and its end.
struct Stream(reqwest::Response, String);

impl Stream {
    /// With this header; the place has been heard.
    async fn open(interface: &Interface, name: &str, value: &str) -> Stream {
        let url = format!("http://{}/api/v1/events", interface.address);
        let response = interface.http.get(url).header(name, value).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let mut stream = Stream(response, String::new());
        stream.until("id: ").await;
        stream
    }

    /// Hears until these words; false where it ends before.
    async fn until(&mut self, words: &str) -> bool {
        let hear = async {
            while !self.1.contains(words) {
                match self.0.chunk().await.unwrap() {
                    Some(chunk) => self.1 += std::str::from_utf8(&chunk).unwrap(),
                    None => return false,
                }
            }
            true
        };
        tokio::time::timeout(Duration::from_secs(20), hear).await.expect("it goes on for ever")
    }
}

fn new_user(name: &str, role: fuota::UserRole) -> fuota::NewUser {
    let password = Some(fuota::Password("correct horse".into()));
    fuota::NewUser { name: name.into(), role, password }
}

/// The cookie of a login at the page, and what its changes carry.
async fn log_in(interface: &Interface, name: &str) -> (String, String) {
    let url = format!("http://{}/api/v1/session", interface.address);
    let login = json!({"name": name, "password": "correct horse"});
    let answer = interface.http.post(url).json(&login).send().await.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap();
    let cookie = cookie.to_owned();
    let view: Value = answer.json().await.unwrap();
    (cookie, view["csrf"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_stream_of_events_ends_with_its_login() {
    let interface = Interface::start().await;
    let service = &interface.service;
    let actor = fuota::Actor::default();
    for name in ["ann", "bob", "cid", "dan"] {
        service.add_user(new_user(name, fuota::UserRole::Operator), None, &actor).await.unwrap();
    }
    let token = fuota::NewToken::default();
    let (token, _) = service.add_user_token("ann", token, None, &actor).await.unwrap();
    let bearer = format!("Bearer {}", token.token);
    let basic = |name: &str| {
        use base64::Engine as _;
        let login = format!("{name}:correct horse");
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login))
    };
    let (cookie, csrf) = log_in(&interface, "bob").await;
    let mut by_token = Stream::open(&interface, "authorization", &bearer).await;
    let mut by_cookie = Stream::open(&interface, "cookie", &cookie).await;
    let mut by_password = Stream::open(&interface, "authorization", &basic("cid")).await;
    let mut removed = Stream::open(&interface, "authorization", &basic("dan")).await;
    let add = async |id: &str| {
        let device = fuota::NewDevice { id: id.into(), ..fuota::NewDevice::default() };
        service.add_device(device, None, &actor).await.unwrap();
    };
    add("pump-1").await;
    for stream in [&mut by_token, &mut by_cookie, &mut by_password, &mut removed] {
        assert!(stream.until("pump-1").await);
    }

    service.remove_user_token("ann", &token.view.id, &actor).await.unwrap();
    let url = format!("http://{}/api/v1/session", interface.address);
    let out = interface.http.delete(url).header("cookie", &cookie).header("x-csrf-token", csrf);
    assert_eq!(out.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    let demoted =
        fuota::UserPatch { role: Some(fuota::UserRole::Service), ..fuota::UserPatch::default() };
    service.set_user("cid", demoted, &actor).await.unwrap();
    service.remove_user("dan", &actor).await.unwrap();
    add("pump-2").await;
    for stream in [&mut by_token, &mut by_cookie, &mut by_password, &mut removed] {
        assert!(!stream.until("pump-2").await, "{}", stream.1);
        assert!(!stream.1.contains("pump-2"));
    }
}

/// Nothing happens, and the login ends: so does the stream, when it would show life.
#[tokio::test]
async fn a_stream_that_hears_nothing_ends_with_its_login_too() {
    let interface = Interface::start().await;
    let (service, actor) = (&interface.service, fuota::Actor::default());
    service.add_user(new_user("ann", fuota::UserRole::Service), None, &actor).await.unwrap();
    let token = fuota::NewToken::default();
    let (token, _) = service.add_user_token("ann", token, None, &actor).await.unwrap();
    let bearer = format!("Bearer {}", token.token);
    let mut stream = Stream::open(&interface, "authorization", &bearer).await;
    assert!(stream.until("\n:").await, "a comment shows life");
    service.remove_user_token("ann", &token.view.id, &actor).await.unwrap();
    assert!(!stream.until("nothing of this").await);
}

#[tokio::test]
async fn a_form_that_brings_no_field_is_refused_and_a_large_image_is_not() {
    let interface = Interface::start().await;
    let head =
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"pump-2.0.0.bin\"\r\n";
    let (filler, end) = ("x".repeat(1 << 20), "\r\n\r\nx\r\n--b--\r\n");
    let preamble = format!("{filler}\r\n{head}{end}");
    let headers = format!("{head}X-Filler: {filler}{end}");
    let large = format!("{head}\r\n{}\r\n--b--\r\n", "y".repeat(8 << 20));
    for (form, status) in [(preamble, 413), (headers, 413), (large, 201)] {
        let mut socket = tokio::net::TcpStream::connect(interface.address).await.unwrap();
        let request = format!(
            "POST /api/v1/firmware HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n",
            interface.address,
            form.len()
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        // Beyond what is read before the answer nobody takes it.
        let (mut answers, mut form_to) = socket.split();
        let sending = form_to.write_all(form.as_bytes());
        let mut answer = [0; 12];
        let (_, answered) = tokio::join!(sending, answers.read_exact(&mut answer));
        answered.unwrap();
        assert_eq!(std::str::from_utf8(&answer[9..]).unwrap(), status.to_string());
    }
}

#[tokio::test]
async fn only_an_admin_hears_of_users() {
    let interface = Interface::start().await;
    let (service, actor) = (&interface.service, fuota::Actor::default());
    for (name, role) in [("ann", fuota::UserRole::Operator), ("bob", fuota::UserRole::Admin)] {
        service.add_user(new_user(name, role), None, &actor).await.unwrap();
    }
    let token = async |name: &str| {
        let made = service.add_user_token(name, fuota::NewToken::default(), None, &actor).await;
        format!("Bearer {}", made.unwrap().0.token)
    };
    let (ann, bob) = (token("ann").await, token("bob").await);
    let url = format!("http://{}/api/v1/events?type=user&follow=false", interface.address);
    for (login, status) in [(&ann, StatusCode::FORBIDDEN), (&bob, StatusCode::OK)] {
        let request = interface.http.get(&url).header("authorization", login);
        assert_eq!(request.send().await.unwrap().status(), status);
    }
    let mut hears = Stream::open(&interface, "authorization", &bob).await;
    let mut hears_not = Stream::open(&interface, "authorization", &ann).await;
    service.add_user(new_user("secret-cid", fuota::UserRole::Service), None, &actor).await.unwrap();
    let device = fuota::NewDevice { id: "pump-1".into(), ..fuota::NewDevice::default() };
    service.add_device(device, None, &actor).await.unwrap();
    assert!(hears.until("pump-1").await && hears_not.until("pump-1").await);
    assert!(hears.1.contains("secret-cid"));
    assert!(!hears_not.1.contains("secret-cid"), "{}", hears_not.1);
}
