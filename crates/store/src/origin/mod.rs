//! The place where firmware is dropped, a directory or a bucket, behind `object_store`.
//!
//! Nothing outside this folder knows that crate. Reading is one code for both: ranges of a
//! file, each under the condition that the file still has the fingerprint that was listed. The
//! fingerprint is the `ETag`. Only the listing differs: a bucket's comes from the server,
//! a directory's from [`directory`], which meets links, FIFOs and names that no bucket has.

mod bucket;
mod directory;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt as _};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _};
use tokio::time::{Instant, sleep_until};

use crate::settings::{Settings, StoreError};
use directory::Directory;

/// Bytes that are read at once. A request to a bucket that fails is repeated alone, so that a large
/// object over a slow line needs no connection that lives for all of it.
const PART: u64 = 4 << 20;

/// How long an object may change without having another time: dates of HTTP are whole seconds. The
/// rest is for a server's clock that is being corrected and runs slower than ours meanwhile.
const TICK: Duration = Duration::from_millis(1200);

/// Tells states of a file apart: the same fingerprint at the same path means the same bytes.
///
/// Opaque; made of size, times and inode, or of an `ETag`. Only good for comparing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Takes back what [`Fingerprint::as_str`] gave, for instance out of a database.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text to keep.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A regular file, or an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) size: u64,
    pub(crate) fingerprint: Fingerprint,
    /// How long ago it was last changed at least, where the clock of the listing tells it.
    pub(crate) age: Option<Duration>,
    /// Of an object without an `ETag`: what it is known by instead.
    pub(crate) dated: Option<Dated>,
}

/// An object that is known by its size and time alone.
///
/// What is written a [`TICK`] after `seen` has a later time. So bytes that are asked for after
/// that, and come with this time, are all of one image: the last that was written in that second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dated {
    /// When it was changed, by the server's clock, in whole seconds.
    pub(crate) changed: SystemTime,
    /// When the server had said so.
    pub(crate) seen: Instant,
}

/// Everything at the origin, by path relative to its root.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) files: BTreeMap<String, Listed>,
    /// What is there but cannot be firmware, with the reason.
    pub(crate) unusable: BTreeMap<String, String>,
    /// Folders that could not be listed: what is in them is unknown, not gone.
    pub(crate) unknown: Vec<String>,
    /// Folders that were listed, the root as the empty path. Of a directory only.
    pub(crate) folders: Vec<String>,
    /// Those of them that lie on another file system than the root.
    pub(crate) mounts: HashSet<String>,
    /// Identifies the root directory itself: another one after it was replaced or unmounted.
    pub(crate) root: Option<(u64, u64)>,
}

/// Why the origin did not give a file's bytes.
#[derive(Debug)]
pub(crate) enum OriginError {
    /// It is there no more, or not as it was listed: look again.
    Changed,
    /// It could not be read; the sentence says why.
    Failed(String),
}

/// The place where firmware is dropped.
#[derive(Debug)]
pub(crate) struct Origin {
    store: Arc<dyn ObjectStore>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Directory(Arc<Directory>),
    /// `key_id` is the name of the key that requests are signed with.
    Bucket {
        s3: Arc<AmazonS3>,
        prefix: Path,
        shown: String,
        key_id: Option<String>,
    },
}

