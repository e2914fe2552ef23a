//! The daemon: all parts started in order, watched, and stopped in order.
//!
//! ```text
//! start  lock → token → sockets → store → fuota → broker → admin → "ready"
//! stop   broker closes its doors and lets clients go → admin → fuota writes what is left
//! ```
//!
//! The broker's sessions run on all cores. The admin interface has a thread and a runtime of its
//! own, so that a long listing never delays a message.

#[cfg(test)]
mod admin_tests;
mod admin_thread;
#[cfg(feature = "faults")]
mod faults;
mod mqtt_doors;
mod notify;
pub mod open_files;
mod reload;
mod settings;
mod signals;
mod webhooks;

use std::{
    io::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use admin::{Check, Readiness};
use anyhow::{Context as _, anyhow};
use hook::Hook;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    backup::Backups,
    certificates::Certificates,
    config::{Config, Secret},
    firmware_dir::{self, DATABASE},
    lock::DataDir,
    logging, panics,
    plugins::client_log::ClientLog,
    token,
};
use admin_thread::AdminThread;
use open_files::OpenFiles;
use reload::{Parts, Reload};
use signals::Signals;

/// How long the last writes to the database may take at a stop.
const LAST_WRITES: Duration = Duration::from_secs(10);
/// How long `ready` waits for the first look at the firmware. Clients are served meanwhile.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// How often the parts are asked in that time.
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// How long tasks that are still there then may take to notice.
const LEFTOVERS: Duration = Duration::from_secs(1);

/// Serves until a signal.
///
/// # Errors
/// A part that cannot start, or that ended by itself. Each is one sentence.
pub fn run(config: Config) -> anyhow::Result<()> {
    let level = logging::start(&config.log)?;
    panics::log();
    if !hook::clock::is_set(hook::clock::unix_now()) {
        warn!(
            "the clock of this machine is not set: until it is, times in logs and lists are wrong \
             and certificates of clients are refused; nothing else depends on it"
        );
    }
    // Before anything is made: a name that is wrong should leave nothing behind.
    firmware_dir::prepare(&config)?;
    let data_dir = DataDir::claim(&config.data_dir)?;
    let token = match &config.admin.token {
        Some(token) => token.clone(),
        None => token::load_or_create(&config.token_path())?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from))
        .enable_all()
        .build()
        .context("the runtime does not start")?;
    let result = runtime.block_on(serve(&config, &token, level));
    // Nothing that matters is left: what had to be written is.
    runtime.shutdown_timeout(LEFTOVERS);
    drop(data_dir);
    result
}

/// Somebody may have moved it away to start without what was in it; or it was lost, and nobody
/// would notice before a set point is missed.
fn warn_of_a_missing_log(data_dir: &Path) {
    let directory = data_dir.join("broker");
    let is_of_the_log = |name: &str| name.starts_with("log-") || name.starts_with("snapshot-");
    let is_there = std::fs::read_dir(&directory).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_of_the_log))
    });
    if data_dir.join(DATABASE).exists() && !is_there {
        warn!(
            "the broker's log in {} is missing, though this is not the first start: the broker begins \
             without the sessions and retained messages that it had; if that is not meant, stop it and \
             put back that directory from a backup",
            directory.display()
        );
    }
}

