//! A directory with a configuration, a firmware folder and `data_dir`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Daemon, daemon};

/// A site on disk. It survives its daemons, so that one can be restarted on the same data.
pub struct Site {
    dir: tempfile::TempDir,
    settings: BTreeMap<String, String>,
}

impl Site {
    /// Ports chosen by the system, times short enough for tests.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("firmware")).expect("firmware folder");
        let settings = [
            ("data_dir", "\"data\""),
            ("mqtt.listen", "\"127.0.0.1:0\""),
            ("admin.listen", "\"127.0.0.1:0\""),
            ("store.url", "\"file:firmware\""),
            ("store.settle", "\"200ms\""),
            ("store.poll_interval", "\"300ms\""),
            ("fuota.resume_grace", "\"500ms\""),
        ];
        let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Site { dir, settings: settings.into() }
    }

    /// Sets one key to a value written as TOML. Takes effect with the next start.
    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.settings.insert(key.into(), value.into());
        self
    }

    /// Where everything lies.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The watched folder.
    pub fn firmware(&self) -> PathBuf {
        self.path().join("firmware")
    }

    /// Where the copy of these bytes is.
    pub fn copy_of(&self, bytes: &[u8]) -> PathBuf {
        let name = super::sha256(bytes);
        self.path().join("data/objects/sha256").join(&name[..2]).join(&name)
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.path().join("broker.toml")
    }

    /// Starts a daemon and waits until it is ready.
    pub fn start(&self) -> Daemon {
        Daemon::start(self.command(&["serve"]), self.path().join("data"))
    }

    /// Runs `fuotad` with these arguments and this site's configuration, to its end.
    pub fn run(&self, arguments: &[&str]) -> daemon::Ended {
        daemon::run_to_end(self.command(arguments))
    }

    /// The command, for tests that change its environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.write_config();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fuotad"));
        command.args(arguments).arg("--config").arg(self.config()).current_dir(self.path());
        // Only what a test sets may configure the daemon.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FUOTAD__") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command
    }

    /// Writes the configuration file as it is set now.
    pub fn write_config(&self) {
        let lines = self.settings.iter().map(|(key, value)| format!("{key} = {value}\n"));
        fs::write(self.config(), lines.collect::<String>()).expect("broker.toml");
    }

    /// Takes a key out of the configuration file.
    pub fn unset(&mut self, key: &str) -> &mut Self {
        self.settings.remove(key);
        self
    }

    /// Puts a file into the watched folder by a rename, so that it counts as complete at once.
    pub fn drop_file(&self, path: &str, bytes: &[u8]) {
        let staged = self.path().join("staged");
        fs::write(&staged, bytes).expect("staging");
        let target = self.firmware().join(path);
        fs::create_dir_all(target.parent().expect("inside the folder")).expect("folders");
        fs::rename(staged, target).expect("rename");
    }

    /// Removes a file from the watched folder.
    pub fn remove_file(&self, path: &str) {
        fs::remove_file(self.firmware().join(path)).expect("the file is there");
    }
}
