//! Snapshots of the log: writing one, and removing what it stands for.

use bytes::BytesMut;
use std::io;

use super::{
    file,
    image::Image,
    record::{Mark, Record},
    recover::{log_name, numbers, snapshot_name},
    storage::Storage,
    wall_seconds,
};

/// Bytes in one write.
const WRITE_BYTES: usize = 4 * 1024 * 1024;

/// Writes a snapshot, and then removes what is older. Returns its size. Where a log of this name was
/// made before, which goes on from there, it says so: without that log it is not the whole state.
pub(super) fn write_snapshot(
    storage: &dyn Storage,
    number: u64,
    image: &Image,
    log: Option<u64>,
) -> io::Result<u64> {
    let name = snapshot_name(number);
    let unfinished = format!("{name}.tmp");
    let write = || {
        let file = storage.open(&unfinished, 0)?;
        let (mut buffer, mut len) = (file::header(), 0);
        let mut result = Ok(());
        let mut flush = |buffer: &mut BytesMut, least: usize| {
            if buffer.len() > least && result.is_ok() {
                len += buffer.len() as u64;
                result = file.append(buffer);
                buffer.clear();
            }
        };
        image.records(wall_seconds(), |record| {
            file::put(&mut buffer, &record);
            flush(&mut buffer, WRITE_BYTES);
        });
        if let Some(log) = log {
            file::put(&mut buffer, &Record::Mark(Mark { log, synced: 0 }));
        }
        flush(&mut buffer, 0);
        result?;
        file.sync()?;
        storage.rename(&unfinished, &name)?;
        storage.sync_names()?;
        Ok(len)
    };
    let result = write();
    match &result {
        Ok(_) => remove_before(storage, number)?,
        // It takes room that may be needed.
        Err(_) => drop(storage.remove(&unfinished)),
    }
    result
}

/// Removes what the snapshot with this number stands for.
pub(super) fn remove_before(storage: &dyn Storage, number: u64) -> io::Result<()> {
    let (snapshots, logs) = numbers(storage)?;
    let logs = logs.range(..number).map(|old| log_name(*old));
    let snapshots = snapshots.range(..number).map(|old| snapshot_name(*old));
    for name in logs.chain(snapshots) {
        match storage.remove(&name) {
            // A snapshot that was begun before this one, and completed after it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}