async fn serve(config: &Config, token: &Secret, level: logging::Level) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut files = OpenFiles::claim()?;
    if !config.http.listen.is_empty() {
        files = files.with_downloads();
    }
    files.report(config.limits.connections);
    let mut signals = Signals::listen()?;
    let hangups = Signals::hangups()?;
    let certificates = Certificates::load(config)?;
    // First the sockets: a port that is taken should end the start before anything is opened.
    let mqtt = mqtt_doors::bind(&config.mqtt, certificates.mqtt.as_ref())?;
    let doors = admin_thread::bind("admin.listen", &config.admin.listen)?;
    let downloads = admin_thread::bind("http.listen", &config.http.listen)?;

    warn_of_a_missing_log(&config.data_dir);
    let store = store::FirmwareStore::open(settings::store(config)).map_err(one_error)?;
    let fuota =
        fuota::Fuota::open(settings::fuota(config), Arc::clone(&store)).map_err(one_error)?;
    let mut hooks: Vec<Arc<dyn Hook>> = Vec::new();
    if config.log.clients {
        // Before fuota, since a request that fuota consumes is shown to nobody after it.
        hooks.push(Arc::new(ClientLog));
    }
    hooks.push(fuota.hook());
    let connections = files.connections(config.limits.connections);
    let server = broker::Server::start(settings::broker(config, connections), hooks);
    let server = Arc::new(server.map_err(one_error)?);
    #[cfg(feature = "faults")]
    faults::listen(Arc::clone(&server))?;

    let scheme = |tls: &Option<_>| if tls.is_some() { "https" } else { "http" };
    let (admin_scheme, http_scheme) = (scheme(&certificates.admin), scheme(&certificates.http));
    let mut lines = Vec::new();
    lines.push(format!("fuotad {}", env!("CARGO_PKG_VERSION")));
    lines.push(match &config.file {
        Some(file) => format!("configuration from {}", file.display()),
        None => format!("no broker.toml in {}: the defaults apply", config.base_dir.display()),
    });
    lines.push(format!("data in {}", config.data_dir.display()));
    lines.extend(mqtt_doors::lines(&mqtt));
    lines.extend(
        doors
            .local_addrs()
            .iter()
            .map(|address| format!("admin listening on {admin_scheme}://{address}")),
    );
    lines.extend(
        downloads
            .local_addrs()
            .iter()
            .map(|address| format!("downloads listening on {http_scheme}://{address}")),
    );
    if config.admin.token.is_none() {
        lines.push(format!("admin token in {}", config.token_path().display()));
    }
    lines.push(format!("watching {}", firmware_dir::shown(config)));

    let readiness: Readiness = {
        let (server, service) = (Arc::clone(&server), fuota.service());
        Arc::new(move || checks(&server, &service))
    };
    let router = admin::router(
        settings::admin(config, token, &doors.local_addrs(), files.admin),
        fuota.service(),
        server.handle(),
        Arc::clone(&readiness),
        Backups::new(
            Arc::clone(&server),
            fuota.service(),
            config.admin.token.is_none().then(|| config.token_path()),
        )
        .door(),
    );

    let (close_doors, stop_fuota) = (CancellationToken::new(), CancellationToken::new());
    // The admin interface goes last, so that `/readyz` can say meanwhile that the broker stops.
    let close_admin = CancellationToken::new();
    // Before the engine runs: nothing that happens is missed.
    webhooks::start(&config.webhooks, &fuota.service(), &close_doors)?;
    let mut fuota_task = tokio::spawn(Arc::clone(&fuota).run(stop_fuota.clone()));
    let mut admin_thread = AdminThread::start(
        doors,
        router,
        certificates.admin.clone(),
        files.admin,
        close_admin.clone(),
    )?;
    let mut broker_task = tokio::spawn({
        let (server, cancel) = (Arc::clone(&server), close_doors.clone());
        async move { server.serve(mqtt, cancel).await }
    });
    // On the runtime of the sessions: an image is more than a page of the admin interface.
    let downloads_task = tokio::spawn(admin_thread::serve(
        downloads,
        admin::downloads(fuota.service()),
        certificates.http.clone(),
        files.downloads,
        close_doors.clone(),
    ));
    tokio::spawn(certificates.clone().watch(close_doors.clone()));
    let (stopped, listened_to) = (Arc::clone(&server), Arc::clone(&fuota));
    let reload = Reload::new(config, Parts { level, files, server, fuota, store, certificates });
    tokio::spawn(reload.run(hangups, close_doors.clone()));
    // To the end of the stop, which may take longer than the watchdog waits.
    let last = CancellationToken::new();
    let _last = last.clone().drop_guard();
    tokio::spawn(notify::watchdog(last));
    announce(&lines);
    info!(milliseconds = started.elapsed().as_millis() as u64, "started");

    // Until somebody says stop, or a part ends that should not.
    let failed = tokio::select! {
        () = async { announce_ready(&readiness).await; std::future::pending().await } => None,
        signal = signals.next() => {
            info!(signal, "stopping");
            None
        }
        result = &mut broker_task => Some(ended("the broker", result.err())),
        result = &mut fuota_task => Some(ended("the update engine", result.err())),
        () = admin_thread.ended() => Some(ended("the admin interface", None)),
    };
    notify::stopping();
    signals.end_at_once_on_the_next();

    close_doors.cancel();
    if !broker_task.is_finished() {
        // It bounds its own stop: see broker::Settings::drain.
        let _ = broker_task.await;
    }
    // Bounded as well: see admin::Limits::drain.
    let _ = downloads_task.await;
    // They would hold the admin interface to the end of its patience.
    listened_to.end_listeners();
    close_admin.cancel();
    admin_thread.ended().await;
    stop_fuota.cancel();
    if !fuota_task.is_finished() && tokio::time::timeout(LAST_WRITES, fuota_task).await.is_err() {
        error!("the last writes to the database took too long and were given up");
    }
    match (failed, stopped.log_ready()) {
        (Some(error), _) => Err(error),
        (None, Err(lost)) => Err(anyhow!("stopped, but {lost}")),
        (None, Ok(())) => {
            info!("stopped");
            Ok(())
        }
    }
}

