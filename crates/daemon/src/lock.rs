//! One daemon per data directory.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context as _, bail};

/// Held as long as the process may write to the data directory. The operating system releases
/// the lock when the process ends, however it ends.
#[derive(Debug)]
pub struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Creates the directory where it is missing, readable by the owner alone, and locks it.
    ///
    /// # Errors
    /// The directory cannot be made or written, or another process holds it; the message names
    /// the path and the process.
    pub fn claim(path: &Path) -> anyhow::Result<Self> {
        let (shown, is_new) = (path.display(), !path.exists());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            // Its name as well: what is synced in it would be lost with that.
            .and_then(|()| match path.parent() {
                Some(parent) if is_new => File::open(parent)?.sync_all(),
                _ => Ok(()),
            })
            .with_context(|| format!("data_dir {shown} cannot be created"))?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .with_context(|| format!("data_dir {shown} cannot be written"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message: a lock file without a pid is no other error.
                let _ = lock.read_to_string(&mut holder);
                let holder = match holder.trim().parse::<u32>() {
                    Ok(pid) => format!("process {pid}"),
                    Err(_) => "another process".to_owned(),
                };
                bail!(
                    "data_dir {shown} is in use by {holder}; stop that fuotad first or choose another data_dir"
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("data_dir {shown} cannot be locked"));
            }
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .with_context(|| format!("data_dir {shown} cannot be written"))?;
        Ok(DataDir { _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_claim_names_path_and_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let first = DataDir::claim(&path).unwrap();
        let message = format!("{:#}", DataDir::claim(&path).unwrap_err());
        assert!(message.contains(&path.display().to_string()), "{message}");
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        drop(first);
        DataDir::claim(&path).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        std::fs::write(&path, "").unwrap();
        let message = format!("{:#}", DataDir::claim(&path).unwrap_err());
        assert!(message.contains("cannot be created"), "{message}");
    }

    #[test]
    fn others_may_not_look_inside() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let _held = DataDir::claim(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
}
