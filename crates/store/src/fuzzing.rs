//! What no file in the watched directory may break. Called by the target in `fuzz/`, and by the
//! test below with what is kept of it.

use crate::{NameParts, sidecar};

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
    #[test]
    fn what_is_kept_of_fuzzing_holds() {
        let seeds =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/sidecar");
        for seed in std::fs::read_dir(seeds).unwrap() {
            let bytes = std::fs::read(seed.unwrap().path()).unwrap();
            super::sidecar(&bytes);
            for at in 0..bytes.len() {
                super::sidecar(&bytes[..at]);
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << (at % 8);
                super::sidecar(&damaged);
            }
        }
    }
}
