//! The admin token in the data directory.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context as _, bail};

use crate::config::Secret;

/// Random bytes in a generated token.
const TOKEN_BYTES: usize = 32;

/// The token of the file, or a new one of 256 bits written there, readable by the owner alone.
///
/// # Errors
/// The file cannot be read or written, or is empty.
pub fn load_or_create(path: &Path) -> anyhow::Result<Secret> {
    match read(path) {
        Err(error) if is_missing(&error) => create(path),
        other => other,
    }
}

/// The token of the file.
///
/// # Errors
/// The file cannot be read, or is empty.
pub fn read(path: &Path) -> anyhow::Result<Secret> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("the admin token in {} cannot be read", path.display()))?;
    if text.trim().is_empty() {
        bail!(
            "the admin token in {} is empty; delete the file and the daemon makes a new one",
            path.display()
        );
    }
    Ok(Secret::new(text.trim().to_owned()))
}

/// Whether the error of [`read`] is that there is no such file.
pub fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::NotFound)
}

fn create(path: &Path) -> anyhow::Result<Secret> {
    let mut bytes = [0u8; TOKEN_BYTES];
    getrandom::fill(&mut bytes)
        .context("the system gives no random numbers for the admin token")?;
    let token = hex::encode(bytes);
    // Written aside and moved, so that nobody ever reads half a token.
    let aside = path.with_extension("token.new");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)
        .and_then(|mut file| {
            writeln!(file, "{token}")?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&aside, path));
    written.with_context(|| format!("the admin token cannot be written to {}", path.display()))?;
    Ok(Secret::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.token");
        let first = load_or_create(&path).unwrap();
        assert_eq!(first.expose().len(), 64, "256 bits in hexadecimal");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load_or_create(&path).unwrap(), first);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(load_or_create(&other.path().join("admin.token")).unwrap(), first);
    }

    #[test]
    fn an_empty_file_is_an_error_and_not_an_empty_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.token");
        fs::write(&path, "\n").unwrap();
        assert!(load_or_create(&path).is_err());
    }
}
