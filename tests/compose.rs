//! What `docker-compose.yml` and the `Dockerfile` promise, as far as it shows without an engine:
//! the broker runs with the environment that stands there, and a file that is put into the bucket
//! reaches the simulated device.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/s3.rs"]
mod s3;
mod support;

use std::{fs, os::unix::fs::symlink, path::PathBuf, process::Command};

use s3::S3Server;
use support::{Site, daemon::run_to_end, image};

fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Names and values of the broker's environment in the compose file.
fn environment() -> Vec<(String, String)> {
    let compose = fs::read_to_string(repository().join("docker-compose.yml")).unwrap();
    let lines = compose.lines().map(str::trim).filter(|line| line.starts_with("FUOTAD__"));
    let pairs = lines.filter_map(|line| line.split_once(": "));
    let pairs: Vec<_> =
        pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect();
    assert!(pairs.len() > 8, "{pairs:?}");
    pairs
}

#[test]
fn ports_are_published_on_loopback_and_nothing_runs_as_root() {
    let compose = fs::read_to_string(repository().join("docker-compose.yml")).unwrap();
    let published: Vec<_> = compose
        .lines()
        .skip_while(|line| line.trim() != "ports:")
        .skip(1)
        .take_while(|line| line.trim().starts_with("- "))
        .collect();
    assert_eq!(published.len(), 2);
    assert!(published.iter().all(|port| port.trim().starts_with("- 127.0.0.1:")), "{published:?}");
    assert_eq!(compose.matches("ports:").count(), 1);
    for line in compose.lines().filter(|line| line.trim().starts_with("image:")) {
        let tag = line.rsplit(':').next().unwrap();
        assert!(tag.starts_with('v') && tag.contains('.'), "a version is named: {line}");
    }
    let dockerfile = fs::read_to_string(repository().join("Dockerfile")).unwrap();
    let user = dockerfile.lines().position(|line| line == "USER fuotad").unwrap();
    let entry = dockerfile.lines().position(|line| line.starts_with("ENTRYPOINT")).unwrap();
    assert!(user < entry);
    for line in
        dockerfile.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from"))
    {
        for path in line.split_whitespace().skip(1).take(line.split_whitespace().count() - 2) {
            assert!(repository().join(path).exists(), "{line}");
        }
    }
}

#[test]
fn a_file_in_the_bucket_updates_the_simulated_device() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(S3Server::start());
    let site = Site::new();
    let secrets = site.path().join("secrets");
    fs::create_dir(&secrets).unwrap();
    fs::write(secrets.join("access_key_id"), format!("{}\n", s3::ACCESS_KEY_ID)).unwrap();
    fs::write(secrets.join("secret_access_key"), format!("{}\n", s3::SECRET_ACCESS_KEY)).unwrap();
    let environment = |command: &mut Command| {
        for (name, value) in environment() {
            let value = match &*name {
                // What lies outside of the test is replaced, the rest is as it stands there.
                "FUOTAD__STORE__S3__ENDPOINT" => server.endpoint(),
                "FUOTAD__MQTT__LISTEN" | "FUOTAD__ADMIN__LISTEN" => "127.0.0.1:0".into(),
                "FUOTAD__STORE__POLL_INTERVAL" => "300ms".into(),
                _ => value.replace("/secrets", secrets.to_str().unwrap()),
            };
            command.env(name, value);
        }
    };
    let mut check = site.command(&["check-config"]);
    environment(&mut check);
    let checked = run_to_end(check);
    let said = checked.stdout.join("\n");
    assert!(checked.status.success(), "{said} {:?}", checked.log);
    assert!(said.contains("auth.mode") && said.contains("token"), "{said}");

    let mut serve = site.command(&["serve"]);
    environment(&mut serve);
    let daemon = support::Daemon::start(serve, site.path().join("data"));
    server.put("all/pump-1.4.2.bin", &image(1, 20_000));

    // As `docker compose exec fuotad simulate-device`: the script finds the binary by its name.
    let bin = site.path().join("bin");
    fs::create_dir(&bin).unwrap();
    symlink(env!("CARGO_BIN_EXE_fuotad"), bin.join("fuotad")).unwrap();
    let mut script = Command::new(repository().join("deploy/simulate-device"));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    script.env("PATH", path).current_dir(site.path());
    environment(&mut script);
    script.env("FUOTAD_BROKER", daemon.mqtt().to_string());
    script.env("FUOTAD__ADMIN__LISTEN", daemon.admin_address().to_string());
    let ended = run_to_end(script);
    assert!(ended.status.success(), "{:?} {:?}", ended.stdout, ended.log);
    let device = daemon.admin().get("/api/v1/devices/sim-1");
    assert_eq!(device["firmware"]["version"], "1.4.2", "{device}");
}
