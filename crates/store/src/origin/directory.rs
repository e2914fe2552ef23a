//! A directory as the place where firmware is dropped.
//!
//! `object_store` has a file system of its own, but that one follows every link, opens whatever
//! it finds, and gives up a listing at the first name that is not UTF-8. Whoever can write into
//! the watched directory must not make the daemon serve `/etc/shadow` or hang in a FIFO, so this
//! one looks before it opens:
//!
//! - A link is followed only if it ends within the root. What is opened is the resolved path,
//!   whose last part may not be a link any more, without waiting, and what was opened must be
//!   the regular file that was listed.
//! - Only the folders of the contract are entered, so links cannot lead around in circles.
//!
//! It is read-only. All blocking work runs where blocking is allowed.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult,
};

use super::{Fingerprint, Listed, Listing};
use crate::paths::{self, Folder};

/// The watched directory.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
}

/// Why something in the directory is no firmware, as a sentence.
type Unusable = String;

impl Directory {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &FsPath {
        &self.root
    }

    /// Looks through the folders of the contract. Blocks. The error is a sentence.
    pub(super) fn survey(&self) -> Result<Listing, String> {
        let shown = self.root.display();
        let cannot = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => format!(
                "the watched directory {shown} is missing: create it, or mount what belongs there"
            ),
            io::ErrorKind::NotADirectory => format!("{shown} is not a directory"),
            _ => format!("cannot list the watched directory {shown}: {error}"),
        };
        let root = fs::canonicalize(&self.root).map_err(cannot)?;
        let metadata = fs::symlink_metadata(&root).map_err(cannot)?;
        let mut survey = Survey {
            now: SystemTime::now(),
            listing: Listing { root: Some(identity(&metadata)), ..Listing::default() },
            root,
        };
        let root = survey.root.clone();
        survey.folder(&root, "").map_err(cannot)?;
        Ok(survey.listing)
    }

    /// Opens a file for reading, if it is one that a listing would show.
    fn open(&self, location: &Path) -> Result<(File, Metadata), Error> {
        let path = self.root.join(location.as_ref());
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => {
                Error::NotFound { path: location.to_string(), source: source.into() }
            }
            _ => Error::Generic { store: "directory", source: source.into() },
        };
        let root = fs::canonicalize(&self.root).map_err(failed)?;
        let resolved = fs::canonicalize(&path).map_err(failed)?;
        if !resolved.starts_with(&root) {
            return Err(failed(io::Error::other(LEAVES_ROOT)));
        }
        let mut options = OpenOptions::new();
        options.read(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(
            &mut options,
            libc::O_NOFOLLOW | libc::O_NONBLOCK,
        );
        // Opening a FIFO without waiting still wakes its writer; only a swap in this instant
        // gets that far.
        let kind = fs::symlink_metadata(&resolved).map_err(failed)?;
        if !kind.is_file() {
            return Err(failed(io::Error::other(NOT_REGULAR)));
        }
        let file = options.open(&resolved).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(io::Error::other(NOT_REGULAR)));
        }
        Ok((file, metadata))
    }
}

const LEAVES_ROOT: &str =
    "it is a link that leads out of the watched directory: copy the file itself here";
const NOT_REGULAR: &str =
    "it is not a regular file (a FIFO, socket or device): only files can be firmware, remove it";

/// One look through the directory.
struct Survey {
    root: PathBuf,
    now: SystemTime,
    listing: Listing,
}

