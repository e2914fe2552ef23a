//! Ranges of images, from memory and from the copies.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use store::{Digest, FirmwareStore, IngestError, ReadErrorKind, Settings};

const MIB: usize = 1 << 20;

/// A store whose watcher never runs, so that nothing heals what a test damages.
struct Place {
    store: Arc<FirmwareStore>,
    dir: tempfile::TempDir,
}

impl Place {
    fn new(cache_bytes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            base_dir: dir.path().to_owned(),
            data_dir: dir.path().join("data"),
            settle: Duration::ZERO,
            max_size: 8 << 20,
            cache_bytes,
            ..Settings::default()
        };
        let store = FirmwareStore::open(settings).unwrap();
        Self { store, dir }
    }

    async fn upload(&self, bytes: &[u8]) -> store::Image {
        let parts: Vec<_> =
            bytes.chunks(100_000).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
        let ingested = self.store.ingest_stream(stream::iter(parts)).await.unwrap();
        assert_eq!(ingested.digest, Digest::of(bytes));
        assert_eq!(ingested.size, bytes.len() as u64);
        self.store.image(ingested.digest, ingested.size)
    }
}

impl Place {
    fn copy_of(&self, image: &store::Image) -> std::path::PathBuf {
        let name = image.digest().to_string();
        self.dir.path().join("data/objects/sha256").join(&name[..2]).join(&name)
    }
}

/// Bytes that tell by themselves where they are.
fn pattern(len: usize) -> Vec<u8> {
    let numbers = 0..len.div_ceil(4) as u32;
    let mut bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
    bytes.truncate(len);
    bytes
}

#[tokio::test]
async fn every_kind_of_range() {
    let place = Place::new(16 * MIB);
    let bytes = pattern(3 * MIB + 5);
    let image = place.upload(&bytes).await;
    for (offset, len) in [
        (0, 1),
        (0, 4096),
        (MIB - 4096, 4096),
        (MIB - 1, 2),
        (MIB, MIB),
        (100, 3 * MIB - 200),
        (0, 3 * MIB + 5),
        (3 * MIB + 4, 1),
        (3 * MIB + 5, 0),
        (7, 0),
    ] {
        let mut held = None;
        let wanted = &bytes[offset..offset + len];
        assert_eq!(image.read(offset as u64, len).await.unwrap(), wanted, "{len} at {offset}");
        let cached = image.cached(offset as u64, len, &mut held).unwrap();
        assert_eq!(cached, wanted, "{len} at {offset} from memory");
        assert_eq!(image.cached(offset as u64, len, &mut held).unwrap(), wanted);
    }
    for (offset, len) in [(3 * MIB as u64 + 5, 1), (0, 3 * MIB + 6), (u64::MAX, 1), (1, usize::MAX)]
    {
        let error = image.read(offset, len).await.unwrap_err();
        assert_eq!((error.kind, error.retry), (ReadErrorKind::OutOfRange, false));
        assert_eq!(image.cached(offset, len, &mut None), None);
    }
}

#[tokio::test]
async fn what_is_not_in_memory_is_not_pretended() {
    let place = Place::new(MIB);
    let image = place.upload(&pattern(4 * MIB)).await;
    let mut held = None;
    assert_eq!(image.cached(0, 10, &mut held), None);
    image.read(0, 10).await.unwrap();
    assert!(image.cached(0, 10, &mut held).is_some());
    // The cache holds one segment; a reader's note of another does not keep it in memory.
    image.read(MIB as u64, 10).await.unwrap();
    assert_eq!(image.cached(0, 10, &mut held), None);
    assert!(place.store.status().cached_bytes <= MIB);
}

#[tokio::test]
async fn a_held_segment_is_of_one_image() {
    let place = Place::new(16 * MIB);
    let (one, two) = (place.upload(b"one").await, place.upload(b"two").await);
    one.read(0, 3).await.unwrap();
    two.read(0, 3).await.unwrap();
    let mut held = None;
    assert_eq!(one.cached(0, 3, &mut held).unwrap(), "one");
    assert_eq!(two.cached(0, 3, &mut held).unwrap(), "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_at_once() {
    let place = Place::new(2 * MIB);
    let bytes = Arc::new(pattern(6 * MIB));
    let image = place.upload(&bytes).await;
    let readers = (0..64usize).map(|reader| {
        let (image, bytes) = (image.clone(), bytes.clone());
        tokio::spawn(async move {
            let mut held = None;
            for step in 0..50 {
                let offset = (reader * 97 + step * 131_071) % (6 * MIB - 4096);
                let block = match image.cached(offset as u64, 4096, &mut held) {
                    Some(block) => block,
                    None => image.read(offset as u64, 4096).await.unwrap(),
                };
                assert_eq!(block, bytes[offset..offset + 4096]);
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    assert!(place.store.status().cached_bytes <= 2 * MIB);
}

#[tokio::test]
async fn a_reader_that_goes_away_stops_nothing() {
    let place = Place::new(16 * MIB);
    let image = place.upload(&pattern(2 * MIB)).await;
    for _ in 0..20 {
        // Polled once, then dropped.
        let read = std::pin::pin!(image.read(0, 10));
        let _ = futures_util::FutureExt::now_or_never(read);
    }
    assert_eq!(image.read(0, 10).await.unwrap(), pattern(10));
}

/// Images in use keep no file open, so that as many may be in use as there are devices.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn images_in_use_hold_no_files() {
    let place = Place::new(MIB);
    let data = place.dir.path().join("data/objects");
    let open = || {
        let files = std::fs::read_dir("/proc/self/fd").unwrap();
        let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        targets.filter(|target| target.starts_with(&data)).count()
    };
    let mut images = Vec::new();
    for number in 0..100u32 {
        let image = place.upload(&number.to_le_bytes()).await;
        assert_eq!(image.read(0, 4).await.unwrap(), number.to_le_bytes().as_slice());
        images.push(image);
    }
    assert_eq!(open(), 0);
    // And each is read on, from a file that is opened for it.
    std::fs::remove_file(place.copy_of(&images[7])).unwrap();
    place.upload(&pattern(2 * MIB)).await.read(0, 2 * MIB).await.unwrap();
    let error = images[7].read(0, 4).await.unwrap_err();
    assert_eq!((error.kind, error.retry), (ReadErrorKind::Missing, true));
    place.upload(&7u32.to_le_bytes()).await;
    assert_eq!(images[7].read(0, 4).await.unwrap(), 7u32.to_le_bytes().as_slice());
}

#[tokio::test]
async fn uploads_have_limits() {
    let place = Place::new(MIB);
    let upload = |parts: Vec<std::io::Result<Bytes>>| {
        let store = place.store.clone();
        async move { store.ingest_stream(stream::iter(parts)).await }
    };
    assert!(matches!(upload(vec![]).await, Err(IngestError::Empty)));
    let part = Bytes::from(vec![0; 5 << 20]);
    let large = upload(vec![Ok(part.clone()), Ok(part.clone())]).await;
    assert!(matches!(large, Err(IngestError::TooLarge(8_388_608))));
    let broken = upload(vec![Ok(part), Err(std::io::Error::other("gone"))]).await;
    assert!(matches!(broken, Err(IngestError::Source(_))));
    let incoming = place.dir.path().join("data/objects/incoming");
    assert_eq!(std::fs::read_dir(incoming).unwrap().count(), 0);
}