/// The one sentence of a part's error, without the chain that it already contains.
fn one_error(error: impl std::error::Error) -> anyhow::Error {
    anyhow!("{error}")
}

fn ended(part: &str, error: Option<tokio::task::JoinError>) -> anyhow::Error {
    match error {
        Some(error) => anyhow!("{part} failed and the daemon stops: {error}"),
        None => anyhow!("{part} ended by itself and the daemon stops"),
    }
}

/// What the store's check says before the first scan.
const NOT_LOOKED: &str = "the first look at the firmware is not done yet";

/// What must be up for `/readyz`. All of it is read from memory.
fn checks(server: &broker::Server, service: &fuota::Service) -> Vec<Check> {
    let site = service.status();
    let store = match site.store_problem {
        Some(reason) => Err(reason),
        None if !site.ready => Err(NOT_LOOKED.to_owned()),
        None => Ok(()),
    };
    vec![
        Check { name: "mqtt", result: server.ready() },
        Check { name: "log", result: server.log_ready() },
        Check { name: "store", result: store },
        Check { name: "database", result: site.database_problem.map_or(Ok(()), Err) },
    ]
}

/// Says `ready` when every part is up, or the store has said why it is not. The last word of the
/// start comes after [`FIRST_LOOK`] at the latest: a large image takes longer to copy.
async fn announce_ready(readiness: &Readiness) {
    let began = Instant::now();
    // These end by themselves; another reason is for the operator to read.
    let waits = [NOT_LOOKED, broker::NOT_OPEN];
    let is_open = || {
        readiness().iter().any(|check| {
            check.result.as_ref().is_err_and(|reason| waits.contains(&reason.as_str()))
        })
    };
    while is_open() && began.elapsed() < FIRST_LOOK {
        tokio::time::sleep(ASK_AGAIN).await;
    }
    let mut missing = Vec::new();
    for check in readiness() {
        if let Err(reason) = check.result {
            warn!(part = check.name, reason, "not ready yet");
            missing.push(format!("{} is not up: {reason}", check.name));
        }
    }
    // Also where a part is missing: clients are served, and a restart would not bring it.
    notify::ready(
        match missing.is_empty() {
            true => "ready".to_owned(),
            false => missing.join("; "),
        }
        .as_str(),
    );
    announce(&["ready".to_owned()]);
}

/// Lines on the standard output, whatever `log.level` and `log.format` say; that nobody reads
/// them is no error.
fn announce(lines: &[String]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
