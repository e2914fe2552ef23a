//! The small files beside a firmware file: `FILE.toml` and `FILE.sha256`.

use semver::Version;
use serde::Deserialize;

use crate::checksum::Algorithm;
use crate::digest::Digest;
use crate::paths::is_valid_name;

/// The largest companion file that is read, in bytes.
pub(crate) const MAX_COMPANION: u64 = 64 << 10;

/// The longest title or version, in bytes: both stand in topics, lists and logs.
const MAX_TEXT: usize = 128;

/// What `FILE.toml` says of `FILE`. All keys are optional; others are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sidecar {
    /// The title: what this firmware is called, across its versions.
    pub name: Option<String>,
    /// The version; where it is semantic it is compared as such.
    pub version: Option<String>,
    /// Only devices of this model get the file.
    pub model: Option<String>,
    /// Only devices that report this semantic version or a higher one get the file.
    pub min_version: Option<String>,
    /// For people.
    pub notes: Option<String>,
    /// The bytes are served as they are, whatever they look like: a device that unpacks gzip, or
    /// takes HEX. Nothing in them is looked at then.
    #[serde(default)]
    pub as_is: bool,
    /// Which checksum devices of ThingsBoard are given; SHA-256 where it is not said.
    pub checksum: Option<Algorithm>,
}

impl Sidecar {
    /// Reads the text of a `FILE.toml`. The error is a phrase that names the key.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
        let sidecar: Self = toml::from_str(text).map_err(|error| explain(text, &error))?;
        for (key, value) in [
            ("name", &sidecar.name),
            ("version", &sidecar.version),
            ("model", &sidecar.model),
            ("min_version", &sidecar.min_version),
        ] {
            let Some(value) = value else { continue };
            if value.is_empty() || value.len() > MAX_TEXT || value.chars().any(char::is_control) {
                return Err(format!(
                    "`{key}` must be 1 to {MAX_TEXT} bytes without control characters"
                ));
            }
        }
        if let Some(model) = &sidecar.model
            && !is_valid_name(model)
        {
            return Err(format!(
                "`model` {model:?} cannot name a model: use the characters A-Z a-z 0-9 . _ : -"
            ));
        }
        // A bound that cannot be compared would bind nobody.
        if let Some(version) = &sidecar.min_version
            && Version::parse(version).is_err()
        {
            return Err(format!(
                "`min_version` {version:?} is not a semantic version such as 1.2.3"
            ));
        }
        Ok(sidecar)
    }
}

/// One line from the parser's several: where, which key, and what is wrong.
fn explain(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().and_then(|span| {
        let before = text.get(..span.start)?;
        let number = before.matches('\n').count() + 1;
        Some((number, text.lines().nth(number - 1)?))
    });
    let message = error.message().replace('\n', ", ");
    let Some((number, source)) = line else {
        return message;
    };
    let key = source.split('=').next().unwrap_or_default();
    let key = key.trim_matches(|c: char| c.is_whitespace() || "[]\"'".contains(c));
    let key: String = key.chars().filter(|c| !c.is_control()).take(40).collect();
    if message.contains(&key) {
        format!("line {number}: {message}")
    } else {
        format!("line {number}, `{key}`: {message}")
    }
}

/// Reads the text of a `FILE.sha256`: a digest, alone or as `sha256sum` writes it.
pub(crate) fn parse_sum(bytes: &[u8]) -> Result<Digest, String> {
    let text = str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    // `sha256sum` begins the line with a backslash where it had to escape the file's name.
    let word = text.split_whitespace().next().unwrap_or_default();
    let word = word.strip_prefix('\\').unwrap_or(word);
    word.parse().map_err(|error| format!("it does not begin with a digest: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_keys() {
        let sidecar = Sidecar::parse(
            b"name = 'pump'\nversion = '1.2.3'\nmodel = 'm1'\nmin_version = '1.0.0'\nnotes = 'x'\n",
        );
        let sidecar = sidecar.unwrap();
        assert_eq!(sidecar.name.as_deref(), Some("pump"));
        assert_eq!(sidecar.model.as_deref(), Some("m1"));
        assert_eq!(Sidecar::parse(b"").unwrap(), Sidecar::default());
    }

    #[test]
    fn a_mistake_is_named() {
        for (text, says) in [
            ("modle = 'm1'", "modle"),
            ("name = 'x'\nversion = 12", "version"),
            ("name = 'x'\nversion = 12", "line 2"),
            ("model = 'two words'", "model"),
            ("min_version = '1.2'", "min_version"),
            ("name = ''", "name"),
            ("name = \"a\\u0007b\"", "name"),
            ("name", "line 1"),
            ("[name]\nx = 1", "name"),
        ] {
            let reason = Sidecar::parse(text.as_bytes()).unwrap_err();
            assert!(reason.contains(says), "{text}: {reason}");
            assert!(!reason.contains('\n'), "{reason}");
        }
        assert!(Sidecar::parse(b"\xff").is_err());
    }

    #[test]
    fn sums_as_they_are_written() {
        let digest = Digest::of(b"x");
        for text in [
            format!("{digest}"),
            format!("{digest}  pump.bin\n"),
            format!("{digest} *pump.bin\n"),
            format!("\\{digest}  pu\\\\mp.bin\n"),
        ] {
            assert_eq!(parse_sum(text.as_bytes()), Ok(digest), "{text}");
        }
        for text in ["", "pump.bin", "SHA256 (a) = b", "abcd  pump.bin"] {
            assert!(parse_sum(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Sidecar::parse(&bytes);
            let _ = parse_sum(&bytes);
        }

        #[test]
        fn any_text_is_read(text in "([a-z_]{0,8} ?= ?['\"]?\\PC{0,8}['\"]?\n?){0,4}") {
            let _ = Sidecar::parse(text.as_bytes());
        }
    }
}
