//! `fuotad doctor`: looks at everything that a daemon of this configuration needs, running or
//! not, and says what to do. It changes nothing.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use fuota::AuthMode;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use serde_json::Value;

use super::{exit, output};
use crate::{
    certificates::Certificates, config::Config, firmware_dir, lock::DataDir,
    serve::open_files::RESERVED,
};

/// Options.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// It works, and somebody should look at it.
    Warning,
    /// It does not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    /// What was seen.
    says: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    /// Nothing is a problem.
    healthy: bool,
    findings: Vec<Finding>,
}

fn ok(check: &'static str, says: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Ok, says: says.into(), advice: None }
}

fn warning(check: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Warning, says: says.into(), advice: Some(advice.into()) }
}

fn problem(check: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Problem, says: says.into(), advice: Some(advice.into()) }
}

/// Certificates that end sooner are worth a word.
const RENEW_SECONDS: u64 = 21 * 24 * 3600;
/// Less room than this on a disk is a problem, and five times as much a warning.
const LEAST_BYTES: u64 = 200_000_000;
/// How long the daemon may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks, prints, and fails where something is a problem.
pub async fn run(args: &Args, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let findings = look(config).await;
    let healthy = findings.iter().all(|finding| finding.verdict != Verdict::Problem);
    let report = Report { healthy, findings };
    if args.json {
        output::json(&report)?;
    } else {
        output::text(&shown(&report))?;
    }
    Ok(if report.healthy { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILURE) })
}

fn shown(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let word = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "PROBLEM",
        };
        text += &format!("{word:<8} {:<14} {}\n", finding.check, output::safe(&finding.says));
        if let Some(advice) = &finding.advice {
            text += &format!("{:<8} {:<14} → {}\n", "", "", output::safe(advice));
        }
    }
    let count = |verdict| report.findings.iter().filter(|one| one.verdict == verdict).count();
    let (problems, warnings) = (count(Verdict::Problem), count(Verdict::Warning));
    text + &match (problems, warnings) {
        (0, 0) => "all is well\n".to_owned(),
        (problems, warnings) => format!("{problems} problems, {warnings} warnings\n"),
    }
}

async fn look(file: Option<&Path>) -> Vec<Finding> {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => {
            let fix = "correct it; docs/configuration.md describes every key";
            return error
                .problems()
                .iter()
                .map(|line| problem("configuration", line.to_string(), fix))
                .collect();
        }
    };
    let mut findings = vec![match &config.file {
        Some(file) => ok("configuration", format!("{} is fine", file.display())),
        None => ok("configuration", "there is no broker.toml here; the defaults apply"),
    }];
    let running = ask(&config).await;
    findings.extend(daemon(&config, &running));
    findings.extend(doors(&config));
    findings.extend(certificates(&config));
    findings.push(clock());
    findings.push(open_files(&config));
    findings.extend(data_dir(&config, running.is_ok()));
    findings.push(store(&config, running.is_ok()));
    findings
}

/// What `/readyz` of a running daemon says; else why nobody answers.
async fn ask(config: &Config) -> Result<Value, String> {
    let Some(address) = config.admin.listen.first() else {
        return Err("admin.listen has no address".into());
    };
    let scheme = if config.admin.tls.is_some() { "https" } else { "http" };
    let mut address = *address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    // Only whether it is well is asked, and nothing secret is sent: the name in its certificate
    // may be another than this address.
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .tls_danger_accept_invalid_certs(true)
        .build()
        .map_err(|error| error.to_string())?;
    let answer = http.get(format!("{scheme}://{address}/readyz")).send().await;
    let answer = answer.map_err(|error| error.without_url().to_string())?;
    answer.json().await.map_err(|_| "what answers there is no fuotad".to_owned())
}

fn daemon(config: &Config, running: &Result<Value, String>) -> Vec<Finding> {
    let Ok(ready) = running else {
        return ports(config);
    };
    let checks = ready["checks"].as_array().into_iter().flatten();
    let down: Vec<Finding> = checks
        .filter(|check| check["ok"] == false)
        .map(|check| {
            let part = check["name"].as_str().unwrap_or("a part");
            let reason = check["reason"].as_str().unwrap_or("it does not say why");
            problem("daemon", format!("{part} is not up: {reason}"), "the log has more")
        })
        .collect();
    if down.is_empty() { vec![ok("daemon", "runs, and every part is up")] } else { down }
}

