use super::trust::Evidence;
use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proptest::prelude::*;

fn fixture(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/formats/");
    std::fs::read(format!("{folder}{name}")).unwrap()
}

fn trust(require: bool) -> Trust {
    Trust { keys: vec![PublicKey::parse(&fixture("minisign.pub")).unwrap()], require }
}

fn judge(trust: &Trust, signature: &Signature, file: &[u8]) -> Result<Verdict, String> {
    let mut hash = Prehash::default();
    hash.update(file);
    let prehash = Some(&hash.finish());
    let checked = trust.check_whole(signature, &mut &file[..]).unwrap();
    trust.judge(Some(signature), Evidence { prehash, checked })
}

#[test]
fn what_minisign_signed_is_trusted() {
    let file = fixture("signed.bin");
    let text = String::from_utf8(fixture("minisign.pub")).unwrap();
    for name in ["signed.bin.minisig", "signed-old.minisig"] {
        let signature = Signature::parse(&fixture(name)).unwrap();
        let Verdict::Trusted { key, comment, .. } = judge(&trust(true), &signature, &file).unwrap()
        else {
            panic!("{name} is not trusted");
        };
        assert!(text.contains(&key), "minisign names it so too: {key}");
        let second = fixture(name).split(|byte| *byte == b'\n').nth(1).unwrap().to_vec();
        assert_eq!(hex::encode(BASE64.decode(second).unwrap()), signature.line());
        assert_eq!(comment.title.as_deref(), Some("pump"));
        assert_eq!(comment.version.as_deref(), Some("1.5.0"));
        assert_eq!(comment.model.as_deref(), Some("px"));

        let mut other = file.clone();
        other[399] ^= 1;
        let why = judge(&trust(false), &signature, &other).unwrap_err();
        assert!(why.contains("does not match the file"), "{name}: {why}");
        let mut changed = signature.clone();
        changed.comment = changed.comment.replace("1.5.0", "9.5.0");
        let why = judge(&trust(false), &changed, &file).unwrap_err();
        assert!(why.contains("trusted comment was changed"), "{name}: {why}");
    }
}

#[test]
fn what_is_not_trusted() {
    let signature = Signature::parse(&fixture("signed.bin.minisig")).unwrap();
    let nobody = Trust::default();
    let unknown = judge(&nobody, &signature, b"").unwrap();
    let (key, line) = (signature.key().to_string(), signature.line());
    let model = Comment::parse(&signature.comment).unwrap().model;
    assert_eq!(unknown, Verdict::Unknown { key, line, model });
    let nothing = Evidence { prehash: None, checked: None };
    assert_eq!(trust(false).judge(None, nothing), Ok(Verdict::Unsigned));
    assert!(trust(true).judge(None, nothing).unwrap_err().contains("not signed"));
    let mut other = trust(true);
    other.keys[0].id = KeyId([1; 8]);
    assert!(judge(&other, &signature, b"").unwrap_err().contains("none of store.trusted_keys"));
    // The same id, made up by somebody with another key.
    let mut forged = trust(false);
    forged.keys[0].key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
    assert!(judge(&forged, &signature, &fixture("signed.bin")).is_err());
    assert!(Trust::load(&[], true).is_err());
}

#[test]
fn key_files_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    for (text, says) in [
        ("", "no public key"),
        ("untrusted comment: minisign encrypted secret key\nRWQ", "secret key"),
        ("untrusted comment: x\nRWQAAAAA", "cut short"),
        ("untrusted comment: x\nhello", "no public key"),
    ] {
        let path = dir.path().join("key.pub");
        std::fs::write(&path, text).unwrap();
        let error = Trust::load(std::slice::from_ref(&path), false).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("key.pub"), "{text}: {error}");
    }
    let missing = Trust::load(&[dir.path().join("missing")], false).unwrap_err();
    assert!(missing.to_string().contains("missing"));
}

#[test]
fn comments_as_they_are_written() {
    let parse = |text| Comment::parse(text).map(|it| (it.title, it.version, it.model));
    let some = |text: &str| Some(text.to_owned());
    let all = Ok((some("heat pump"), some("1.0.0"), some("m")));
    assert_eq!(parse("timestamp:17\ttitle:heat pump\tversion:1.0.0\tmodel:m\thashed"), all);
    assert_eq!(parse("version=1.0.0 model=m"), Ok((None, some("1.0.0"), some("m"))));
    assert_eq!(parse("timestamp:1700000000\tfile:pump.bin\thashed"), Ok((None, None, None)));
    for wrong in ["version:", "version:1 version:2", "model:a/b", "title:\u{7}"] {
        assert!(Comment::parse(wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Signature::parse(&bytes);
        let _ = PublicKey::parse(&bytes);
        let _ = Comment::parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_changed_signature_is_never_trusted(at in 0usize..290, with in 1u8..) {
        let mut bytes = fixture("signed.bin.minisig");
        let at = at % bytes.len();
        bytes[at] ^= with;
        let first_line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
        let original = Signature::parse(&fixture("signed.bin.minisig")).unwrap();
        if let Ok(signature) = Signature::parse(&bytes)
            && at > first_line
            // White space around a line, and bits of base64 that carry nothing.
            && (signature.signature, signature.global, &signature.comment)
                != (original.signature, original.global, &original.comment)
        {
            let verdict = judge(&trust(false), &signature, &fixture("signed.bin"));
            let trusted = matches!(verdict, Ok(Verdict::Trusted { .. }));
            prop_assert!(!trusted);
        }
    }
}
