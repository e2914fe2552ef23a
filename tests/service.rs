//! What a service manager sees: `Type=notify`, the watchdog, the unit's file, and `fuotad doctor`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{fs, os::unix::net::UnixDatagram, path::Path};

use serde_json::Value;
use support::{Daemon, PATIENCE, Site};

/// The socket of a service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Manager(socket)
    }

    /// The next message that says this; what comes before it is of no interest.
    fn hears(&self, what: &str) -> String {
        let mut bytes = [0; 4096];
        loop {
            let length = self.0.recv(&mut bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text.lines().any(|line| line == what) {
                return text;
            }
        }
    }
}

#[test]
fn the_service_manager_hears_of_the_start_the_pulse_and_the_stop() {
    let site = Site::new();
    let path = site.path().join("notify");
    let manager = Manager::at(&path);
    let mut command = site.command(&["serve"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let daemon = Daemon::start(command, site.path().join("data"));
    let ready = manager.hears("READY=1");
    assert!(ready.lines().any(|line| line == "STATUS=ready"), "{ready}");
    manager.hears("WATCHDOG=1");
    manager.hears("WATCHDOG=1");
    daemon.begin_stop();
    manager.hears("STOPPING=1");
    assert_eq!(daemon.ended().status.code(), Some(0));
}

/// What systemd 252 and newer know, of what the unit uses: a name that is spelled wrong is
/// ignored there, with nothing but a line in the log.
#[test]
fn the_unit_says_what_the_documentation_promises() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let unit = fs::read_to_string(root.join("deploy/fuotad.service")).expect("the unit");
    for line in [
        "Type=notify",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "WatchdogSec=60",
        "User=fuotad",
        "StateDirectoryMode=0700",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
        "SystemCallFilter=@system-service",
        "CapabilityBoundingSet=",
        "MemoryDenyWriteExecute=yes",
    ] {
        assert!(unit.lines().any(|has| has == line), "{line} in\n{unit}");
    }
}

#[test]
fn the_doctor_looks_at_a_daemon_that_runs_and_at_one_that_does_not() {
    let site = Site::new();
    let doctor = |site: &Site| {
        let ended = site.run(&["doctor", "--json"]);
        let report: Value = serde_json::from_str(&ended.stdout.join("\n")).expect("JSON");
        (ended.status.code(), report)
    };
    let of = |report: &Value, check: &str| {
        let findings = report["findings"].as_array().expect("findings").iter();
        findings.filter(|one| one["check"] == check).cloned().collect::<Vec<_>>()
    };
    let mut site = site;
    let daemon = site.start();
    let admin = format!("\"{}\"", daemon.admin_address());
    site.set("admin.listen", &admin);
    let (code, report) = doctor(&site);
    assert_eq!(of(&report, "daemon")[0]["verdict"], "ok", "{report}");
    assert_eq!((code, &report["healthy"]), (Some(0), &Value::Bool(true)), "{report}");
    daemon.stop();
    let (code, report) = doctor(&site);
    assert_eq!(of(&report, "daemon")[0]["verdict"], "warning", "{report}");
    assert_eq!(code, Some(0), "{report}");

    // Something else has the port.
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    site.set("mqtt.listen", &format!("\"{}\"", other.local_addr().expect("its address")));
    let (code, report) = doctor(&site);
    let ports = &of(&report, "ports")[0];
    assert!(ports["says"].as_str().expect("says").contains("mqtt.listen"), "{report}");
    assert!(ports["advice"].is_string(), "{report}");
    assert_eq!((code, &report["healthy"]), (Some(1), &Value::Bool(false)));

    let text = site.run(&["doctor"]).stdout.join("\n");
    assert!(text.contains("PROBLEM  ports") && text.contains("1 problems"), "{text}");
}