impl Origin {
    pub(crate) fn open(settings: &Settings) -> Result<Self, StoreError> {
        let url = &settings.url;
        let wrong = |reason: &str| StoreError::Url { url: url.clone(), reason: reason.to_owned() };
        if let Some(path) = url.strip_prefix("file:") {
            // `file:///srv/firmware` is the same place as `file:/srv/firmware`.
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(wrong("name a directory, as in file:firmware"));
            }
            let directory = Arc::new(Directory::new(settings.base_dir.join(path)));
            Ok(Self { store: directory.clone(), place: Place::Directory(directory) })
        } else if let Some(rest) = url.strip_prefix("s3://") {
            let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if name.is_empty() {
                return Err(wrong("name a bucket, as in s3://firmware/site-1"));
            }
            let prefix = Path::parse(prefix)
                .map_err(|error| wrong(&format!("the prefix cannot be used: {error}")))?;
            let (s3, key_id) = bucket::open(name, &settings.s3)?;
            let place = Place::Bucket { s3: s3.clone(), prefix, shown: url.clone(), key_id };
            Ok(Self { store: s3, place })
        } else {
            Err(wrong("use file:PATH for a directory or s3://BUCKET/PREFIX for a bucket"))
        }
    }

    /// The directory, if it is one.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        match &self.place {
            Place::Directory(directory) => Some(directory.root().to_owned()),
            Place::Bucket { .. } => None,
        }
    }

    /// Lists everything. The error is a sentence; after it nothing is known, in particular not
    /// that anything is gone.
    pub(crate) async fn list(&self) -> Result<Listing, String> {
        match &self.place {
            Place::Directory(directory) => {
                let directory = directory.clone();
                let survey = tokio::task::spawn_blocking(move || directory.survey());
                survey.await.map_err(|_| "the daemon is stopping".to_owned())?
            }
            Place::Bucket { s3, prefix, shown, key_id } => {
                let key_id = key_id.as_deref();
                let listed = bucket::list(s3, prefix, key_id).await;
                listed.map_err(|error| format!("cannot list {shown}: {}", explain(&error, key_id)))
            }
        }
    }

    /// The bytes of a file, part after part, as long as it stays what was listed.
    pub(crate) fn read<'a>(
        &'a self,
        path: &'a str,
        listed: &'a Listed,
    ) -> impl Stream<Item = Result<Bytes, OriginError>> + 'a {
        let parts = (0..listed.size.div_ceil(PART)).map(move |index| {
            let from = index * PART;
            from..(from + PART).min(listed.size)
        });
        stream::iter(parts)
            .map(move |range| self.part(path, listed, range))
            // One part is fetched while the one before is hashed and written.
            .buffered(2)
    }

    /// The whole of a small file.
    pub(crate) async fn read_small(
        &self,
        path: &str,
        listed: &Listed,
    ) -> Result<Bytes, OriginError> {
        let mut bytes = BytesMut::new();
        let mut parts = std::pin::pin!(self.read(path, listed));
        while let Some(part) = parts.next().await {
            bytes.extend_from_slice(&part?);
        }
        Ok(bytes.freeze())
    }

    /// Whether the file is still what was listed.
    pub(crate) async fn confirm(&self, path: &str, listed: &Listed) -> Result<(), OriginError> {
        let meta =
            self.store.head(&self.location(path)?).await.map_err(|error| self.failed(&error))?;
        same(&meta, listed)
    }

    async fn part(
        &self,
        path: &str,
        listed: &Listed,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, OriginError> {
        let location = self.location(path)?;
        if let Some(dated) = &listed.dated {
            sleep_until(dated.seen + TICK).await;
        }
        let wanted = range.end - range.start;
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            // If-Unmodified-Since is no condition for the others: its seconds are compared with
            // the exact time by some servers, and a later change passes within the second.
            if_match: listed.dated.is_none().then(|| listed.fingerprint.0.clone()),
            ..GetOptions::default()
        };
        let result =
            self.store.get_opts(&location, options).await.map_err(|error| self.failed(&error))?;
        // Asked twice, because not every server knows the condition.
        same(&result.meta, listed)?;
        let bytes = result.bytes().await.map_err(|error| self.failed(&error))?;
        if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(OriginError::Changed) }
    }

    fn failed(&self, error: &object_store::Error) -> OriginError {
        let key_id = match &self.place {
            Place::Directory(_) => None,
            Place::Bucket { key_id, .. } => key_id.as_deref(),
        };
        match error {
            object_store::Error::NotFound { .. } | object_store::Error::Precondition { .. } => {
                OriginError::Changed
            }
            error => OriginError::Failed(explain(error, key_id)),
        }
    }

    fn location(&self, path: &str) -> Result<Path, OriginError> {
        let full = match &self.place {
            Place::Bucket { prefix, .. } if !prefix.as_ref().is_empty() => {
                Path::parse(format!("{prefix}/{path}"))
            }
            _ => Path::parse(path),
        };
        full.map_err(|error| OriginError::Failed(error.to_string()))
    }
}

fn same(meta: &object_store::ObjectMeta, listed: &Listed) -> Result<(), OriginError> {
    let same = meta.size == listed.size
        && match &listed.dated {
            None => meta.e_tag.as_ref() == Some(&listed.fingerprint.0),
            // One that has an ETag by now is to be listed once more.
            Some(dated) => meta.e_tag.is_none() && dated.changed == meta.last_modified.into(),
        };
    if same { Ok(()) } else { Err(OriginError::Changed) }
}

/// One line: the innermost cause says what happened, the outer ones where. Never the name of the
/// key that requests are signed with.
fn explain(error: &object_store::Error, key_id: Option<&str>) -> String {
    let mut text = without_documents(&error.to_string());
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = without_documents(&cause.to_string());
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    if let Some(key_id) = key_id.filter(|id| !id.is_empty()) {
        text = text.replace(key_id, "…");
    }
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text: String = text.chars().take(500).collect();
    // A listing's refusal comes as a generic error, so the status is looked for in its text.
    let denied = matches!(
        error,
        object_store::Error::Unauthenticated { .. } | object_store::Error::PermissionDenied { .. }
    ) || text.contains("403 Forbidden")
        || text.contains("401 Unauthorized");
    if denied {
        format!(
            "{text}; check store.s3.access_key_id and store.s3.secret_access_key, and what \
             that key may do"
        )
    } else {
        text
    }
}

