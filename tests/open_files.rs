//! No file descriptors left: what is set aside, and who is turned away.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{net::TcpStream, process::Command};

use support::{
    Client, Connect, Daemon, Device, Site, Version, daemon::run_to_end, eventually, image,
};

/// `fuotad serve` below a hard limit on open files.
fn limited(site: &Site, files: usize) -> Command {
    let inner = site.command(&["serve"]);
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -n {files}; exec \"$0\" \"$@\""));
    command.arg(inner.get_program()).args(inner.get_args()).current_dir(site.path());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

#[test]
fn when_all_places_are_taken_the_rest_goes_on() {
    let site = Site::new();
    let daemon = Daemon::start(limited(&site, 256), site.path().join("data"));
    daemon.expect_log(&["limit on open files", "connections=128"]);
    let mut device = Device::connect(daemon.mqtt(), &Connect::id("pump-1"));
    let mut clients: Vec<Client> = (1..128)
        .map(|n| Client::connect(daemon.mqtt(), &Connect::id(&format!("client-{n}"))))
        .collect();

    // One too many is closed at once, as often as it tries.
    for _ in 0..300 {
        let refused = Client::open(daemon.mqtt(), Version::V5);
        assert_eq!(refused.expect_closed(), None);
    }
    daemon.expect_log(&["connections refused", "limits.connections"]);
    let refused = daemon.log().iter().filter(|line| line.contains("connections refused")).count();
    assert!(refused <= 3, "{refused} lines for 300 refusals");

    // The admin interface answers, beside as many idle connections as it has places but one.
    let _idle: Vec<TcpStream> =
        (1..64).map(|_| TcpStream::connect(daemon.admin_address()).unwrap()).collect();
    let status = daemon.admin().get("/api/v1/status");
    assert_eq!(status["broker"]["connections"], 128);
    assert_eq!(status["ready"], true, "{status}");
    // A file that is dropped is copied, and its blocks are read and served.
    let firmware = image(1, 3_000_000);
    site.drop_file("pump-1.0.0.bin", &firmware);
    device.expect_update(&firmware);
    for client in &mut clients {
        client.ping();
    }

    // Who leaves makes room.
    for client in clients.drain(..3) {
        client.disconnect();
    }
    for n in 0..3 {
        let connected = eventually("a free place", || {
            let left = daemon.admin().get("/api/v1/status")["broker"]["connections"].as_u64();
            (left < Some(128))
                .then(|| Client::connect(daemon.mqtt(), &Connect::id(&format!("new-{n}"))))
        });
        clients.push(connected);
    }
    assert_eq!(Client::open(daemon.mqtt(), Version::V4).expect_closed(), None);
    let ended = daemon.stop();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log.join("\n"));
    assert!(!ended.said(&["Too many open files"]), "{}", ended.log.join("\n"));
}

#[test]
fn too_few_open_files_are_one_clear_line() {
    let site = Site::new();
    let ended = run_to_end(limited(&site, 100));
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        ended.said(&["limit on open files is 100", "128", "LimitNOFILE"]),
        "{}",
        ended.log.join("\n")
    );
}
