//! Where the keys come from, and what the environment says besides.
//!
//! Environment variables are the process's, so the store is opened in a process of its own: this
//! test binary again, with the test at the end.

use std::convert::Infallible;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use store::S3Settings;
use tokio::net::TcpListener;

use super::s3::{self, S3Server};
use super::support::Site;

/// What the child expects to be told, one after the other.
const EXPECTED: &str = "TEST_EXPECTED";
/// Set where the settings name the endpoint, which is this.
const ENDPOINT: &str = "TEST_ENDPOINT";
/// Set where the settings name the key.
const KEY: &str = "TEST_KEY";

type Variables<'a> = &'a [(&'a str, &'a str)];

const KEYS: Variables<'static> =
    &[("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY_ID), ("AWS_SECRET_ACCESS_KEY", s3::SECRET_ACCESS_KEY)];

/// Runs the child with these variables alone.
async fn run(variables: &[Variables<'_>]) -> Output {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.env_clear().args(["--exact", "credentials::child", "--ignored", "--nocapture"]);
    child.env("AWS_REGION", "garage").env(EXPECTED, "pump.bin");
    child.envs(variables.iter().copied().flatten().copied());
    tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap()
}

async fn succeeds(variables: &[Variables<'_>]) {
    let output = run(variables).await;
    let (said, erred) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{erred}");
}

async fn fails(variables: &[Variables<'_>], words: &[&str]) {
    let output = run(variables).await;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
}

async fn server() -> S3Server {
    let server = S3Server::start().await;
    server.put("pump.bin", b"image");
    server
}

#[tokio::test]
async fn keys_come_from_the_usual_variables() {
    let server = server().await;
    let endpoint = server.endpoint();
    let plain = ("AWS_ALLOW_HTTP", "true");
    succeeds(&[KEYS, &[("AWS_ENDPOINT_URL", &endpoint), plain]]).await;
    // With a token, where they are those of a session.
    server.set_tokens(&["token-1"]);
    succeeds(&[
        KEYS,
        &[("AWS_ENDPOINT_URL_S3", &endpoint), plain, ("AWS_SESSION_TOKEN", "token-1")],
    ])
    .await;
    fails(&[KEYS, &[("AWS_ENDPOINT_URL", &endpoint), plain]], &["403"]).await;
}

#[tokio::test]
async fn settings_go_before_the_environment_as_a_whole() {
    let server = server().await;
    let foreign = &[
        ("AWS_ACCESS_KEY_ID", "another"),
        ("AWS_SECRET_ACCESS_KEY", "another"),
        ("AWS_SESSION_TOKEN", "of-another"),
        ("AWS_ENDPOINT_URL", "https://127.0.0.1:1"),
        ("AWS_ENDPOINT_URL_S3", "https://127.0.0.1:1"),
    ];
    succeeds(&[foreign, &[(ENDPOINT, &server.endpoint()), (KEY, "")]]).await;
}

#[tokio::test]
async fn an_endpoint_of_the_environment_is_plain_only_where_that_is_said() {
    let server = server().await;
    let endpoint = server.endpoint();
    for (allowed, also) in [(None, "AWS_ALLOW_HTTP=true"), (Some("false"), "store.s3.allow_http")] {
        let allowed: Vec<_> = allowed.map(|it| ("AWS_ALLOW_HTTP", it)).into_iter().collect();
        let endpoint: Variables = &[("AWS_ENDPOINT_URL", &endpoint)];
        fails(&[KEYS, endpoint, &allowed], &["is not encrypted", also]).await;
    }
    let nonsense = [("AWS_ENDPOINT_URL", &*endpoint), ("AWS_ALLOW_HTTP", "perhaps")];
    fails(&[KEYS, &nonsense], &["perhaps"]).await;
    // It is of the environment's own endpoint.
    let of_settings = [(ENDPOINT, &*endpoint), ("AWS_ALLOW_HTTP", "true"), ("TEST_HTTPS", "")];
    fails(&[KEYS, &of_settings], &["is not encrypted"]).await;
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_used() {
    let server = server().await;
    // A name that leads nowhere: only the proxy, which our server is as well, can be asked.
    let proxy = [("AWS_PROXY_URL", &*server.endpoint()), (ENDPOINT, "http://s3.invalid:3900")];
    succeeds(&[KEYS, &proxy]).await;
}

/// What gives keys to whoever runs on an instance, or in a container of it.
struct Metadata {
    endpoint: String,
    /// The session token of the keys. They have ended already, so that they are asked for each time.
    token: Arc<Mutex<&'static str>>,
}

impl Metadata {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let token = Arc::new(Mutex::new("token-1"));
        let shared = token.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let token = shared.clone();
                tokio::spawn(async move {
                    let answer = service_fn(move |request| {
                        let answer = metadata(&request, *token.lock().unwrap());
                        async { Ok::<_, Infallible>(answer) }
                    });
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(socket), answer).await;
                });
            }
        });
        Self { endpoint, token }
    }
}

fn metadata(request: &hyper::Request<Incoming>, token: &str) -> s3s::HttpResponse {
    const ROLES: &str = "/latest/meta-data/iam/security-credentials";
    let header = |name: &str| request.headers().get(name).and_then(|it| it.to_str().ok());
    let may = header("x-aws-ec2-metadata-token") == Some("of-this-instance");
    let in_a_container = header("authorization") == Some("of-this-container");
    let keys = format!(
        r#"{{"Code": "Success", "AccessKeyId": "{}", "SecretAccessKey": "{}", "Token": "{token}", "Expiration": "2001-01-01T00:00:00Z"}}"#,
        s3::ACCESS_KEY_ID,
        s3::SECRET_ACCESS_KEY
    );
    let body = match (request.method(), request.uri().path()) {
        (&Method::PUT, "/latest/api/token")
            if header("x-aws-ec2-metadata-token-ttl-seconds").is_some() =>
        {
            Some("of-this-instance".to_owned())
        }
        (&Method::GET, path) if may && path == format!("{ROLES}/") => Some("fuotad-role".into()),
        (&Method::GET, path) if may && path == format!("{ROLES}/fuotad-role") => Some(keys),
        (&Method::GET, "/container") if in_a_container => Some(keys),
        _ => None,
    };
    let mut response = s3s::HttpResponse::new(s3s::Body::from(body.clone().unwrap_or_default()));
    if body.is_none() {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
    }
    response
}

/// The keys of the role are used, with their token; and those that come after them, while it runs.
async fn follows_the_role(server: S3Server, role: Metadata, variables: &[(&str, &str)]) {
    server.set_tokens(&["token-1"]);
    let endpoint = server.endpoint();
    let place = [(ENDPOINT, &*endpoint), (EXPECTED, "pump.bin fan.bin")];
    let everything = [&place[..], variables];
    let renews = async {
        let asked_with = async |token: &str| loop {
            if server.requests().iter().any(|it| it.token.as_deref() == Some(token)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        asked_with("token-1").await;
        server.set_tokens(&["token-1", "token-2"]);
        *role.token.lock().unwrap() = "token-2";
        asked_with("token-2").await;
        server.set_tokens(&["token-2"]);
        server.put("fan.bin", b"fan");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = succeeds(&everything) => {}
        () = renews => {}
    }
}

#[tokio::test]
async fn an_instance_has_the_keys_of_its_role() {
    let (server, role) = (server().await, Metadata::start().await);
    let endpoint = role.endpoint.clone();
    follows_the_role(server, role, &[("AWS_METADATA_ENDPOINT", &endpoint)]).await;
}

#[tokio::test]
async fn a_container_has_the_keys_of_its_role() {
    let (server, role) = (server().await, Metadata::start().await);
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "of-this-container").unwrap();
    let uri = format!("{}/container", role.endpoint);
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*uri),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.to_str().unwrap()),
    ];
    follows_the_role(server, role, &variables).await;
}

#[tokio::test]
#[ignore = "run by the others in a process of its own"]
async fn child() {
    let set = |name: &str| std::env::var(name).ok();
    let key = set(KEY).map(|_| (s3::ACCESS_KEY_ID.to_owned(), s3::SECRET_ACCESS_KEY.to_owned()));
    let (access_key_id, secret_access_key) = key.unzip();
    let s3 = S3Settings {
        allow_http: set(ENDPOINT).is_some() && set("TEST_HTTPS").is_none(),
        endpoint: set(ENDPOINT),
        access_key_id,
        secret_access_key,
        retry_for: Duration::from_millis(300),
        ..S3Settings::default()
    };
    let from_environment = |settings: &mut store::Settings| {
        settings.url = format!("s3://{}", s3::BUCKET);
        settings.settle = Duration::ZERO;
        settings.poll_interval = Duration::from_millis(50);
        settings.s3 = s3;
    };
    let mut site = Site::prepare(from_environment, |_| {}, vec![]);
    for expected in set(EXPECTED).unwrap().split(' ') {
        assert_eq!(site.present().await.path, expected);
    }
}