/// Nobody answers: could a daemon have its ports?
fn ports(config: &Config) -> Vec<Finding> {
    let mqtt = &config.mqtt;
    let listeners = [
        ("mqtt.listen", &mqtt.listen),
        ("mqtt.tls.listen", &mqtt.tls_listen),
        ("mqtt.ws.listen", &mqtt.ws_listen),
        ("mqtt.wss.listen", &mqtt.wss_listen),
        ("admin.listen", &config.admin.listen),
    ];
    let mut findings = vec![warning(
        "daemon",
        "does not run",
        "start it: systemctl start fuotad, or fuotad serve",
    )];
    for (key, addresses) in listeners {
        for address in addresses {
            if let Err(error) = TcpListener::bind(address) {
                findings.push(problem(
                    "ports",
                    format!("{key}: {address} cannot be listened on: {error}"),
                    format!(
                        "end what has it (ss -ltnp 'sport = :{}'), or choose another",
                        address.port()
                    ),
                ));
            }
        }
    }
    findings
}

fn doors(config: &Config) -> Vec<Finding> {
    let beyond = |addresses: &[SocketAddr]| {
        addresses.iter().copied().find(|address| !address.ip().to_canonical().is_loopback())
    };
    let mut findings = Vec::new();
    let plain = beyond(&config.mqtt.listen).or(beyond(&config.mqtt.ws_listen));
    if let Some(address) = plain {
        findings.push(warning(
            "doors",
            format!("{address} is not encrypted: tokens and firmware can be read on the way"),
            "use mqtt.tls where the devices can",
        ));
    }
    if config.auth.mode == AuthMode::Open {
        let everywhere =
            plain.or(beyond(&config.mqtt.tls_listen)).or(beyond(&config.mqtt.wss_listen));
        findings.push(match everywhere {
            Some(address) => warning(
                "doors",
                format!("auth.mode is \"open\": everybody who reaches {address} is let in"),
                "set auth.mode = \"token\" on a real site",
            ),
            None => ok("doors", "auth.mode is \"open\", on this machine alone"),
        });
    }
    if let Some(address) = beyond(&config.admin.listen).filter(|_| config.admin.tls.is_none()) {
        findings.push(warning(
            "doors",
            format!("the admin interface at {address} is not encrypted"),
            "set admin.tls.cert and admin.tls.key",
        ));
    }
    if findings.is_empty() {
        findings.push(ok("doors", "nothing is open that should not be"));
    }
    findings
}

fn certificates(config: &Config) -> Vec<Finding> {
    let all = match Certificates::load(config) {
        Ok(all) => all,
        Err(error) => {
            let fix = "renew it, or correct the path; the daemon does not start like this";
            return vec![problem("certificates", format!("{error:#}"), fix)];
        }
    };
    let now = hook::clock::unix_now();
    let mut findings = Vec::new();
    for (section, tls) in [("mqtt.tls", all.mqtt), ("admin.tls", all.admin)] {
        let Some(left) = tls.and_then(|tls| tls.ends()).map(|ends| ends.saturating_sub(now)) else {
            continue;
        };
        let days = left / (24 * 3600);
        let says = format!("{section}: the certificate ends in {days} days");
        findings.push(match left {
            0..RENEW_SECONDS => warning(
                "certificates",
                says,
                "renew it; the running daemon takes the new files by itself",
            ),
            _ => ok("certificates", says),
        });
    }
    if findings.is_empty() {
        findings.push(ok("certificates", "none is configured"));
    }
    findings
}

fn clock() -> Finding {
    match hook::clock::is_set(hook::clock::unix_now()) {
        true => ok("clock", "is set"),
        false => problem(
            "clock",
            "is not set: it shows a time before this program was made",
            "let systemd-timesyncd or chrony set it; until then certificates of clients are refused",
        ),
    }
}

