//! What the store is told at start, and what is wrong with it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::signature::Trust;

/// Where firmware comes from, where copies go, and the limits between.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `file:PATH` or `s3://BUCKET/PREFIX`.
    pub url: String,
    /// What a relative `file:` path is relative to.
    pub base_dir: PathBuf,
    /// How an `s3://` bucket is reached.
    pub s3: S3Settings,
    /// The daemon's own directory; copies go to `objects/` in it.
    pub data_dir: PathBuf,
    /// How long a plain binary must stand unchanged before it counts as complete (rule 7).
    pub settle: Duration,
    /// How often the directory is looked through, or the bucket listed, without a cause.
    pub poll_interval: Duration,
    /// The largest image that is accepted, in bytes.
    pub max_size: u64,
    /// The most bytes of images kept in memory between reads. At least one segment of 1 MiB
    /// is always kept.
    pub cache_bytes: usize,
    /// The most bytes that copies may have together in `data_dir`; `None`: as many as the disk
    /// holds. What no device needs goes first.
    pub quota: Option<u64>,
    /// How long a copy that nothing needs is kept.
    pub keep_unused: Duration,
    /// Which signatures are believed, and whether there must be one.
    pub trust: Arc<Trust>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: "file:firmware".into(),
            base_dir: PathBuf::from("."),
            s3: S3Settings::default(),
            data_dir: PathBuf::from("data"),
            settle: Duration::from_secs(2),
            poll_interval: Duration::from_secs(30),
            max_size: 512 << 20,
            cache_bytes: 64 << 20,
            quota: None,
            keep_unused: Duration::from_secs(24 * 3600),
            trust: Arc::default(),
        }
    }
}

/// How a bucket is reached. What is absent comes from the usual `AWS_*` variables, and then
/// from the environment's own credentials (web identity, container, instance). A key of these
/// settings is used alone, without the session token of the environment.
#[derive(Clone)]
pub struct S3Settings {
    /// Base address of the server, such as `https://garage.example:3900`; buckets are
    /// addressed by path below it. Absent: that of `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, else
    /// Amazon's, in `region`.
    pub endpoint: Option<String>,
    /// Absent: `AWS_REGION`, else `us-east-1`.
    pub region: Option<String>,
    /// Set together with `secret_access_key` or not at all.
    pub access_key_id: Option<String>,
    /// Never shown.
    pub secret_access_key: Option<String>,
    /// Permits an endpoint without TLS. `AWS_ALLOW_HTTP` permits it for one of `AWS_ENDPOINT_URL`.
    pub allow_http: bool,
    /// How long a request is tried again before it counts as failed. The next listing is due soon
    /// anyway, and until then nothing is known to have changed.
    pub retry_for: Duration,
}

impl Default for S3Settings {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key: None,
            allow_http: false,
            retry_for: Duration::from_secs(15),
        }
    }
}

impl fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Settings")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("secret_access_key", &self.secret_access_key.as_ref().map(|_| "…"))
            .field("allow_http", &self.allow_http)
            .finish()
    }
}

/// Why a store could not be opened. Each text is one line that says what to change.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// `store.url` is neither a directory nor a bucket.
    #[error("store.url {url:?}: {reason}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it, and what is expected.
        reason: String,
    },
    /// The settings of the bucket do not fit together.
    #[error("store.s3: {0}")]
    S3(String),
    /// The place for copies cannot be used.
    #[error("cannot use {path} for copies of firmware: {source}", path = path.display())]
    DataDir {
        /// The directory that was tried.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_not_shown() {
        let s3 = S3Settings { secret_access_key: Some("hunter2".into()), ..S3Settings::default() };
        assert!(!format!("{s3:?}").contains("hunter2"));
    }
}
