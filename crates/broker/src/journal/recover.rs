//! From the files of the log to the state that they describe.

use bytes::BytesMut;
use std::{collections::BTreeSet, io};

use super::{
    file::{self, BEGINNING, FORMAT, Fault},
    image::Image,
    record::Record,
    storage::Storage,
};

/// Why the broker's log cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system said no.
    #[error("{file} cannot be used: {error}")]
    Io {
        /// Which file.
        file: String,
        /// What it said.
        #[source]
        error: io::Error,
    },
    /// A newer program wrote it.
    #[error(
        "{file} was written by a newer version (format {format}, this one knows {FORMAT}): start that version, or restore a backup of this one"
    )]
    Newer {
        /// Which file.
        file: String,
        /// Its format.
        format: u32,
    },
    /// It is not one of ours.
    #[error("{0} is not a file of the broker's log: move it away")]
    Foreign(String),
    /// Damaged elsewhere than at the end.
    #[error(
        "{file} is damaged at byte {at}, where no power cut leaves a trace: restore a backup, or move the directory away to start without sessions and retained messages"
    )]
    Damaged {
        /// Which file.
        file: String,
        /// Where.
        at: u64,
    },
    /// A file between two others is not there.
    #[error(
        "{0} is missing: restore a backup, or move the directory away to start without sessions and retained messages"
    )]
    Missing(String),
}

/// What was found.
pub(super) struct Recovered {
    pub image: Image,
    /// The log to go on with.
    pub number: u64,
    /// Its bytes that are good; 0 where it has to be made.
    pub len: u64,
    /// The size of the last snapshot.
    pub snapshot_len: u64,
    /// The name in its marks; `None` where it is of an older form.
    pub name: Option<u64>,
}

/// The name of a log.
pub(super) fn log_name(number: u64) -> String {
    format!("log-{number:08}")
}

/// The name of a snapshot.
pub(super) fn snapshot_name(number: u64) -> String {
    format!("snapshot-{number:08}")
}

/// The numbers of all snapshots and of all logs.
pub(super) fn numbers(storage: &dyn Storage) -> io::Result<(BTreeSet<u64>, BTreeSet<u64>)> {
    let names = storage.list()?;
    let of = |prefix: &str| -> BTreeSet<u64> {
        names.iter().filter_map(|name| name.strip_prefix(prefix)?.parse().ok()).collect()
    };
    Ok((of("snapshot-"), of("log-")))
}

/// Reads the last snapshot and all logs from there on.
pub(super) fn recover(storage: &dyn Storage) -> Result<Recovered, JournalError> {
    let (snapshots, logs) =
        numbers(storage).map_err(|error| JournalError::Io { file: "it".into(), error })?;
    let mut image = Image::default();
    let (first, mut snapshot_len) = (snapshots.last().copied().unwrap_or(1), 0);
    let mut followed = false;
    if !snapshots.is_empty() {
        let name = snapshot_name(first);
        let bytes = read(storage, &name)?;
        snapshot_len = bytes.len() as u64;
        let (_, fault) = file::read(&bytes, |record| {
            followed |= matches!(record, Record::Mark(_));
            image.apply(record);
        });
        // It got its name when it was whole.
        fault.map_or(Ok(()), |fault| Err(error(&name, fault)))?;
    }
    let mut last = logs.range(first..).next_back().copied();
    if followed && last.is_none() {
        return Err(JournalError::Missing(log_name(first)));
    }
    let (mut len, mut name_of_last) = (0, None);
    for number in last.map_or(first..first, |last| first..last + 1) {
        let name = log_name(number);
        if !logs.contains(&number) {
            return Err(JournalError::Missing(name));
        }
        let bytes = read(storage, &name)?;
        let (good, fault) = file::read(&bytes, |record| image.apply(record));
        (len, name_of_last) = (good, file::name(&bytes));
        if name_of_last.is_none() && file::format(&bytes) == FORMAT {
            // It was cut while it was made: it is begun again.
            len = 0;
        }
        match fault {
            None => {}
            Some(Fault::Torn(_)) if are_empty(storage, logs.range(number + 1..))? => {
                keep_torn(storage, &name, &bytes, good);
                last = Some(number);
                break;
            }
            Some(fault) => return Err(error(&name, fault)),
        }
    }
    let number = last.unwrap_or(first);
    Ok(Recovered { image, number, len, snapshot_len, name: name_of_last })
}

/// Whether there is nothing in logs: their beginning failed, and the one before them went on.
fn are_empty<'a>(
    storage: &dyn Storage,
    logs: impl IntoIterator<Item = &'a u64>,
) -> Result<bool, JournalError> {
    for number in logs {
        if read(storage, &log_name(*number))?.len() > BEGINNING {
            return Ok(false);
        }
    }
    Ok(true)
}

fn read(storage: &dyn Storage, name: &str) -> Result<Vec<u8>, JournalError> {
    storage.read(name).map_err(|error| JournalError::Io { file: name.into(), error })
}

fn error(name: &str, fault: Fault) -> JournalError {
    let file = name.to_owned();
    match fault {
        Fault::Foreign => JournalError::Foreign(file),
        Fault::Newer(format) => JournalError::Newer { file, format },
        Fault::Torn(at) | Fault::Damaged(at) | Fault::Unknown(at) => {
            JournalError::Damaged { file, at }
        }
    }
}

/// What the last write before a power cut left behind is reported, and kept beside the log.
fn keep_torn(storage: &dyn Storage, name: &str, bytes: &[u8], good: u64) {
    let torn = bytes.get(good as usize..).unwrap_or_default();
    let copy = format!("torn-{name}");
    tracing::warn!(
        file = name,
        at = good,
        bytes = torn.len(),
        copy,
        "the broker's log ends in the middle of a record, or what was not synced of it is not whole, as after a power cut: it is cut there"
    );
    let kept = storage.open(&copy, 0).and_then(|file| file.append(&BytesMut::from(torn)));
    if let Err(error) = kept {
        tracing::warn!(%error, copy, "what was cut off could not be kept");
    }
}
