//! What becomes of firmware files of all kinds: unpacked, refused, signed, kept and thrown away.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use store::{
    Change, Comment, Digest, FirmwareStore, Format, Known, ReadErrorKind, Trust, Tuning, Verdict,
};
use support::{Site, known};

fn fixture(name: &str) -> Vec<u8> {
    fs::read(path_of(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats").join(name)
}

/// What minisign's comment in the fixtures says.
fn signed() -> Comment {
    let some = |text: &str| Some(text.to_owned());
    Comment { title: some("pump"), version: some("1.5.0"), model: some("px") }
}

#[tokio::test]
async fn records_are_served_as_the_binary_in_them() {
    let mut site = Site::start().await;
    let (hex, binary) = (fixture("gap.hex"), fixture("gap.bin"));
    // The sum is of the file that lies there.
    site.rename_in("boiler.hex.sha256", Digest::of(&hex).to_string().as_bytes());
    site.write("boiler.hex", &hex);
    let dropped = site.present().await;
    assert_eq!(dropped.facts.header.format, Format::IntelHex);
    assert_eq!(dropped.facts.dropped, Some(Digest::of(&hex)));
    assert_eq!((dropped.digest, dropped.size), (Digest::of(&binary), binary.len() as u64));
    let image = site.store.image(dropped.digest, dropped.size);
    assert_eq!(image.read(0, binary.len()).await.unwrap(), binary);
    assert!(!site.copy_of(Digest::of(&hex)).exists(), "only the image is kept");

    // What was found out is remembered: nothing is read again.
    fs::remove_file(site.path("boiler.hex.sha256")).unwrap();
    let dropped = site.present().await;
    let mut site = site.restart(vec![known(&dropped)], |_| {}).await;
    let again = site.present().await.facts;
    assert_eq!((again.header, again.dropped), (dropped.facts.header, dropped.facts.dropped));
    // A lost copy is made anew in the same way.
    fs::remove_file(site.copy_of(dropped.digest)).unwrap();
    let image = site.store.image(dropped.digest, dropped.size);
    assert_eq!(image.read(0, 1).await.unwrap_err().kind, ReadErrorKind::Missing);
    site.silence("marker").await;
    assert!(site.copy_of(dropped.digest).exists());
}

#[tokio::test]
async fn what_older_readers_said_is_not_used_again() {
    let mut site = Site::start().await;
    site.rename_in("old.bin", &fixture("esp32.bin"));
    let dropped = site.present().await;
    // As a program wrote it that took everything for plain bytes.
    let mut old = known(&dropped);
    old.facts = Some(serde_json::from_str(r#"{"header":{"format":"binary"}}"#).unwrap());
    let mut site = site.restart(vec![old.clone()], |_| {}).await;
    let again = site.present().await;
    assert_eq!((again.digest, &again.facts.header), (dropped.digest, &dropped.facts.header));
    // What it took and should not have is refused now.
    site.rename_in("boot.bin.toml", b"as_is = true");
    site.rename_in("boot.bin", &fixture("esp32-bootloader.bin"));
    let taken = Known { facts: old.facts, ..known(&site.present().await) };
    let meanwhile = |root: &std::path::Path| fs::remove_file(root.join("boot.bin.toml")).unwrap();
    let mut site = site.restart(vec![known(&again), taken], meanwhile).await;
    let changes = site.batch().await;
    let [Change::Refused { path, reason }, Change::Present(_)] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert!(path == "boot.bin" && reason.contains("boot loader"), "{path}: {reason}");
}

#[tokio::test]
async fn what_would_brick_a_device_is_refused_and_may_be_insisted_on() {
    let mut site = Site::start().await;
    for (name, says) in [
        ("application.elf", "not the .elf"),
        ("esp32-bootloader.bin", "boot loader"),
        ("esp32-merged.bin", "whole flash"),
        ("page.bin", "web page"),
    ] {
        site.rename_in(name, &fixture(name));
        let (path, reason) = site.refused().await;
        assert_eq!(path, name);
        assert!(reason.contains(says), "{reason}");
        assert!(!site.copy_of(Digest::of(&fixture(name))).exists());
    }
    let whole = fixture("esp32.bin");
    site.rename_in("cut.bin", &whole[..2000]);
    assert!(site.refused().await.1.contains("cut short"));
    site.rename_in("cut.bin", &whole);
    assert_eq!(site.present().await.facts.header.chip.as_deref(), Some("esp32"));

    site.rename_in("zephyr.bin.gz", &fixture("zephyr.bin.gz"));
    assert!(site.refused().await.1.contains("as_is"));
    site.rename_in("zephyr.bin.gz.toml", b"as_is = true");
    let dropped = site.present().await;
    assert_eq!(dropped.digest, Digest::of(&fixture("zephyr.bin.gz")));
    // Taken back, it is looked at again.
    fs::remove_file(site.path("zephyr.bin.gz.toml")).unwrap();
    assert!(site.refused().await.1.contains("gunzip"));
}

#[tokio::test]
async fn a_sidecar_asks_for_a_checksum() {
    let mut site = Site::start().await;
    site.write("digits.bin", b"123456789");
    assert_eq!(site.present().await.facts.checksum, None);
    for (algorithm, expected) in
        [("CRC32", "2639f4cb"), ("MD5", "25f9e794323b453885f5181f1b624d0b")]
    {
        site.rename_in("digits.bin.toml", format!("checksum = '{algorithm}'").as_bytes());
        let dropped = site.present().await;
        let checksum = dropped.facts.checksum.clone().unwrap();
        assert_eq!((checksum.algorithm.name(), &*checksum.value), (algorithm, expected));
        // After a restart it is still known.
        site = site.restart(vec![known(&dropped)], |_| {}).await;
        assert_eq!(site.present().await.facts, dropped.facts);
    }
    site.rename_in("digits.bin.toml", b"checksum = 'ADLER32'");
    let (_, reason) = site.refused().await;
    assert!(reason.contains("ADLER32") && reason.contains("MURMUR3_128"), "{reason}");
    fs::remove_file(site.path("digits.bin.toml")).unwrap();
    assert_eq!(site.present().await.facts.checksum, None);
    // Of the image, and not of what it was unpacked from.
    site.rename_in("boiler.hex.toml", b"checksum = 'SHA256'");
    site.write("boiler.hex", &fixture("gap.hex"));
    let dropped = site.present().await;
    assert_eq!(dropped.facts.checksum.unwrap().value, Digest::of(&fixture("gap.bin")).to_string());
}

#[tokio::test]
async fn a_signature_is_judged_with_its_file() {
    let trust = Trust::load(&[path_of("minisign.pub")], true).unwrap();
    let mut site = Site::start_with(|settings| settings.trust = trust).await;
    let file = fixture("signed.bin");
    site.rename_in("signed.bin", &file);
    let (_, reason) = site.refused().await;
    assert!(reason.contains("not signed"), "{reason}");
    for name in ["signed.bin.minisig", "signed-old.minisig"] {
        site.rename_in("signed.bin.minisig", &fixture(name));
        let dropped = site.present().await;
        let Verdict::Trusted { comment, .. } = &dropped.signature else { panic!("{name}") };
        assert_eq!(*comment, signed());
        // After a restart neither file nor copy is read, and the verdict is the same.
        site = site.restart(vec![known(&dropped)], |_| {}).await;
        assert_eq!(site.present().await.signature, dropped.signature);
    }
    let mut other = file.clone();
    other[0] ^= 1;
    site.rename_in("signed.bin", &other);
    let (_, reason) = site.refused().await;
    assert!(reason.contains("does not match the file"), "{reason}");
    site.rename_in("signed.bin.minisig", b"hello");
    let (_, reason) = site.refused().await;
    assert!(reason.contains("signed.bin.minisig"), "{reason}");
}

#[tokio::test]
async fn keys_may_change_while_it_watches() {
    let mut site = Site::start().await;
    site.rename_in("signed.bin.minisig", &fixture("signed.bin.minisig"));
    site.rename_in("signed.bin", &fixture("signed.bin"));
    let Verdict::Unknown { key, line, .. } = site.present().await.signature else {
        panic!("trusted")
    };
    let tuning = |trust| Tuning { trust, ..Tuning::of(&site.settings) };
    let files = [path_of("minisign.pub")];
    site.store.tune(tuning(Trust::load(&files, false).unwrap()));
    let dropped = site.present().await;
    assert_eq!(dropped.signature, Verdict::Trusted { key, comment: signed(), line });

    site.rename_in("plain.bin", b"plain");
    assert_eq!(site.present().await.signature, Verdict::Unsigned);
    let tuning = |trust| Tuning { trust, ..Tuning::of(&site.settings) };
    site.store.tune(tuning(Trust::load(&files, true).unwrap()));
    assert!(site.refused().await.1.contains("not signed"));
}

#[tokio::test]
async fn uploads_are_looked_at_and_judged_too() {
    let dir = tempfile::tempdir().unwrap();
    let trust = Trust::load(&[path_of("minisign.pub")], true).unwrap();
    let settings = store::Settings { trust, ..support::settings(dir.path()) };
    let store = FirmwareStore::open(settings).unwrap();
    let upload = async |name: &str| {
        let parts: Vec<_> =
            fixture(name).chunks(1000).map(|part| Ok(part.to_vec().into())).collect();
        store.ingest_stream(futures_util::stream::iter(parts)).await
    };
    let hex = upload("gap.hex").await.unwrap();
    assert_eq!(hex.digest, Digest::of(&fixture("gap.bin")));
    let refused = upload("application.elf").await.unwrap_err().to_string();
    assert!(refused.contains("not the .elf"), "{refused}");

    let file = upload("signed.bin").await.unwrap();
    let verdict = store.judge_upload(&file, Some(&fixture("signed.bin.minisig")));
    assert!(matches!(verdict, Ok(Verdict::Trusted { comment, .. }) if comment == signed()));
    for (file, signature, says) in [
        (&file, None, "not signed"),
        (&hex, Some(fixture("signed.bin.minisig")), "does not match"),
        (&file, Some(fixture("signed-old.minisig")), "without -l"),
        (&file, Some(b"hello".to_vec()), "no signature"),
    ] {
        let why = store.judge_upload(file, signature.as_deref()).unwrap_err();
        assert!(why.contains(says), "{why}");
    }
}

#[tokio::test]
async fn copies_that_nothing_needs_go_and_those_that_are_read_stay() {
    let site = Site::start_with(|settings| {
        settings.quota = Some(2500);
        settings.poll_interval = Duration::from_millis(200);
    })
    .await;
    // Left behind by an earlier run, and so not young: one needed, one read, one neither.
    let digests = [b'a', b'b', b'c'].map(|byte| Digest::of(&[byte; 700]));
    for (digest, byte) in digests.iter().zip([b'a', b'b', b'c']) {
        let copy = site.copy_of(*digest);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::write(copy, [byte; 700]).unwrap();
    }
    let mut site = site.restart(vec![], |_| {}).await;
    assert_eq!(site.batch().await, []);
    assert_eq!((site.store.status().copies, site.store.status().copied_bytes), (3, 2100));
    let reader = site.store.image(digests[1], 700);

    // Nobody said what is needed, so nothing goes.
    site.rename_in("x.bin", &[b'x'; 600]);
    let (_, reason) = site.refused().await;
    assert!(reason.contains("store.quota"), "{reason}");
    site.store.need(HashSet::from([digests[0]]));
    assert_eq!(site.present().await.digest, Digest::of(&[b'x'; 600]));
    let there = digests.map(|digest| site.copy_of(digest).exists());
    assert_eq!(there, [true, true, false]);
    assert_eq!(reader.read(0, 1).await.unwrap(), "b");

    drop(reader);
    site.rename_in("y.bin", &[b'y'; 800]);
    assert_eq!(site.present().await.digest, Digest::of(&[b'y'; 800]));
    let there = digests.map(|digest| site.copy_of(digest).exists());
    assert_eq!(there, [true, false, false]);
    assert_eq!(site.store.status().copied_bytes, 2100);
}

#[tokio::test]
async fn unused_copies_are_kept_for_a_while() {
    let site = Site::start_with(|settings| settings.keep_unused = Duration::from_millis(50)).await;
    let digest = Digest::of(b"old");
    let copy = site.copy_of(digest);
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::write(&copy, b"old").unwrap();
    let mut site = site.restart(vec![], |_| {}).await;
    site.batch().await;
    site.store.need(HashSet::new());
    site.store.rescanned().await;
    assert!(copy.exists(), "it became unused just now");
    let gone = async {
        while copy.exists() {
            site.store.rescanned().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("it goes");
}
