//! What a file's name tells of its title and version.
//!
//! The form is `NAME[-_]v?SEMVER[-_MODEL].EXT`, as in `pump-1.4.2.bin`, `pump_v1.4.2-rc.1.bin`
//! or `pump-1.4.2-esp32.bin`. A word behind the version is a pre-release only if it looks like
//! one (`rc`, `beta`, … or digits); any other word is taken for a model or a variant and left
//! out of the version, because `1.4.2-esp32` would sort below `1.4.2`. A model in the name is
//! not used: a model narrows who gets the file, and a guess must not.

use semver::Version;

/// What the file name alone tells. The weakest source of both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameParts {
    /// The name before the version, or the whole name without its extension.
    pub title: Option<String>,
    /// A semantic version without a leading `v`.
    pub version: Option<String>,
}

/// Words that begin a pre-release.
const PRE_RELEASE: [&str; 10] =
    ["alpha", "beta", "rc", "pre", "preview", "dev", "snapshot", "nightly", "canary", "test"];

/// Endings of a packed file, which stand behind the proper extension.
const PACKED: [&str; 6] = ["gz", "xz", "zst", "bz2", "lz4", "zip"];

impl NameParts {
    /// Reads `file_name`, the last part of a path. Any text is accepted.
    pub fn parse(file_name: &str) -> Self {
        let stem = stem(file_name);
        for (at, _) in stem.char_indices() {
            let begins = at == 0 || stem[..at].ends_with(['-', '_']);
            if !begins {
                continue;
            }
            if let Some(version) = version_at(&stem[at..]) {
                let title = stem[..at].trim_end_matches(['-', '_']);
                return Self {
                    title: (!title.is_empty()).then(|| title.to_owned()),
                    version: Some(version),
                };
            }
        }
        Self { title: (!stem.is_empty()).then(|| stem.to_owned()), version: None }
    }
}

/// Takes off the extension, and one more before a packed file's ending. What begins with a
/// digit is part of a version, not an extension.
fn stem(file_name: &str) -> &str {
    let Some((stem, extension)) = split_extension(file_name) else {
        return file_name;
    };
    if PACKED.iter().any(|packed| extension.eq_ignore_ascii_case(packed)) {
        return split_extension(stem).map_or(stem, |(stem, _)| stem);
    }
    stem
}

fn split_extension(name: &str) -> Option<(&str, &str)> {
    let (stem, extension) = name.rsplit_once('.')?;
    let plausible = extension.starts_with(|c: char| c.is_ascii_alphabetic())
        && extension.len() <= 8
        && extension.bytes().all(|b| b.is_ascii_alphanumeric());
    (plausible && !stem.is_empty()).then_some((stem, extension))
}

/// The version that `text` begins with, if it begins with one.
fn version_at(text: &str) -> Option<String> {
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    let core = &text[..run(text, |b| b.is_ascii_digit() || b == b'.')];
    let core = core.trim_end_matches('.');
    if core.split('.').count() != 3 {
        return None;
    }
    let rest = &text[core.len()..];
    if !rest.is_empty() && !rest.starts_with(['-', '_', '+', '.']) {
        return None;
    }
    let mut version = core.to_owned();
    let mut rest = rest;
    if let Some(word) = rest.strip_prefix('-') {
        let word = identifier(word);
        if is_pre_release(word) && Version::parse(&format!("{version}-{word}")).is_ok() {
            version = format!("{version}-{word}");
            rest = &rest[1 + word.len()..];
        }
    }
    if let Some(word) = rest.strip_prefix('+') {
        let word = identifier(word);
        if Version::parse(&format!("{version}+{word}")).is_ok() {
            version = format!("{version}+{word}");
        }
    }
    Version::parse(&version).ok().map(|version| version.to_string())
}

/// The letters, digits and dots that `text` begins with.
fn identifier(text: &str) -> &str {
    text[..run(text, |b| b.is_ascii_alphanumeric() || b == b'.')].trim_end_matches('.')
}

/// The length of the longest beginning of `text` whose bytes, all ASCII, satisfy `wanted`.
fn run(text: &str, wanted: impl Fn(u8) -> bool) -> usize {
    text.bytes().position(|b| !wanted(b)).unwrap_or(text.len())
}

fn is_pre_release(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    word.starts_with(|c: char| c.is_ascii_digit())
        || PRE_RELEASE.iter().any(|known| {
            lower
                .strip_prefix(known)
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphabetic()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_the_field() {
        for (name, title, version) in [
            ("pump-1.4.2.bin", Some("pump"), Some("1.4.2")),
            ("pump_v1.4.2.bin", Some("pump"), Some("1.4.2")),
            ("pump-V1.4.2.bin", Some("pump"), Some("1.4.2")),
            ("pump-1.4.2", Some("pump"), Some("1.4.2")),
            ("pump-1.4.2-rc.1.bin", Some("pump"), Some("1.4.2-rc.1")),
            ("pump-1.4.2-beta2_esp32.bin", Some("pump"), Some("1.4.2-beta2")),
            ("pump-1.4.2-esp32.bin", Some("pump"), Some("1.4.2")),
            ("pump-1.4.2-device.bin", Some("pump"), Some("1.4.2")),
            ("pump-1.4.2_esp32s3.bin", Some("pump"), Some("1.4.2")),
            ("pump-1.4.2+g1234abc.bin", Some("pump"), Some("1.4.2+g1234abc")),
            ("pump-1.4.2.tar.gz", Some("pump"), Some("1.4.2")),
            ("water-pump-2-1.4.2.bin", Some("water-pump-2"), Some("1.4.2")),
            ("1.4.2.bin", None, Some("1.4.2")),
            ("pump-1.4.bin", Some("pump-1.4"), None),
            ("pump-01.4.2.bin", Some("pump-01.4.2"), None),
            ("pump-1.2.3.4.bin", Some("pump-1.2.3.4"), None),
            ("firmware.bin", Some("firmware"), None),
            ("firmware", Some("firmware"), None),
            (".bin", Some(".bin"), None),
            ("", None, None),
        ] {
            let parts = NameParts::parse(name);
            assert_eq!(parts.title.as_deref(), title, "title of {name}");
            assert_eq!(parts.version.as_deref(), version, "version of {name}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_read(name in "\\PC{0,60}|[a-z0-9._+v-]{0,40}") {
            let parts = NameParts::parse(&name);
            if let Some(version) = parts.version {
                prop_assert!(Version::parse(&version).is_ok());
                prop_assert!(name.contains(&version));
            }
        }

        #[test]
        fn a_version_behind_a_name_is_found(
            title in "[a-z]{1,10}", major in 0u32.., minor in 0u32.., patch in 0u32.., v in "v?",
        ) {
            let parts = NameParts::parse(&format!("{title}-{v}{major}.{minor}.{patch}.bin"));
            prop_assert_eq!(parts.title, Some(title));
            prop_assert_eq!(parts.version, Some(format!("{major}.{minor}.{patch}")));
        }
    }
}
