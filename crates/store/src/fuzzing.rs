//! What no file in the watched directory may break. Called by the target in `fuzz/`, and by the
//! test below with what is kept of it.

use std::io::Cursor;

use crate::format::{self, Problem, Source};
use crate::{Comment, NameParts, PublicKey, Signature, sidecar};

/// Any bytes as a firmware file: it is taken or refused with one line, what it tells can be shown,
/// and what is unpacked is no larger than was allowed.
pub fn format(data: &[u8]) {
    const LIMIT: u64 = 1 << 20;
    let shown = |text: &String| {
        !text.is_empty() && text.len() <= 200 && !text.chars().any(char::is_control)
    };
    let judge = |bytes: &[u8]| {
        let mut source = Source::new(Cursor::new(bytes), bytes.len() as u64);
        let examined = format::examine(&mut source, LIMIT)?;
        let header = &examined.header;
        let texts = [&header.title, &header.version, &header.chip].into_iter().flatten();
        assert!(texts.chain(&header.hardware).chain(&header.warnings).all(shown), "{header:?}");
        let Some(how) = &examined.unpack else { return Ok(None) };
        let mut out = Cursor::new(Vec::new());
        let size = format::unpack(&mut source, how, LIMIT, &mut out)?;
        let image = out.into_inner();
        assert!(size <= LIMIT && image.len() as u64 == size);
        Ok(Some(image))
    };
    let check = |result: Result<Option<Vec<u8>>, Problem>| match result {
        Ok(image) => image,
        Err(Problem::Refused(why)) => {
            assert!(why.len() > 20 && !why.contains('\n'), "{why:?}");
            None
        }
        Err(Problem::Io(error)) => panic!("memory cannot be read: {error}"),
    };
    if let Some(image) = check(judge(data)) {
        let _ = check(judge(&image));
    }
}

/// Any bytes as a signature, a key and a trusted comment.
pub fn signature(data: &[u8]) {
    let one_line = |why: &String| !why.is_empty() && !why.contains('\n');
    if let Err(why) = Signature::parse(data) {
        assert!(one_line(&why), "{why:?}");
    }
    if let Err(why) = PublicKey::parse(data) {
        assert!(one_line(&why), "{why:?}");
    }
    if let Err(why) = Comment::parse(&String::from_utf8_lossy(data)) {
        assert!(one_line(&why), "{why:?}");
    }
}

/// Any bytes as a sidecar, as a checksum file and as a name: what is refused says why in one
/// line, and what is taken is printable.
pub fn sidecar(data: &[u8]) {
    let one_line = |why: &String| !why.is_empty() && !why.contains('\n');
    match sidecar::Sidecar::parse(data) {
        Ok(sidecar) => {
            for text in [&sidecar.name, &sidecar.version, &sidecar.model].into_iter().flatten() {
                assert!(!text.is_empty() && !text.chars().any(char::is_control));
            }
        }
        Err(why) => assert!(one_line(&why), "{why:?}"),
    }
    if let Err(why) = sidecar::parse_sum(data) {
        assert!(one_line(&why), "{why:?}");
    }
    let name = String::from_utf8_lossy(data);
    let NameParts { title, version } = NameParts::parse(&name);
    let len = title.as_ref().map_or(0, String::len) + version.as_ref().map_or(0, String::len);
    assert!(len <= name.len(), "{title:?} {version:?} of {name:?}");
}

#[cfg(test)]
mod tests {
    /// Replays the seeds, whole, cut, and with one bit changed, each at `every` so manieth byte.
    fn replay(name: &str, target: fn(&[u8]), every: usize) {
        let seeds =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
        for seed in std::fs::read_dir(seeds).unwrap() {
            let bytes = std::fs::read(seed.unwrap().path()).unwrap();
            target(&bytes);
            for at in (0..bytes.len()).step_by(every) {
                target(&bytes[..at]);
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << (at % 8);
                target(&damaged);
            }
        }
    }

    #[test]
    fn what_is_kept_of_fuzzing_holds() {
        replay("sidecar", super::sidecar, 1);
        replay("signature", super::signature, 1);
        replay("format", super::format, 13);
    }
}