/// The text with code and message of an answer in the place of the whole of it: S3's errors also
/// name the key, what was signed and how.
fn without_documents(text: &str) -> String {
    // Of the same length: only ASCII letters change.
    let lower = text.to_ascii_lowercase();
    let begins = ["<?xml", "<error", "<!doctype", "<html"];
    let Some(begin) = begins.iter().filter_map(|mark| lower.find(mark)).min() else {
        return text.to_owned();
    };
    // One that was cut off ends with the text.
    let end =
        ["</error>", "</html>"].iter().filter_map(|mark| Some(lower.rfind(mark)? + mark.len()));
    let end = end.max().filter(|end| *end > begin).unwrap_or(text.len());
    let document = &text[begin..end];
    let of = |name: &str| {
        let (_, rest) = document.split_once(&format!("<{name}>"))?;
        Some(rest.split_once("</")?.0.trim())
    };
    let said: Vec<_> = [of("Code"), of("Message")].into_iter().flatten().collect();
    format!("{}{}{}", &text[..begin], said.join(": "), &text[end..])
}

#[cfg(test)]
#[test]
fn of_a_servers_answer_its_code_and_message_are_told() {
    let document = "<?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code>\
                    <Message>Not the key AKIA1.</Message><AWSAccessKeyId>AKIA1</AWSAccessKeyId>\
                    <StringToSign>AWS4-HMAC</StringToSign></Error>";
    for (text, expected) in [
        (
            format!("403 Forbidden: {document}, twice"),
            "403 Forbidden: SignatureDoesNotMatch: Not the key AKIA1., twice",
        ),
        ("no answer".to_owned(), "no answer"),
        ("502: <html><p>AKIA1</p></html>".to_owned(), "502: "),
        ("403: <Error/>".to_owned(), "403: "),
        ("403: <Error><StringToSign>AWS4".to_owned(), "403: "),
        ("403: <Error><Code>Slow".to_owned(), "403: "),
    ] {
        assert_eq!(without_documents(&text), expected, "{text}");
    }
    let source = format!("403 Forbidden: {document}").into();
    let error = object_store::Error::Generic { store: "S3", source };
    let told = explain(&error, Some("AKIA1"));
    assert!(told.contains("SignatureDoesNotMatch: Not the key …."), "{told}");
    assert!(!told.contains("AKIA1") && !told.contains("AWS4"), "{told}");
    assert!(told.contains("store.s3.secret_access_key"), "{told}");
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory with a file `a` of some parts, its listing, and the way to read it.
    async fn listed() -> (tempfile::TempDir, Origin, Listed) {
        let dir = tempfile::tempdir().unwrap();
        let settings =
            Settings { url: format!("file:{}/root", dir.path().display()), ..Settings::default() };
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::write(dir.path().join("root/a"), vec![1; 2 * PART as usize + 1]).unwrap();
        fs::write(dir.path().join("secret"), vec![2; 2 * PART as usize + 1]).unwrap();
        let origin = Origin::open(&settings).unwrap();
        let listing = origin.list().await.unwrap();
        let listed = listing.files["a"].clone();
        (dir, origin, listed)
    }

    #[tokio::test]
    async fn what_was_listed_is_read() {
        let (_dir, origin, listed) = listed().await;
        let bytes = origin.read_small("a", &listed).await.unwrap();
        assert_eq!(bytes, vec![1; 2 * PART as usize + 1]);
        origin.confirm("a", &listed).await.unwrap();
    }

    #[tokio::test]
    async fn a_change_during_the_reading_is_noticed() {
        let (dir, origin, listed) = listed().await;
        let path = dir.path().join("root/a");
        let mut parts = Box::pin(origin.read("a", &listed));
        parts.next().await.unwrap().unwrap();
        // In place, of the same size and with its old date.
        let date = fs::metadata(&path).unwrap().modified().unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_at(&file, b"x", 0).unwrap();
        file.set_modified(date).unwrap();
        let rest: Vec<_> = parts.collect().await;
        // One part may have been fetched before the change.
        assert!(matches!(rest.last(), Some(Err(OriginError::Changed))), "{rest:?}");
        let confirmed = origin.confirm("a", &listed).await;
        assert!(matches!(confirmed, Err(OriginError::Changed)));
    }

    #[tokio::test]
    async fn what_is_planted_after_the_listing_is_not_read() {
        let (dir, origin, listed) = listed().await;
        let path = dir.path().join("root/a");
        let plant: [&dyn Fn(); 4] = [
            &|| symlink(dir.path().join("secret"), &path).unwrap(),
            &|| symlink("../secret", &path).unwrap(),
            &|| fs::hard_link(dir.path().join("secret"), &path).unwrap(),
            &|| {
                let made = std::process::Command::new("mkfifo").arg(&path).status();
                assert!(made.unwrap().success());
            },
        ];
        for (number, plant) in plant.into_iter().enumerate() {
            fs::remove_file(&path).unwrap();
            plant();
            let read = origin.read_small("a", &listed).await;
            assert!(read.is_err(), "{number}: {read:?}");
        }
    }

    #[tokio::test]
    async fn a_path_cannot_climb() {
        let (_dir, origin, listed) = listed().await;
        for path in ["../secret", "all/../../secret", "/etc/passwd", "a/../../secret"] {
            assert!(origin.read_small(path, &listed).await.is_err(), "{path}");
        }
    }
}