impl Survey {
    /// Lists one folder, `path` relative to the root, and those below it.
    fn folder(&mut self, real: &FsPath, path: &str) -> io::Result<()> {
        let entries = fs::read_dir(real)?;
        self.listing.folders.push(path.to_owned());
        for entry in entries {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                let name = entry.file_name();
                let shown = join(path, &name.as_encoded_bytes().escape_ascii().to_string());
                self.refuse(shown, "its name is not UTF-8 text: rename it".into());
                continue;
            };
            // Hidden things are none of ours, whatever they are.
            if !name.starts_with('.') {
                self.entry(&entry.path(), join(path, &name));
            }
        }
        Ok(())
    }

    fn entry(&mut self, real: &FsPath, path: String) {
        let (real, metadata) = match self.resolve(real) {
            Ok(found) => found,
            // Gone since the folder was read: the next look will not see it either.
            Err(None) => return,
            Err(Some(reason)) => {
                if !matches!(paths::classify(&path), paths::Place::Ignored) {
                    self.refuse(path, reason);
                }
                return;
            }
        };
        if metadata.is_dir() {
            match paths::folder(&path) {
                Folder::Open => {
                    if Some(identity(&metadata).0) != self.listing.root.map(|(device, _)| device) {
                        self.listing.mounts.insert(path.clone());
                    }
                    if let Err(error) = self.folder(&real, &path) {
                        if error.kind() == io::ErrorKind::NotFound {
                            return;
                        }
                        let reason = format!(
                            "the folder cannot be listed ({error}): let the daemon's user read \
                             it; what was in it stays as it was"
                        );
                        self.listing.unknown.push(path.clone());
                        self.refuse(path, reason);
                    }
                }
                Folder::Ignored => {}
                Folder::Refused(reason) => self.refuse(path, reason),
            }
        } else if Path::parse(&path).is_err()
            && matches!(paths::classify(&path), paths::Place::Firmware(_))
        {
            // Its companions and its status file are called like it: they are not opened, so that
            // the word on one file is the only one.
            let reason = "its name has characters that cannot be used: rename it";
            self.refuse(path, reason.into());
        } else {
            let age = changed(&metadata).and_then(|time| self.now.duration_since(time).ok());
            let listed = Listed {
                size: metadata.len(),
                fingerprint: fingerprint(&metadata),
                age,
                dated: None,
            };
            self.listing.files.insert(path, listed);
        }
    }

    /// Follows links within the root. `Err(None)` means that it is gone.
    fn resolve(&self, real: &FsPath) -> Result<(PathBuf, Metadata), Option<Unusable>> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => None,
            _ => Some(format!("it cannot be looked at ({error}): correct its permissions")),
        };
        let metadata = fs::symlink_metadata(real).map_err(failed)?;
        let (real, metadata) = if metadata.is_symlink() {
            let target = fs::canonicalize(real).map_err(|error| {
                Some(format!("it is a link that leads nowhere ({error}): remove it"))
            })?;
            if !target.starts_with(&self.root) {
                return Err(Some(LEAVES_ROOT.to_owned()));
            }
            let metadata = fs::symlink_metadata(&target).map_err(failed)?;
            (target, metadata)
        } else {
            (real.to_owned(), metadata)
        };
        if metadata.is_file() || metadata.is_dir() {
            Ok((real, metadata))
        } else {
            Err(Some(NOT_REGULAR.to_owned()))
        }
    }

    fn refuse(&mut self, path: String, reason: Unusable) {
        self.listing.unusable.insert(path, reason);
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Size, both times and inode. The change time is in it because nobody can set it: a file that
/// is overwritten in place and given its old date back is still another file.
#[cfg(unix)]
fn fingerprint(metadata: &Metadata) -> Fingerprint {
    use std::os::unix::fs::MetadataExt as _;
    Fingerprint(format!(
        "{:x}-{:x}-{:x}.{:x}-{:x}.{:x}",
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ))
}

#[cfg(not(unix))]
fn fingerprint(metadata: &Metadata) -> Fingerprint {
    let mtime = changed(metadata).and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    Fingerprint(format!("{:x}-{:x}", metadata.len(), mtime.unwrap_or_default().as_nanos()))
}

/// When the file was last touched in any way.
#[cfg(unix)]
fn changed(metadata: &Metadata) -> Option<SystemTime> {
    use std::os::unix::fs::MetadataExt as _;
    let seconds = u64::try_from(metadata.ctime()).ok()?;
    let nanos = u32::try_from(metadata.ctime_nsec()).ok()?;
    let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
    Some(metadata.modified().map_or(changed, |modified| modified.max(changed)))
}

#[cfg(not(unix))]
fn changed(metadata: &Metadata) -> Option<SystemTime> {
    metadata.modified().ok()
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> (u64, u64) {
    (0, 0)
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "directory {}", self.root.display())
    }
}

fn read_only<T>(operation: &str) -> object_store::Result<T> {
    Err(Error::NotImplemented {
        operation: operation.to_owned(),
        implementer: "the watched directory, which is only read".to_owned(),
    })
}

#[async_trait]
impl ObjectStore for Directory {
    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        let directory = Self::new(self.root.clone());
        let at = location.clone();
        let opened = tokio::task::spawn_blocking(move || directory.open(&at));
        let (file, metadata) = opened.await??;
        let meta = ObjectMeta {
            location: location.clone(),
            last_modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH).into(),
            size: metadata.len(),
            e_tag: Some(fingerprint(&metadata).0),
            version: None,
        };
        options.check_preconditions(&meta)?;
        let range = match options.range {
            None => 0..meta.size,
            Some(range) => range
                .as_range(meta.size)
                .map_err(|error| Error::Generic { store: "directory", source: error.into() })?,
        };
        Ok(GetResult {
            payload: GetResultPayload::File(file, self.root.join(location.as_ref())),
            meta,
            range,
            attributes: Attributes::default(),
            extensions: Default::default(),
        })
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let directory = Arc::new(Self::new(self.root.clone()));
        let prefix = prefix.cloned().unwrap_or_default();
        let found = async move {
            let survey = tokio::task::spawn_blocking(move || directory.survey()).await?;
            let listing = survey
                .map_err(|reason| Error::Generic { store: "directory", source: reason.into() })?;
            let objects: Vec<_> = listing
                .files
                .into_iter()
                .filter_map(|(path, listed)| object(&path, &listed))
                .filter(|meta| meta.location.prefix_matches(&prefix))
                .map(Ok)
                .collect();
            Ok(stream::iter(objects))
        };
        use futures_util::TryFutureExt as _;
        found.try_flatten_stream().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> object_store::Result<ListResult> {
        read_only("listing of one folder")
    }

    async fn put_opts(
        &self,
        _: &Path,
        _: PutPayload,
        _: PutOptions,
    ) -> object_store::Result<PutResult> {
        read_only("put")
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        read_only("put")
    }

    fn delete_stream(
        &self,
        _: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        stream::iter([read_only("delete")]).boxed()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> object_store::Result<()> {
        read_only("copy")
    }
}

fn object(path: &str, listed: &Listed) -> Option<ObjectMeta> {
    let age = listed.age.unwrap_or_default();
    Some(ObjectMeta {
        location: Path::parse(path).ok()?,
        last_modified: (SystemTime::now() - age).into(),
        size: listed.size,
        e_tag: Some(listed.fingerprint.0.clone()),
        version: None,
    })
}
