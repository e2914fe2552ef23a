//! `broker.toml` and the environment, as one typed value.
//!
//! | module | subject |
//! | --- | --- |
//! | [`keys`] | the table of all keys: names, defaults, what is a secret |
//! | [`tree`] | file and environment merged; unknown keys are found here |
//! | [`read`](mod@read) | typed reading, with an error that names the key |
//! | [`limits`] | the lines of `fuota.limits.groups` |
//! | [`sections`](self) | the sections of the file as values |
//! | [`assemble`] | every key read into its section |
//! | [`check`] | what the keys must not say together |
//! | [`webhooks`] | one key that is a list of tables |
//! | [`values`](Values) | what changed between two readings |
//! | [`secret`] | values that no output shows |

mod assemble;
mod check;
mod error;
pub mod keys;
mod limits;
mod overview;
mod read;
pub mod secret;
mod sections;
#[cfg(test)]
mod tests;
mod tree;
mod values;
pub mod webhooks;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

pub use error::ConfigError;
pub use overview::Setting;
pub use secret::Secret;
pub use sections::{Admin, Auth, Fuota, Http, Limits, Log, LogFormat, Mqtt, S3, Store};
pub use values::Values;
pub use webhooks::Webhook;

use broker::journal::Sync;
use read::Reader;
use tree::Tree;

/// The daemon's configuration: complete, typed and checked. Paths are absolute.
#[derive(Debug)]
pub struct Config {
    /// The file it came from; `None` where there is no `broker.toml` and the defaults apply.
    pub file: Option<PathBuf>,
    /// What relative paths are relative to: the directory of the file.
    pub base_dir: PathBuf,
    /// Database, content-addressed copies, admin token.
    pub data_dir: PathBuf,
    /// `mqtt.*`.
    pub mqtt: Mqtt,
    /// `http.*`: downloads by devices.
    pub http: Http,
    /// `auth.*`.
    pub auth: Auth,
    /// `store.*`.
    pub store: Store,
    /// `fuota.*`.
    pub fuota: Fuota,
    /// `events.webhooks`.
    pub webhooks: Vec<Webhook>,
    /// `limits.*`.
    pub limits: Limits,
    /// `persistence.sync`.
    pub sync: Sync,
    /// `log.*`.
    pub log: Log,
    /// `admin.*`.
    pub admin: Admin,
    /// Every key that this version knows with the value that applies, for `check-config`.
    pub settings: Vec<Setting>,
    /// The same, to be compared with those of another reading.
    pub values: Values,
}

impl Config {
    /// Reads the file (`broker.toml` where `path` is `None`) and the process's environment.
    ///
    /// # Errors
    /// A file that cannot be read, unknown keys, wrong types, values that this version cannot
    /// do or that do not go together: see [`ConfigError`].
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        // Variables that are not Unicode are nobody's configuration.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self::load_with(path, environment)
    }

    /// As [`Config::load`], with an environment of the caller's.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with(
        path: Option<&Path>,
        environment: HashMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let tree = Tree::load(path, environment)?;
        let mut reader = Reader::new(&tree);
        reader.problems.extend(tree.problems.iter().cloned());
        let config = assemble::config(&mut reader, &tree);
        if let Some(config) = &config {
            check::check(config, &mut reader);
        }
        ConfigError::check(reader.problems)?;
        // Only a default of the table that does not parse leads here, which a test rules out.
        config.ok_or_else(|| ConfigError::one("the configuration is incomplete"))
    }

    /// The file with the admin token, where the configuration gives none itself.
    pub fn token_path(&self) -> PathBuf {
        self.data_dir.join("admin.token")
    }
}