fn open_files(config: &Config) -> Finding {
    let Some(files) = getrlimit(Resource::Nofile).maximum else {
        return ok("limits", "open files are not limited");
    };
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let room = files.saturating_sub(RESERVED.min(files / 2));
    let wanted = config.limits.connections;
    match room < wanted {
        false => ok("limits", format!("{files} open files are enough for {wanted} clients")),
        true => warning(
            "limits",
            format!(
                "{files} open files are enough for {room} clients; limits.connections is {wanted}"
            ),
            "this is the limit of this shell; a service has LimitNOFILE= of its unit. Raise it, or lower limits.connections",
        ),
    }
}

fn data_dir(config: &Config, running: bool) -> Vec<Finding> {
    let path = &config.data_dir;
    let shown = path.display();
    let mut findings = Vec::new();
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            findings.push(match nearest(path) {
                Some(parent) if can_write(&parent) => {
                    ok("data_dir", format!("{shown} is made at the first start"))
                }
                _ => problem(
                    "data_dir",
                    format!("{shown} is not there, and cannot be made"),
                    "make it, and give it to the daemon's user: install -d -m 700 -o fuotad DIRECTORY",
                ),
            });
        }
        Err(error) => findings.push(problem(
            "data_dir",
            format!("{shown} cannot be looked at: {error}"),
            "run this as the daemon's user",
        )),
        Ok(about) if !about.is_dir() => findings.push(problem(
            "data_dir",
            format!("{shown} is not a directory"),
            "move it away, or set another data_dir",
        )),
        Ok(about) => {
            let mode = about.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                findings.push(warning(
                    "data_dir",
                    format!("{shown} can be read by other users (mode {mode:o}); keys lie in it"),
                    format!("chmod 700 {shown}"),
                ));
            }
            if !can_write(path) {
                findings.push(problem(
                    "data_dir",
                    format!(
                        "{shown} cannot be written by this user; it belongs to uid {}",
                        about.uid()
                    ),
                    "run this as the daemon's user, or give the directory to it",
                ));
            } else if !running && path.join("lock").exists() {
                // Nobody answers: a process that holds it is stuck or has another configuration.
                if let Err(error) = DataDir::claim(path) {
                    findings.push(problem(
                        "data_dir",
                        format!("{error:#}"),
                        "that process does not answer at admin.listen: has it another configuration?",
                    ));
                }
            }
            if findings.is_empty() {
                findings.push(ok("data_dir", format!("{shown} can be written")));
            }
        }
    }
    let there = nearest(path);
    if let Some(room) = there.as_deref().and_then(room) {
        findings.push(disk(&shown.to_string(), room, config.store.max_size));
    }
    findings
}

fn disk(path: &str, room: u64, largest: u64) -> Finding {
    let says = format!("{} MB are free where {path} lies", room / 1_000_000);
    let advice =
        "make room: old images go when no deployment needs them, backups are never deleted";
    if room < LEAST_BYTES {
        problem("disk", says, advice)
    } else if room < LEAST_BYTES * 5 || room < largest {
        warning("disk", format!("{says}; an image may have {} MB", largest / 1_000_000), advice)
    } else {
        ok("disk", says)
    }
}

/// The path, or the first directory above it that is there.
fn nearest(path: &Path) -> Option<PathBuf> {
    path.ancestors().find(|path| path.exists()).map(Path::to_owned)
}

fn can_write(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok()
}

/// Bytes that a user may still write there.
fn room(path: &Path) -> Option<u64> {
    let about = rustix::fs::statvfs(path).ok()?;
    about.f_bavail.checked_mul(about.f_frsize)
}

