//! The watched directory at start: made where it is the default, looked at where it is not.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::config::Config;

/// The directory that is made where nobody named another.
const DEFAULT_URL: &str = "file:firmware";
/// The folders that the watched directory knows.
const FOLDERS: [&str; 4] = ["all", "groups", "models", "devices"];
/// The firmware database: where it exists, this is not the first start.
pub const DATABASE: &str = "fuota.db";

/// What is watched, as start-up prints it.
pub fn shown(config: &Config) -> String {
    path(config).map_or_else(|| config.store.url.clone(), |path| path.display().to_string())
}

/// Makes the default directory, or checks that the one that was named can be read.
///
/// A directory that is missing although it was there at an earlier start is no error: it may be
/// a mount that comes back, and until then the store says that it is unavailable (rule 6).
///
/// # Errors
/// The directory cannot be made or read, or is missing at the very first start.
pub fn prepare(config: &Config) -> anyhow::Result<()> {
    let Some(path) = path(config) else { return Ok(()) };
    let shown = path.display();
    let first_start = !config.data_dir.join(DATABASE).exists();
    if config.store.url == DEFAULT_URL && (first_start || path.exists()) {
        return make(&path);
    }
    match fs::read_dir(&path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound && first_start => {
            bail!("store.url: there is no directory {shown}; create it or correct store.url")
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            tracing::warn!(directory = %shown, "the watched directory is missing; the store is unavailable until it is back");
            Ok(())
        }
        Err(error) => {
            Err(error).with_context(|| format!("store.url: the directory {shown} cannot be read"))
        }
    }
}

/// The default directory and its folders, so that people see where files go. A directory that
/// is there and may not be written is no error.
fn make(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path)
        .with_context(|| format!("store.url: the directory {} cannot be made", path.display()))?;
    fs::read_dir(path)
        .with_context(|| format!("store.url: the directory {} cannot be read", path.display()))?;
    for folder in FOLDERS {
        let folder = path.join(folder);
        if let Err(error) = fs::create_dir_all(&folder) {
            tracing::warn!(folder = %folder.display(), %error, "a folder for firmware cannot be made");
        }
    }
    Ok(())
}

/// Whether it is the directory that is made where nobody named another.
pub fn is_default(config: &Config) -> bool {
    config.store.url == DEFAULT_URL
}

/// Where the watched directory is; `None` for a bucket.
pub fn path(config: &Config) -> Option<PathBuf> {
    let path = config.store.url.strip_prefix("file:")?;
    // `file:///srv/firmware` is the same place as `file:/srv/firmware`.
    let path = path.strip_prefix("//").unwrap_or(path);
    Some(config.base_dir.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn config(dir: &Path, text: &str) -> Config {
        let file = dir.join("broker.toml");
        fs::write(&file, text).unwrap();
        Config::load_with(Some(&file), HashMap::new()).unwrap()
    }

    #[test]
    fn the_default_directory_is_made_beside_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), "");
        prepare(&config).unwrap();
        for folder in FOLDERS {
            assert!(dir.path().join("firmware").join(folder).is_dir(), "{folder}");
        }
        prepare(&config).unwrap();
        assert_eq!(shown(&config), dir.path().join("firmware").display().to_string());
    }

    #[test]
    fn a_named_directory_must_exist_at_the_first_start_only() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), "store.url = \"file:///nowhere/at/all\"");
        let message = prepare(&config).unwrap_err().to_string();
        assert_eq!(
            message,
            "store.url: there is no directory /nowhere/at/all; create it or correct store.url"
        );
        fs::create_dir(&config.data_dir).unwrap();
        fs::write(config.data_dir.join(DATABASE), "").unwrap();
        prepare(&config).unwrap();
    }

    #[test]
    fn a_default_directory_that_went_away_is_not_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), "");
        fs::create_dir(&config.data_dir).unwrap();
        fs::write(config.data_dir.join(DATABASE), "").unwrap();
        prepare(&config).unwrap();
        assert!(!dir.path().join("firmware").exists(), "an empty one would look like deletions");
    }

    #[test]
    fn what_is_no_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let error = prepare(&config(dir.path(), "store.url = \"file:file\"")).unwrap_err();
        assert!(error.to_string().contains("cannot be read"), "{error}");
    }

    #[test]
    fn a_bucket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), "store.url = \"s3://bucket/prefix\"");
        prepare(&config).unwrap();
        assert_eq!(shown(&config), "s3://bucket/prefix");
    }
}
