//! The command line against itself and against servers that misbehave.

use super::*;
use crate::config::Secret;
use api::Api;
use clap::CommandFactory as _;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn commands_as_people_type_them() {
    for line in [
        "fuotad",
        "fuotad serve",
        "fuotad --config x.toml",
        "fuotad serve --config x.toml",
        "fuotad check-config --json",
        "fuotad simulate --devices 50 --window 16 --loss 0.1 --protocol 5 --timeout 30s",
        "fuotad device add pump-1 --group hall --label floor=2 --model P1 --json",
        "fuotad device list --online --json --url http://127.0.0.1:1 --token-file t",
        "fuotad device set pump-1 --no-groups --rotate-token --now",
        "fuotad device why pump-1",
        "fuotad device timeline pump-1 --json",
        "fuotad firmware list --json",
        "fuotad firmware upload pump-1.4.2.bin --title pump --model P1",
        "fuotad firmware withdraw pump-1.4.2.bin",
        "fuotad deployment list --state paused --json",
        "fuotad deployment show 3 --watch",
        "fuotad deployment create pump-1.4.2.bin --labels hall=2 --rollout 1,10%,100% --pause-at 3",
        "fuotad deployment plan pump-1.4.2.bin --all",
        "fuotad deployment approve 3",
        "fuotad deployment retry 3 --device pump-1",
        "fuotad deployment set 3 --max-transfers 5",
        "fuotad deployment cancel 3",
        "fuotad deployment cancel 3 --device pump-1",
        "fuotad deployment rollback 3 --json",
        "fuotad freeze",
        "fuotad unfreeze --json",
        "fuotad client list",
        "fuotad client list --prefix pump- --away --json",
        "fuotad client disconnect pump-1",
        "fuotad retained list --json",
        "fuotad retained list plant/#",
        "fuotad retained show plant/x",
        "fuotad retained delete plant/# --yes --json",
        "fuotad status --json --config x.toml",
    ] {
        Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    for line in [
        "fuotad device add",
        "fuotad device set pump-1 --now",
        "fuotad device set pump-1 --group a --no-groups",
        "fuotad device list --online --offline",
        "fuotad device add pump-1 --label nonsense",
        "fuotad simulate --pace 5",
        "fuotad simulate --expect-sha256 abc",
        "fuotad client list --connected --away",
        "fuotad retained delete",
        "fuotad deployment create pump-1.4.2.bin",
        "fuotad deployment create pump-1.4.2.bin --all --group g",
        "fuotad deployment create pump-1.4.2.bin --all --rollout some",
        "fuotad fly",
    ] {
        assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
    }
}

/// Answers each connection with the next of these responses and keeps what was asked.
async fn server(answers: Vec<String>) -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                let mut buffer = [0; 1024];
                let n = socket.read(&mut buffer).await.unwrap();
                request.extend_from_slice(&buffer[..n]);
            }
            asked.push(String::from_utf8(request).unwrap());
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    });
    (address, task)
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn api(address: SocketAddr) -> Api {
    // As in main: TLS needs one provider even where only http is spoken.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Api::with(&format!("http://{address}"), Secret::new("secret".into()), None).unwrap()
}

#[tokio::test]
async fn a_listing_follows_its_pages_and_shows_the_token_in_the_header_alone() {
    let (address, asked) = server(vec![
        answer("200 OK", r#"{"devices":[{"id":"a/b"}],"next":"a/b"}"#),
        answer("200 OK", r#"{"devices":[{"id":"c"}],"next":null}"#),
    ])
    .await;
    let devices = api(address).list(&["devices"], &[("group", "x&y".into())]).await.unwrap();
    assert_eq!(devices.len(), 2);
    let asked = asked.await.unwrap();
    assert!(asked[0].starts_with("GET /api/v1/devices?group=x%26y&limit=1000 "), "{}", asked[0]);
    assert!(
        asked[1].starts_with("GET /api/v1/devices?group=x%26y&limit=1000&after=a%2Fb "),
        "{}",
        asked[1]
    );
    assert!(asked[0].to_lowercase().contains("authorization: bearer secret"), "{}", asked[0]);
}

#[tokio::test]
async fn errors_have_their_exit_codes_and_one_line() {
    for (response, code, part) in [
        (
            answer("404 Not Found", r#"{"detail":"there is no device \"x\""}"#),
            exit::FAILURE,
            "there is no device \"x\"",
        ),
        (answer("401 Unauthorized", r#"{"detail":"wrong\ntoken"}"#), exit::UNAUTHORIZED, "wrong"),
        (answer("500 Internal Server Error", "{}"), exit::FAILURE, "500"),
        (answer("200 OK", "<html>"), exit::FAILURE, "is not the admin interface"),
        (answer("302 Found", ""), exit::FAILURE, "is not the admin interface"),
        ("HTTP/1.1 2".to_owned(), exit::UNREACHABLE, "cannot reach the daemon"),
    ] {
        let (address, _asked) = server(vec![response]).await;
        let error = api(address).get(&["devices", "x"]).await.unwrap_err();
        let line = one_line(&error);
        assert_eq!(exit_code(&error), code, "{line}");
        assert!(line.contains(part) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn an_address_that_is_none_is_wrong_usage() {
    let error = Api::with("nonsense", Secret::new("secret".into()), None).err().unwrap();
    assert_eq!(exit_code(&error), exit::USAGE);
}

#[tokio::test]
async fn nobody_there_is_its_own_exit_code() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = api(address).get(&["status"]).await.unwrap_err();
    assert_eq!(exit_code(&error), exit::UNREACHABLE);
    let line = one_line(&error);
    assert!(line.starts_with(&format!("cannot reach the daemon at http://{address}/: ")), "{line}");
}

#[tokio::test]
async fn a_list_that_promises_pages_for_ever_ends() {
    let (address, _asked) = server(vec![answer("200 OK", r#"{"devices":[],"next":"a"}"#)]).await;
    assert!(api(address).list(&["devices"], &[]).await.unwrap().is_empty());
}

#[test]
fn addresses_that_cannot_be_ones() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    for url in ["127.0.0.1:8080", "ftp://x", "http://u:p@x", "http://x?token=y", "nonsense"] {
        let error = Api::with(url, Secret::new("secret".into()), None).err().unwrap();
        assert!(error.to_string().starts_with("--url"), "{error}");
    }
}
