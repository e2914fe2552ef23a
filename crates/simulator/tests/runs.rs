//! Whole runs against a small server of this test's own.

#![allow(clippy::unwrap_used)]

mod server;

use std::time::Duration;

use server::{CHUNK, Flaw, Server};
use simulator::{Credential, Faults, Options, Progress, Protocol, SimulatorError, run};
use tokio_util::sync::CancellationToken;

/// 10 chunks, the last one short.
const SIZE: usize = 9 * CHUNK + 100;

fn options(server: &Server) -> Options {
    Options {
        broker: server.address.clone(),
        progress: Progress::Silent,
        retry_after: Duration::from_millis(100),
        timeout: Duration::from_secs(60),
        seed: Some(1),
        ..Options::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_devices_of_both_versions_get_the_image() {
    let server = Server::start(SIZE, Flaw::None).await;
    for protocol in [Protocol::V311, Protocol::V5] {
        for window in [1, 16] {
            // Nothing is lost, so asking again would be a mistake, however slow the machine is.
            let retry_after = Duration::from_secs(60);
            let options =
                Options { devices: 50, protocol, window, retry_after, ..options(&server) };
            let summary = run(options, CancellationToken::new()).await.unwrap();
            assert!(summary.all_ok(), "{summary}");
            assert_eq!((summary.blocks, summary.retries), (500, 0), "{summary}");
            assert!(
                summary.reports.iter().all(|r| r.sha256.unwrap().to_string() == server.sha256())
            );
            assert_eq!(summary.reports[49].name, "sim-0050");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_end_no_update() {
    let server = Server::start(SIZE, Flaw::None).await;
    let faults =
        Faults { loss: 0.1, duplicates: 0.1, reconnect_every: 7, reboots: 1, ..Faults::default() };
    let options = Options { devices: 20, window: 4, faults, ..options(&server) };
    let summary = run(options, CancellationToken::new()).await.unwrap();
    assert!(summary.all_ok(), "{summary}");
    assert_eq!(summary.reboots, 20, "{summary}");
    assert!(summary.reconnects > 20 && summary.lost > 0 && summary.repeated > 0, "{summary}");
    assert!(summary.retries > 0, "{summary}");
}

#[tokio::test]
async fn the_reference_device_logs_in_asks_once_and_reports() {
    let server = Server::start(SIZE, Flaw::None).await;
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        strict_reference: true,
        empty_client_id: true,
        credentials: vec![Credential { id: Some("pump-7".into()), token: "secret".into() }],
        pace: Duration::from_millis(1),
        report: true,
        image_dir: Some(dir.path().join("images")),
        expect_sha256: Some(server.sha256().parse().unwrap()),
        ..options(&server)
    };
    let summary = run(options, CancellationToken::new()).await.unwrap();
    assert!(summary.all_ok(), "{summary}");
    assert_eq!(std::fs::read(dir.path().join("images/pump-7.bin")).unwrap(), server.image);
    let connect = b"\0\x04MQTT\x04\xc2\0\x3c\0\0\0\x05Token\0\x06secret".to_vec();
    // A device waits until the server has hung up, so all has been seen.
    let seen = server.seen.lock().unwrap();
    assert_eq!(seen.connects, [connect]);
    assert!((0..10).all(|index| seen.requests[&index] == 1));
    assert_eq!(seen.statuses[0]["metadata"]["version"], "2.1.0");
}

#[tokio::test]
async fn a_wrong_byte_is_found() {
    let server = Server::start(SIZE, Flaw::WrongByte).await;
    let summary = run(options(&server), CancellationToken::new()).await.unwrap();
    assert!(!summary.all_ok());
    assert_eq!(summary.reasons["wrong digest"], 1);
}

#[tokio::test]
async fn another_image_than_expected_is_found() {
    let server = Server::start(SIZE, Flaw::None).await;
    let expect_sha256 = Some("00".repeat(32).parse().unwrap());
    let options = Options { expect_sha256, ..options(&server) };
    let summary = run(options, CancellationToken::new()).await.unwrap();
    assert_eq!(summary.reasons["wrong digest"], 1);
}

#[tokio::test]
async fn a_device_that_is_not_answered_gives_up_and_names_the_error() {
    let server = Server::start(SIZE, Flaw::Error).await;
    let options = Options { max_retries: 2, ..options(&server) };
    let summary = run(options, CancellationToken::new()).await.unwrap();
    assert_eq!(summary.reasons["no answer"], 1);
    let reason = summary.reports[0].reason.as_deref().unwrap();
    assert!(
        reason.contains("3 requests for chunk 0") && reason.contains("no firmware is offered"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_refused_login_fails_at_once() {
    let server = Server::start(SIZE, Flaw::Refuse(5)).await;
    let summary = run(options(&server), CancellationToken::new()).await.unwrap();
    assert_eq!(summary.reasons["not connected"], 1);
    assert!(summary.reports[0].reason.as_deref().unwrap().contains("not authorized"), "{summary}");
}

#[tokio::test]
async fn the_end_of_the_time_and_cancelling_say_how_far_it_was() {
    let server = Server::start(SIZE, Flaw::None).await;
    let slow = Options { pace: Duration::from_secs(600), ..options(&server) };
    let options = Options { timeout: Duration::from_millis(500), ..slow.clone() };
    let summary = run(options, CancellationToken::new()).await.unwrap();
    assert_eq!(summary.reasons["timed out"], 1);
    assert_eq!(summary.reports[0].reason.as_deref(), Some("timed out with 1 of 10 chunks"));

    let cancel = CancellationToken::new();
    cancel.cancel();
    let summary = run(slow, cancel).await.unwrap();
    assert_eq!(summary.reasons["cancelled"], 1);
}

#[tokio::test]
async fn nobody_there_and_wrong_options_are_errors() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let broker = listener.local_addr().unwrap().to_string();
    drop(listener);
    let options = Options { broker: broker.clone(), ..Options::default() };
    let error = run(options, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, SimulatorError::Unreachable { .. }));
    assert!(error.to_string().contains(&broker), "{error}");

    let options = Options { window: 0, ..Options::default() };
    let error = run(options, CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("window"), "{error}");
}
