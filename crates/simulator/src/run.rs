//! A run: all devices at once, until each is finished or the time is over.

use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Setup};
use crate::device::Behaviour;
use crate::faults::Dice;
use crate::link::Login;
use crate::options::Options;
use crate::progress::{self, Meter};
use crate::summary::{DeviceReport, Summary};
use crate::words::Words;

/// Why a run could not begin. A device that fails is no error: the [`Summary`] tells of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulatorError {
    /// The options contradict themselves or their limits.
    #[error("{0}")]
    Options(String),
    /// Nobody listens at the broker's address.
    #[error(
        "cannot reach the broker at {broker}: {source}; is it running, and is the address right?"
    )]
    Unreachable {
        /// The address as given.
        broker: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The directory for the images cannot be created.
    #[error("cannot create the directory {path} for the images: {source}")]
    ImageDir {
        /// The directory.
        path: std::path::PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The operating system has no random seed.
    #[error("no random seed ({0}); give one with the options")]
    Seed(getrandom::Error),
}

/// Runs the devices until each is finished, `options.timeout` is over or `cancel` is cancelled.
///
/// Each device is one task with one connection. Devices that are not finished when the run ends
/// have failed, and the summary says how far they were.
///
/// # Errors
/// Only where the run cannot begin: wrong options, a broker that cannot be reached at all, a
/// directory that cannot be created.
pub async fn run(options: Options, cancel: CancellationToken) -> Result<Summary, SimulatorError> {
    if let Some(complaint) = options.complaint() {
        return Err(SimulatorError::Options(complaint));
    }
    let seed = match options.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(SimulatorError::Seed)?,
    };
    if let Some(path) = &options.image_dir {
        let created = tokio::fs::create_dir_all(path).await;
        created.map_err(|source| SimulatorError::ImageDir { path: path.clone(), source })?;
    }
    // One look ahead, so that a wrong address is one clear error and not a timeout per device.
    TcpStream::connect(&options.broker)
        .await
        .map_err(|source| SimulatorError::Unreachable { broker: options.broker.clone(), source })?;

    let begin = Instant::now();
    let stop = Stop { deadline: (begin + options.timeout).into(), cancel };
    let connecting = Arc::new(Semaphore::new(options.connecting));
    let names: Vec<String> = (0..options.devices).map(|number| options.name(number)).collect();
    let meters: Vec<Arc<Meter>> = names.iter().map(|_| Arc::default()).collect();

    let mut tasks = JoinSet::new();
    for ((number, name), meter) in (0..).zip(&names).zip(&meters) {
        let setup = Setup {
            name: name.clone(),
            login: login(&options, number),
            behaviour: behaviour(&options),
            dice: Dice::new(options.faults, seed, number),
            image_file: options
                .image_dir
                .as_ref()
                .map(|dir| dir.join(format!("{}.bin", file_name(name)))),
            report: options.report,
            linger: options.linger,
            connecting: Arc::clone(&connecting),
            meter: Arc::clone(meter),
        };
        let stop = stop.clone();
        tasks.spawn(async move { (number, drive(setup, stop).await) });
    }
    let shown = tokio::spawn(progress::show(options.progress, names, meters));
    let mut reports = Vec::with_capacity(tasks.len());
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok(report) => reports.push(report),
            // A task is never aborted, so this is a panic, and hiding it would falsify the run.
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
    shown.abort();
    // Waits for the abort, so that the bars are gone before the caller prints.
    let _: Result<_, _> = shown.await;
    reports.sort_unstable_by_key(|(number, _)| *number);
    let reports = reports.into_iter().map(|(_, report)| report).collect();
    Ok(Summary::new(reports, begin.elapsed().as_secs_f64(), seed))
}

/// What ends all devices.
#[derive(Clone)]
struct Stop {
    deadline: tokio::time::Instant,
    cancel: CancellationToken,
}

async fn drive(setup: Setup, stop: Stop) -> DeviceReport {
    let meter = Arc::clone(&setup.meter);
    let mut client = Client::new(setup);
    let ending = tokio::select! {
        ending = client.run() => ending,
        () = stop.cancel.cancelled() => client.cut_short("cancelled"),
        () = tokio::time::sleep_until(stop.deadline) => client.cut_short("timed out"),
    };
    let report = client.into_report(ending);
    meter.ended(report.is_ok());
    report
}

fn login(options: &Options, number: u32) -> Login {
    Login {
        broker: options.broker.clone(),
        protocol: options.protocol,
        client_id: if options.empty_client_id { String::new() } else { options.name(number) },
        token: options.credentials.get(number as usize).map(|credential| credential.token.clone()),
        model: options.model.clone(),
        words: Words::new(options),
    }
}

fn behaviour(options: &Options) -> Behaviour {
    Behaviour {
        pace: options.pace,
        window: options.window,
        retry_after: options.retry_after,
        max_retries: options.max_retries,
        strict_reference: options.strict_reference,
        resume: options.resume,
        expect_sha256: options.expect_sha256,
        trusted_key: options.trusted_key,
        max_image: options.max_image,
        keep_image: options.image_dir.is_some(),
    }
}

/// A device's name as a file name: what could leave the directory or upset a file system is `_`.
fn file_name(name: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = name.chars().map(|c| if safe(c) { c } else { '_' }).collect();
    if name.starts_with('.') { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_stay_in_their_directory() {
        assert_eq!(file_name("sim-0001"), "sim-0001");
        assert_eq!(file_name("../../etc/passwd"), "_.._.._etc_passwd");
    }
}
