//! What is on the machine: the clock, limits, the disk, and where firmware is dropped.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::process::{Resource, getrlimit};

use super::{Finding, ok, problem, warning};
use crate::{config::Config, firmware_dir, lock::DataDir, serve::open_files::RESERVED};

/// Less room than this on a disk is a problem, and five times as much a warning.
const LEAST_BYTES: u64 = 200_000_000;

pub(super) fn clock() -> Finding {
    match hook::clock::is_set(hook::clock::unix_now()) {
        true => ok("clock", "is set"),
        false => problem(
            "clock",
            "is not set: it shows a time before this program was made",
            "let systemd-timesyncd or chrony set it; until then certificates of clients are refused",
        ),
    }
}

pub(super) fn open_files(config: &Config) -> Finding {
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

pub(super) fn data_dir(config: &Config, running: bool) -> Vec<Finding> {
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

pub(super) fn disk(path: &str, room: u64, largest: u64) -> Finding {
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

pub(super) fn store(config: &Config, running: bool) -> Finding {
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
