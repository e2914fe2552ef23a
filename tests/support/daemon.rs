//! The real `fuotad` as a child process.

use std::{
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, http::Admin};

/// A running daemon. Dropped, it is killed; in a failing test its log is printed.
pub struct Daemon {
    child: Child,
    log: Log,
    mqtt: SocketAddr,
    admin: SocketAddr,
    data_dir: std::path::PathBuf,
}

/// What a daemon that ended left behind.
pub struct Ended {
    pub status: ExitStatus,
    /// Lines of both its outputs, in the order of their arrival.
    pub log: Vec<String>,
    /// Those of the standard output alone.
    pub stdout: Vec<String>,
    /// Those of the standard error stream alone.
    pub stderr: Vec<String>,
}

impl Ended {
    /// Whether a line of the log holds all these words.
    pub fn said(&self, words: &[&str]) -> bool {
        self.log.iter().any(|line| words.iter().all(|word| line.contains(word)))
    }
}

impl Daemon {
    /// Starts the command and waits for `ready`.
    pub fn start(command: Command, data_dir: std::path::PathBuf) -> Self {
        let (child, log) = spawn(command);
        // Held from here on, so that a daemon that never becomes ready is killed too.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut daemon = Daemon { child, log, mqtt: nowhere, admin: nowhere, data_dir };
        let admin =
            daemon.log.wait("admin listening on", |line| line.contains("admin listening on http"));
        daemon.log.wait("ready", is_ready);
        // The plain port may be off.
        let mqtt = daemon.log.lines().into_iter().find(|line| line.contains("mqtt listening on "));
        daemon.mqtt = mqtt.map_or(nowhere, |line| address_after(&line, "mqtt listening on "));
        daemon.admin = address_after(&admin, "://");
        daemon
    }

    /// Where MQTT is spoken.
    pub fn mqtt(&self) -> SocketAddr {
        self.mqtt
    }

    /// Where the admin interface listens.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// The admin interface, with the token of this daemon's `data_dir`.
    pub fn admin(&self) -> Admin {
        let token =
            std::fs::read_to_string(self.data_dir.join("admin.token")).expect("admin.token");
        Admin::new(self.admin, token.trim())
    }

    /// Waits for a log line that holds all these words, among the old ones and the new ones.
    pub fn expect_log(&self, words: &[&str]) -> String {
        self.log.wait(&words.join(" … "), |line| words.iter().all(|word| line.contains(word)))
    }

    /// The log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.send(Signal::HUP);
    }

    /// Any signal that does not end it.
    pub fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the daemon runs");
    }

    /// The address behind these words of the start, such as `mqtt over TLS listening on `.
    pub fn address_after(&self, words: &str) -> SocketAddr {
        address_after(&self.log.wait(words, |line| line.contains(words)), words)
    }

    /// SIGTERM, without waiting; [`Daemon::ended`] does that.
    pub fn begin_stop(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("the daemon runs");
    }

    /// Waits for the end that was begun.
    pub fn ended(mut self) -> Ended {
        finish(&mut self.child, &self.log)
    }

    /// SIGTERM, then waits for the end.
    pub fn stop(self) -> Ended {
        self.signal(Signal::TERM)
    }

    /// SIGINT, then waits for the end.
    pub fn interrupt(self) -> Ended {
        self.signal(Signal::INT)
    }

    /// SIGKILL: nothing is written any more. Waits for the end.
    pub fn kill(self) -> Ended {
        self.signal(Signal::KILL)
    }

    fn signal(mut self, signal: Signal) -> Ended {
        kill_process(Pid::from_child(&self.child), signal).expect("the daemon runs");
        finish(&mut self.child, &self.log)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- log of the daemon\n{}\n----", self.log.lines().join("\n"));
        }
    }
}

/// Runs a command that must end by itself.
pub fn run_to_end(command: Command) -> Ended {
    run_to_end_within(command, PATIENCE)
}

/// The same for one that has much to do.
pub fn run_to_end_within(command: Command, patience: Duration) -> Ended {
    let (mut child, log) = spawn(command);
    finish_within(&mut child, &log, patience)
}

fn spawn(mut command: Command) -> (Child, Log) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("fuotad starts");
    let log = Log::default();
    log.follow(Pipe::Stdout, child.stdout.take().expect("piped"));
    log.follow(Pipe::Stderr, child.stderr.take().expect("piped"));
    (child, log)
}

/// The end of the process shows as the end of both its pipes.
fn finish(child: &mut Child, log: &Log) -> Ended {
    finish_within(child, log, PATIENCE)
}

fn finish_within(child: &mut Child, log: &Log, patience: Duration) -> Ended {
    if !log.wait_closed(patience) {
        let _ = child.kill();
        panic!("the process did not end within {patience:?}:\n{}", log.lines().join("\n"));
    }
    Ended {
        status: child.wait().expect("a child"),
        log: log.lines(),
        stdout: log.lines_of(Pipe::Stdout),
        stderr: log.lines_of(Pipe::Stderr),
    }
}

fn is_ready(line: &str) -> bool {
    line == "ready"
}

fn address_after(line: &str, words: &str) -> SocketAddr {
    let rest = line.split_once(words).expect("waited for").1;
    let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)));
    rest[..end.unwrap_or(rest.len())]
        .parse()
        .unwrap_or_else(|error| panic!("no address ({error}) in {line:?}"))
}

/// Lines of both pipes, in the order of their arrival.
#[derive(Clone, Default)]
struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Default)]
struct Lines {
    lines: Vec<(Pipe, String)>,
    open_pipes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pipe {
    Stdout,
    Stderr,
}

impl Log {
    fn follow(&self, name: Pipe, pipe: impl Read + Send + 'static) {
        let log = self.clone();
        log.0.0.lock().expect("log").open_pipes += 1;
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                log.0.0.lock().expect("log").lines.push((name, line));
                log.0.1.notify_all();
            }
            log.0.0.lock().expect("log").open_pipes -= 1;
            log.0.1.notify_all();
        });
    }

    fn lines(&self) -> Vec<String> {
        self.0.0.lock().expect("log").lines.iter().map(|(_, line)| line.clone()).collect()
    }

    fn lines_of(&self, pipe: Pipe) -> Vec<String> {
        let log = self.0.0.lock().expect("log");
        log.lines.iter().filter(|(from, _)| *from == pipe).map(|(_, line)| line.clone()).collect()
    }

    fn wait(&self, what: &str, mut matches: impl FnMut(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut guard = self.0.0.lock().expect("log");
        let mut seen = 0;
        loop {
            if let Some((_, line)) = guard.lines[seen..].iter().find(|(_, line)| matches(line)) {
                return line.clone();
            }
            seen = guard.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || guard.open_pipes == 0 {
                drop(guard);
                panic!("no log line with {what:?} in:\n{}", self.lines().join("\n"));
            }
            guard = self.0.1.wait_timeout(guard, left).expect("log").0;
        }
    }

    /// `false` when a pipe is still open at the end of the patience.
    fn wait_closed(&self, patience: Duration) -> bool {
        let guard = self.0.0.lock().expect("log");
        let waited = self.0.1.wait_timeout_while(guard, patience, |log| log.open_pipes > 0);
        waited.expect("log").0.open_pipes == 0
    }
}
