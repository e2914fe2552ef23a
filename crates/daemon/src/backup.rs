//! A backup of everything at one moment, while the daemon runs: a `data_dir` to start on.
//!
//! The moment is one between two commits of the fleet's database. There the state of the broker's
//! log is copied in memory, then the database into a file; the images follow, which never change.
//! It is made under another name and renamed when it is complete and synced.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use admin::{BackupError, BackupView};
use tokio::sync::{Mutex, oneshot};
use tracing::{info, warn};

/// The file that says, while a backup is made, that its directory is one.
const MARKER: &str = "unfinished-backup";

/// What makes backups; one at a time.
pub struct Backups {
    server: Arc<broker::Server>,
    service: fuota::Service,
    /// The file with the generated admin token, where there is one.
    token: Option<PathBuf>,
    running: Mutex<()>,
}

impl Backups {
    /// Of this daemon.
    pub fn new(
        server: Arc<broker::Server>,
        service: fuota::Service,
        token: Option<PathBuf>,
    ) -> Arc<Self> {
        Arc::new(Backups { server, service, token, running: Mutex::new(()) })
    }

    /// As the admin interface calls it. Goes on when nobody waits for it any more.
    pub fn door(self: &Arc<Self>) -> admin::Backup {
        let backups = Arc::clone(self);
        Arc::new(move |path| {
            let backups = Arc::clone(&backups);
            let task = tokio::spawn(async move { backups.make(&path).await });
            Box::pin(async move {
                task.await.unwrap_or_else(|error| Err(BackupError::Failed(error.to_string())))
            })
        })
    }

    /// Into a new directory, or not at all.
    async fn make(&self, path: &Path) -> Result<BackupView, BackupError> {
        let Ok(_one) = self.running.try_lock() else { return Err(BackupError::Busy) };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(BackupError::Path("must name a directory".into()));
        };
        if fs::symlink_metadata(path).is_ok() {
            return Err(BackupError::Path("exists already; name a new directory".into()));
        }
        let unfinished = parent.join(format!("{}.unfinished", name.to_string_lossy()));
        let marker = unfinished.join(MARKER);
        // What an earlier one left when the daemon ended amid it, and nothing else.
        if marker.is_file() {
            let _ = fs::remove_dir_all(&unfinished);
        }
        let cannot = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => BackupError::Path(format!(
                "cannot be made beside {}, which no backup has left: move that away",
                unfinished.display()
            )),
            _ => BackupError::Path(format!("cannot be made: {error}")),
        };
        DirBuilder::new().mode(0o700).create(&unfinished).map_err(cannot)?;
        let made = match File::create(&marker) {
            Ok(_) => self.fill(&unfinished).await,
            Err(error) => Err(BackupError::Path(format!("cannot be written: {error}"))),
        };
        let made = made.and_then(|view| {
            fs::remove_file(&marker)
                .and_then(|()| fs::rename(&unfinished, path))
                .and_then(|()| File::open(parent)?.sync_all())
                .map_err(|error| BackupError::Failed(format!("{}: {error}", path.display())))?;
            Ok(BackupView { path: path.display().to_string(), ..view })
        });
        match &made {
            Ok(view) => info!(path = view.path, images = view.images, "backup made"),
            Err(error) => {
                warn!(path = %path.display(), %error, "no backup was made");
                let _ = fs::remove_dir_all(&unfinished);
            }
        }
        made
    }

    async fn fill(&self, directory: &Path) -> Result<BackupView, BackupError> {
        let (told, log) = oneshot::channel();
        let server = Arc::clone(&self.server);
        let at = Box::new(move || drop(told.send(server.snapshot())));
        let failed = |error: &dyn std::fmt::Display| BackupError::Failed(error.to_string());
        let (images, image_bytes) =
            self.service.copy_to(directory, at).await.map_err(|error| failed(&error))?;
        let Ok(Some(log)) = log.await else {
            return Err(BackupError::Failed("the broker has stopped".into()));
        };
        let (directory, token) = (directory.to_owned(), self.token.clone());
        let rest = move || -> io::Result<()> {
            log.save(&directory.join("broker"))?;
            if let Some(token) = token {
                let copy = directory.join("admin.token");
                fs::copy(token, &copy)?;
                File::open(copy)?.sync_all()?;
            }
            File::open(directory)?.sync_all()
        };
        match tokio::task::spawn_blocking(rest).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failed(&error)),
            Err(error) => return Err(failed(&error)),
        }
        Ok(BackupView { path: String::new(), images, image_bytes })
    }
}
