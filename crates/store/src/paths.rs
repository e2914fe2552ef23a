//! The folders of the watched place, and what a path in it means.
//!
//! | path | for |
//! | --- | --- |
//! | `FILE`, `all/FILE` | every device that it fits |
//! | `groups/NAME/FILE` | the devices of a group |
//! | `models/NAME/FILE` | the devices of a model |
//! | `devices/ID/FILE` | one device |
//!
//! Everything here is about names alone: no I/O. A path uses `/` and is relative to the root.

use std::fmt;

/// Whom a file is for, as its folder says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Every device that the file fits.
    All,
    /// The devices of this group.
    Group(String),
    /// The devices of this model.
    Model(String),
    /// This device.
    Device(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Group(name) => write!(f, "group {name}"),
            Self::Model(name) => write!(f, "model {name}"),
            Self::Device(id) => write!(f, "device {id}"),
        }
    }
}

/// What a file is, by its path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A firmware file for `Target`.
    Firmware(Target),
    /// A file that says something about the firmware file beside it, whose path is `of`.
    Companion { of: String, kind: Companion },
    /// Nothing of ours: a hidden, temporary or status file.
    Ignored,
    /// In the wrong place. `path` is the outermost folder or the file that is wrong.
    Refused { path: String, reason: String },
}

/// The kinds of files that stand beside a firmware file, as `FILE.EXTENSION`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Companion {
    /// `FILE.toml`: title, version, model.
    Sidecar,
    /// `FILE.sha256`: the digest that the firmware file has when it is whole.
    Sum,
    /// `FILE.minisig`: a detached signature.
    Signature,
}

/// What a folder is, by its path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Folder {
    /// May hold files or further folders.
    Open,
    /// Nothing of ours.
    Ignored,
    /// Not a folder of the contract; the sentence says which are.
    Refused(String),
}

/// Whether `name` may stand for a device, a group or a model:
/// `[A-Za-z0-9][A-Za-z0-9._:-]{0,127}` (rule 4).
pub fn is_valid_name(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
}

/// Says what the folder at `path` is.
pub(crate) fn folder(path: &str) -> Folder {
    let parts: Vec<&str> = path.split('/').collect();
    if parts.iter().any(|part| part.starts_with('.')) || parts[0] == "lost+found" {
        return Folder::Ignored;
    }
    match parts[..] {
        ["all" | "groups" | "models" | "devices"] => Folder::Open,
        ["groups" | "models" | "devices", name] if is_valid_name(name) => Folder::Open,
        [kind @ ("groups" | "models" | "devices"), name] => Folder::Refused(format!(
            "{name:?} cannot name a {}: use 1 to 128 of the characters A-Z a-z 0-9 . _ : -, \
             the first a letter or digit",
            kind.trim_end_matches('s')
        )),
        [_] => Folder::Refused(
            "not a folder of the watched place: put files at its root or into all/, \
             groups/NAME/, models/NAME/ or devices/ID/"
                .into(),
        ),
        _ => Folder::Refused(
            "deeper folders are not looked into: one component, `main`, for now; \
             move the files up"
                .into(),
        ),
    }
}

/// Says what the file at `path` is.
pub(crate) fn classify(path: &str) -> Place {
    // Outermost first, so that one wrong folder is one refusal, however many files it holds.
    for (end, _) in path.match_indices('/') {
        match folder(&path[..end]) {
            Folder::Open => {}
            Folder::Ignored => return Place::Ignored,
            Folder::Refused(reason) => {
                return Place::Refused { path: path[..end].to_owned(), reason };
            }
        }
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    if is_ignored(name) {
        return Place::Ignored;
    }
    for (extension, kind) in [
        (".toml", Companion::Sidecar),
        (".sha256", Companion::Sum),
        (".minisig", Companion::Signature),
    ] {
        if let Some(of) = path.strip_suffix(extension) {
            return Place::Companion { of: of.to_owned(), kind };
        }
    }
    let parts: Vec<&str> = path.split('/').collect();
    let target = match parts[..] {
        [_] | ["all", _] => Target::All,
        ["groups", name, _] => Target::Group(name.to_owned()),
        ["models", name, _] => Target::Model(name.to_owned()),
        ["devices", id, _] => Target::Device(id.to_owned()),
        _ => {
            let kind = parts[0];
            return Place::Refused {
                path: path.to_owned(),
                reason: format!(
                    "{kind}/ holds one folder for each of the {kind}: move the file into \
                     {kind}/NAME/"
                ),
            };
        }
    };
    Place::Firmware(target)
}

/// Hidden files, files that a program is still writing under another name, and status files.
fn is_ignored(name: &str) -> bool {
    name.starts_with('.')
        || UNFINISHED.iter().chain(&["~", ".status.json"]).any(|ending| name.ends_with(ending))
}

/// Editors, rsync and scp's friends, rclone, WinSCP, and browsers write under these endings; what
/// a broken line leaves keeps them.
const UNFINISHED: [&str; 7] =
    [".tmp", ".part", ".partial", ".filepart", ".crdownload", ".download", ".swp"];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn folders_of_the_contract() {
        for (path, target) in [
            ("a.bin", Target::All),
            ("all/a.bin", Target::All),
            ("all.bin", Target::All),
            ("groups/north/a.bin", Target::Group("north".into())),
            ("models/m:1/a.bin", Target::Model("m:1".into())),
            ("devices/00-1B/a", Target::Device("00-1B".into())),
        ] {
            assert_eq!(classify(path), Place::Firmware(target), "{path}");
        }
    }

    #[test]
    fn what_is_not_firmware() {
        for path in [
            ".a.bin",
            "a.tmp",
            "a.part",
            ".a.swp",
            "a.bin~",
            "a.bin.status.json",
            ".git/a",
            "all/.cache/a.bin",
            "lost+found/a",
            "..data/a",
        ] {
            assert_eq!(classify(path), Place::Ignored, "{path}");
        }
        for (path, kind) in [
            ("all/a.bin.toml", Companion::Sidecar),
            ("all/a.bin.sha256", Companion::Sum),
            ("all/a.bin.minisig", Companion::Signature),
        ] {
            let of = "all/a.bin".to_owned();
            assert_eq!(classify(path), Place::Companion { of, kind }, "{path}");
        }
    }

    #[test]
    fn what_stands_in_the_wrong_place() {
        let long = format!("devices/{}", "x".repeat(129));
        for (path, wrong, says) in [
            ("all/x/y/a.bin", "all/x", "one component, `main`, for now"),
            ("groups/n/main/a.bin", "groups/n/main", "one component"),
            ("other/a.bin", "other", "groups/NAME/"),
            ("groups/a.bin", "groups/a.bin", "groups/NAME/"),
            ("groups/-n/a.bin", "groups/-n", "cannot name a group"),
            ("models/ä/a.bin", "models/ä", "cannot name a model"),
            (&format!("{long}/a.bin"), &long, "cannot name a device"),
        ] {
            let Place::Refused { path: found, reason } = classify(path) else {
                panic!("{path} is accepted");
            };
            assert_eq!(found, wrong);
            assert!(reason.contains(says), "{reason}");
        }
    }

    proptest! {
        #[test]
        fn every_path_is_something(path in "\\PC{0,40}|(all|groups|models|devices|x|\\.|/){0,6}") {
            let _ = classify(&path);
        }
    }
}
