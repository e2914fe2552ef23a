//! The limit on open files, and who may use how much of it.
//!
//! A connection is an open file, and the usual soft limit of 1024 is less than a site has. The
//! rest is as important: a broker that has none left for its database, a firmware file or the
//! admin interface cannot be helped from outside any more. So a part is set aside:
//!
//! | of the hard limit | for |
//! | --- | --- |
//! | half of it, 512 at most | what is not a client |
//! | half of that | connections of the admin interface |
//! | the other half | listeners, the runtime, database and log, images that are copied or read |
//! | all the rest | clients; with `http.listen` a quarter of it, 1024 at most, for downloads |

use anyhow::bail;
use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

/// What is set aside where the limit is high enough.
pub const RESERVED: usize = 512;
/// Without this many there is no room to work in: about 30 are used while nobody is connected.
const LEAST: usize = 128;

/// How many connections there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// Of clients; `None` where there is no limit.
    clients: Option<usize>,
    /// Of the admin interface, over all its addresses.
    pub admin: usize,
    /// Of downloads over HTTP, likewise.
    pub downloads: usize,
}

/// Downloads at once where there is room for them.
const DOWNLOADS: usize = 1024;

impl OpenFiles {
    /// Raises the soft limit to the hard one, and divides that.
    ///
    /// # Errors
    /// The limit is too low to work with.
    pub fn claim() -> anyhow::Result<Self> {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            warn!(%error, "the limit on open files cannot be raised");
        }
        // `None` is no limit.
        let files = getrlimit(Resource::Nofile).current;
        Self::of(files.map(|files| usize::try_from(files).unwrap_or(usize::MAX)))
    }

    fn of(files: Option<usize>) -> anyhow::Result<Self> {
        let Some(files) = files else {
            return Ok(OpenFiles { clients: None, admin: RESERVED / 2, downloads: 0 });
        };
        if files < LEAST {
            bail!(
                "the system's limit on open files is {files}, and fuotad needs {LEAST} at least: \
                 raise it with `ulimit -Hn`, or LimitNOFILE= of the service"
            );
        }
        let reserved = RESERVED.min(files / 2);
        Ok(OpenFiles { clients: Some(files - reserved), admin: reserved / 2, downloads: 0 })
    }

    /// With room for downloads.
    pub fn with_downloads(self) -> Self {
        let downloads = self.clients.map_or(DOWNLOADS, |room| DOWNLOADS.min(room / 4));
        let clients = self.clients.map(|room| room - downloads);
        OpenFiles { clients, downloads, ..self }
    }

    /// The connections of clients, where the configuration wants so many.
    pub fn connections(&self, wanted: usize) -> usize {
        self.clients.map_or(wanted, |room| room.min(wanted))
    }

    /// Says so where the configuration gets less than it wants.
    pub fn report(&self, wanted: usize) {
        let connections = self.connections(wanted);
        if connections < wanted {
            info!(
                wanted,
                connections, "the system's limit on open files bounds limits.connections"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_set_aside_and_clients_get_the_rest() {
        let of = |files| OpenFiles::of(files).unwrap();
        assert_eq!(of(Some(20_000)), OpenFiles { clients: Some(19_488), admin: 256, downloads: 0 });
        assert_eq!(of(Some(1024)), OpenFiles { clients: Some(512), admin: 256, downloads: 0 });
        assert_eq!(of(Some(256)), OpenFiles { clients: Some(128), admin: 64, downloads: 0 });
        let with = of(Some(1024)).with_downloads();
        assert_eq!(with, OpenFiles { clients: Some(384), admin: 256, downloads: 128 });
        assert_eq!(of(None).connections(100_000), 100_000);
        assert_eq!((of(Some(1024)).connections(600), of(Some(1024)).connections(7)), (512, 7));
        let refused = OpenFiles::of(Some(LEAST - 1)).unwrap_err().to_string();
        assert!(refused.contains("limit on open files is 127"), "{refused}");
    }
}
