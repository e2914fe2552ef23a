//! Where the bytes of the log lie. Tests put something in its place that fails, or that forgets
//! what was not synced.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A directory of files that only grow at their end.
pub trait Storage: Send + Sync + 'static {
    /// The names of all files.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A whole file.
    ///
    /// # Errors
    /// It cannot be read.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// A file to append to, with its first `keep` bytes and nothing behind them; made where it is
    /// missing.
    ///
    /// # Errors
    /// It cannot be opened, made or cut.
    fn open(&self, name: &str, keep: u64) -> io::Result<Arc<dyn LogFile>>;

    /// Gives a file another name, in place of what had it.
    ///
    /// # Errors
    /// It cannot be renamed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// It cannot be removed.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes names durable: those that were made, changed and removed.
    ///
    /// # Errors
    /// The system could not.
    fn sync_names(&self) -> io::Result<()>;
}

/// A file that only grows at its end. Appending is done by one thread; another may sync meanwhile.
pub trait LogFile: Send + Sync {
    /// Appends all bytes and hands them to the operating system.
    ///
    /// # Errors
    /// The disk is full, or worse. Some of the bytes may have been written.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file.
    ///
    /// # Errors
    /// The system could not.
    fn cut(&self, len: u64) -> io::Result<()>;

    /// Makes durable what was appended.
    ///
    /// # Errors
    /// The system could not; what is durable is unknown then.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the operating system, readable by its owner alone.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Makes it where it is missing, for good: what is synced in it is lost with its name.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(path: &Path) -> io::Result<Self> {
        let is_new = !path.exists();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        if is_new && let Some(parent) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Directory(path.to_owned()))
    }
}

impl Storage for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.0)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(name))
    }

    fn open(&self, name: &str, keep: u64) -> io::Result<Arc<dyn LogFile>> {
        let file =
            OpenOptions::new().append(true).create(true).mode(0o600).open(self.0.join(name))?;
        if file.metadata()?.len() > keep {
            file.set_len(keep)?;
        }
        Ok(Arc::new(Appended(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

struct Appended(File);

impl LogFile for Appended {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.0).write_all(bytes)
    }

    fn cut(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
