use super::{login::set_cookie, *};
use crate::Settings;

fn doors(token: &str, file: Option<PathBuf>) -> Doors {
    Doors::new(&Settings {
        token: token.into(),
        listen: Vec::new(),
        allowed_hosts: Vec::new(),
        version: "0".into(),
        sessions: file,
        tls: false,
        connections: 256,
        show_life: Duration::from_secs(15),
    })
}

fn request(method: &str, headers: &[(&str, &str)]) -> Request {
    let mut request = axum::http::Request::builder().method(method).uri("/api/v1/devices");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(axum::body::Body::empty()).unwrap()
}

#[test]
fn a_session_survives_a_restart_and_ends_with_its_token() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sessions.json");
    let first = doors("0123456789abcdef", Some(file.clone()));
    let id = first.sessions().open(None, &first.token_stamp()).unwrap();
    assert!(first.sessions().find(&id, &first).is_some());
    let kept = fs::read_to_string(&file).unwrap();
    assert!(!kept.contains(&id), "the file logs nobody in: {kept}");
    let again = doors("0123456789abcdef", Some(file.clone()));
    assert!(again.sessions().find(&id, &again).is_some());
    let changed = doors("another token, 16", Some(file.clone()));
    assert!(changed.sessions().find(&id, &changed).is_none());
    let back = doors("0123456789abcdef", Some(file.clone()));
    assert!(back.sessions().find(&id, &back).is_none(), "it was found invalid, for good");
    fs::write(&file, "{").unwrap();
    assert!(doors("x", Some(file)).sessions().lock().is_empty());
}

#[test]
fn a_session_that_was_closed_or_is_old_is_over() {
    let doors = doors("0123456789abcdef", None);
    let id = doors.sessions().open(None, &doors.token_stamp()).unwrap();
    doors.sessions().close(&id);
    assert!(doors.sessions().find(&id, &doors).is_none());
    let id = doors.sessions().open(None, &doors.token_stamp()).unwrap();
    for one in doors.sessions().lock().values_mut() {
        one.created -= LIFE.as_secs();
    }
    assert!(doors.sessions().find(&id, &doors).is_none());
}

/// The disk is full, and the file of before would log in who logged out.
#[test]
fn a_session_that_was_closed_stays_so_where_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sessions.json");
    let first = doors("0123456789abcdef", Some(file.clone()));
    let id = first.sessions().open(None, &first.token_stamp()).unwrap();
    fs::create_dir(file.with_extension("new")).unwrap();
    first.sessions().close(&id);
    let again = doors("0123456789abcdef", Some(file));
    assert!(again.sessions().find(&id, &again).is_none());
}

#[test]
fn there_are_not_more_than_the_bound() {
    let doors = doors("0123456789abcdef", None);
    let first = doors.sessions().open(None, &doors.token_stamp()).unwrap();
    for one in doors.sessions().lock().values_mut() {
        one.used -= 10;
    }
    for user in 0..MOST {
        doors.sessions().open(Some(user.to_string()), &doors.token_stamp()).unwrap();
    }
    assert_eq!(doors.sessions().lock().len(), MOST);
    assert!(doors.sessions().find(&first, &doors).is_none(), "the one used longest ago");
}

#[test]
fn a_cookie_alone_changes_nothing_and_serves_no_other_origin() {
    let doors = doors("0123456789abcdef", None);
    let id = doors.sessions().open(None, &doors.token_stamp()).unwrap();
    let csrf = hex::encode(derive(&id, "csrf", &[]));
    let ours = format!("other=1; fuotad-8080={id}");
    let with = |method: &str, more: &[(&str, &str)]| {
        let mut headers = vec![("host", "localhost:8080"), ("cookie", ours.as_str())];
        headers.extend_from_slice(more);
        match of_request(&doors, &request(method, &headers)) {
            Ok(session) => session.map(|session| session.actor()),
            Err(problem) => Some(problem.status().to_string()),
        }
    };
    let actor = Some(ADMIN_TOKEN.to_owned());
    let forbidden = Some("403 Forbidden".to_owned());
    assert_eq!(with("GET", &[]), actor);
    assert_eq!(with("GET", &[("sec-fetch-site", "same-origin")]), actor);
    assert_eq!(with("GET", &[("sec-fetch-site", "same-site")]), forbidden, "another port");
    assert_eq!(with("GET", &[("sec-fetch-site", "cross-site")]), forbidden);
    assert_eq!(with("POST", &[]), forbidden);
    assert_eq!(with("DELETE", &[("x-csrf-token", &csrf[1..])]), forbidden);
    assert_eq!(with("POST", &[("x-csrf-token", &csrf)]), actor);
    assert_eq!(with("GET", &[("authorization", "Bearer x")]), None, "the header decides");
    let twice = [("host", "localhost:8080"), ("cookie", "fuotad-8080=a; fuotad-8080=b")];
    assert!(of_request(&doors, &request("GET", &twice)).unwrap().is_none());
    let wrong = [("host", "localhost:8080"), ("cookie", "fuotad-8080=a")];
    assert!(of_request(&doors, &request("GET", &wrong)).is_err());
}

#[test]
fn cookies_are_for_one_daemon_and_for_no_script() {
    let headers = |host: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        headers
    };
    for (host, name) in [
        ("localhost:8080", "fuotad-8080"),
        ("[::1]:9", "fuotad-9"),
        ("[::1]", "fuotad-default"),
        ("broker.example", "fuotad-default"),
    ] {
        assert_eq!(cookie_name(&headers(host)), name, "{host}");
    }
    let cookie = set_cookie(&headers("localhost:1"), "x", 5, true);
    assert_eq!(cookie, "fuotad-1=x; Path=/; Max-Age=5; HttpOnly; SameSite=Strict; Secure");
}

#[test]
fn one_user_ends_no_sessions_of_others() {
    let doors = doors("0123456789abcdef", None);
    let (sessions, stamp) = (doors.sessions(), doors.token_stamp());
    let admin = sessions.open(None, &stamp).unwrap();
    let mut own = Vec::new();
    for _ in 0..MOST {
        for one in sessions.lock().values_mut() {
            one.used -= 1;
        }
        own.push(sessions.open(Some("service".into()), &stamp).unwrap());
    }
    assert_eq!(sessions.lock().len(), OF_ONE + 1);
    assert!(sessions.find(&admin, &doors).is_some());
    let known = |id: &str| sessions.lock().contains_key(&derive(id, "id", &[]));
    assert!(!known(&own[0]) && known(own.last().unwrap()), "the newest are kept");
}