fn store(config: &Config, running: bool) -> Finding {
    let shown = firmware_dir::shown(config);
    let Some(path) = firmware_dir::path(config) else {
        return match running {
            true => ok("store", format!("{shown} is read by the running daemon, see above")),
            false => warning(
                "store",
                format!("{shown} is a bucket, which only the daemon looks at"),
                "start it, and look again",
            ),
        };
    };
    match fs::read_dir(&path) {
        Ok(_) if can_write(&path) => ok("store", format!("{shown} can be read")),
        Ok(_) => ok("store", format!("{shown} can be read; status files are not written there")),
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound && firmware_dir::is_default(config) =>
        {
            ok("store", format!("{shown} is made at the first start"))
        }
        Err(error) => problem(
            "store",
            format!("{shown} cannot be read: {error}"),
            "mount it, make it, or correct store.url; nothing new is offered meanwhile",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of(dir: &Path, text: &str) -> Vec<Finding> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let file = dir.join("broker.toml");
        fs::write(&file, text).unwrap();
        look(Some(&file)).await
    }

    /// Ports that nobody has: of a listener that is closed again.
    fn free() -> String {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        address.to_string()
    }

    fn plain() -> String {
        format!(
            "mqtt.listen = {:?}\nadmin.listen = {:?}\nlimits.connections = 10\n",
            free(),
            free()
        )
    }

    fn find<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
        findings.iter().find(|one| one.check == check).unwrap_or_else(|| panic!("{findings:?}"))
    }

    #[tokio::test]
    async fn a_site_before_its_first_start_is_well() {
        let dir = tempfile::tempdir().unwrap();
        let findings = of(dir.path(), &plain()).await;
        for finding in &findings {
            assert_ne!(finding.verdict, Verdict::Problem, "{finding:?}");
        }
        assert!(find(&findings, "daemon").says.contains("does not run"));
        assert!(find(&findings, "data_dir").says.contains("first start"));
        assert!(!dir.path().join("data").exists(), "it changes nothing");
    }

    #[tokio::test]
    async fn mistakes_of_the_configuration_come_one_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let findings = of(dir.path(), "mqtt.lisen = 1\nlog.level = \"loud\"\n").await;
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(
            findings
                .iter()
                .all(|one| one.verdict == Verdict::Problem && one.check == "configuration")
        );
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        let old = params.self_signed(&key).unwrap();
        fs::write(dir.path().join("cert.pem"), old.pem()).unwrap();
        fs::write(dir.path().join("key.pem"), key.serialize_pem()).unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::set_permissions(dir.path().join("data"), fs::Permissions::from_mode(0o755)).unwrap();
        let findings = of(
            dir.path(),
            &format!(
                "mqtt.listen = \"{}\"\nadmin.listen = {:?}\nstore.url = \"file:/nowhere/at/all\"\n\
                 admin.tls.cert = \"cert.pem\"\nadmin.tls.key = \"key.pem\"\n",
                taken.local_addr().unwrap(),
                free()
            ),
        )
        .await;
        let ports = find(&findings, "ports");
        assert!(
            ports.verdict == Verdict::Problem && ports.says.contains("mqtt.listen"),
            "{ports:?}"
        );
        let certificates = find(&findings, "certificates");
        assert!(certificates.says.contains("has expired"), "{certificates:?}");
        assert!(find(&findings, "store").says.contains("/nowhere/at/all"));
        let data = find(&findings, "data_dir");
        assert!(
            data.says.contains("mode 755") && data.advice.as_deref().unwrap().contains("chmod 700")
        );
        assert!(findings.iter().all(|one| one.verdict == Verdict::Ok || one.advice.is_some()));
    }

    #[tokio::test]
    async fn a_certificate_that_ends_soon_is_worth_a_word() {
        let dir = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        let soon = std::time::SystemTime::now() + Duration::from_secs(5 * 24 * 3600 + 60);
        params.not_after = soon.into();
        let cert = params.self_signed(&key).unwrap();
        fs::write(dir.path().join("cert.pem"), cert.pem()).unwrap();
        fs::write(dir.path().join("key.pem"), key.serialize_pem()).unwrap();
        let tls = "admin.tls.cert = \"cert.pem\"\nadmin.tls.key = \"key.pem\"\n";
        let findings = of(dir.path(), &(plain() + tls)).await;
        let certificates = find(&findings, "certificates");
        assert_eq!(certificates.verdict, Verdict::Warning);
        assert!(certificates.says.contains("ends in 5 days"), "{certificates:?}");
    }

    #[test]
    fn a_full_disk_is_a_problem_before_it_is_full() {
        let verdict = |room| disk("/data", room, 512_000_000).verdict;
        assert_eq!(verdict(10_000_000), Verdict::Problem);
        assert_eq!(verdict(500_000_000), Verdict::Warning);
        assert_eq!(verdict(50_000_000_000), Verdict::Ok);
        assert_eq!(disk("/data", 2_000_000_000, 5_000_000_000).verdict, Verdict::Warning);
    }
}
