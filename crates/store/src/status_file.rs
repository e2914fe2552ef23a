//! `FILE.status.json` beside a dropped file: what became of it, for whoever has the folder alone.
//!
//! Whoever can write into the watched directory must not be able to lead the daemon's pen
//! elsewhere, so no link is followed on the way, and the file takes its name by a rename.
#![cfg_attr(not(unix), allow(unused_variables, dead_code))]

use std::io;
use std::path::Path;

/// Behind the name of the firmware file.
pub(crate) const ENDING: &str = ".status.json";

/// Writes the status of the file at `path` below `root`, or removes it. Blocks.
#[cfg(unix)]
pub(crate) fn write(root: &Path, path: &str, status: Option<&[u8]>) -> io::Result<()> {
    use std::io::Write as _;

    use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};

    let (at, name) = folder_of(root, path)?;
    let Some(status) = status else {
        return match unlinkat(&at, &*name, AtFlags::empty()) {
            Err(rustix::io::Errno::NOENT) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        };
    };
    // Hidden, so that nobody takes it for a firmware file.
    let temporary = format!(".{name}.tmp");
    let _ = unlinkat(&at, &*temporary, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o644);
    let mut file = std::fs::File::from(openat(&at, &*temporary, flags, mode)?);
    let written =
        file.write_all(status).and_then(|()| Ok(renameat(&at, &*temporary, &at, &*name)?));
    if written.is_err() {
        let _ = unlinkat(&at, &*temporary, AtFlags::empty());
    }
    written
}

/// The folder of the file at `path` below `root`, and the name of its status file.
#[cfg(unix)]
fn folder_of(root: &Path, path: &str) -> io::Result<(rustix::fd::OwnedFd, String)> {
    use rustix::fs::{Mode, OFlags, open, openat};

    let folder = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let mut at = open(root, folder, Mode::empty())?;
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    for part in folders.split('/').filter(|part| !part.is_empty()) {
        if part == ".." {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        at = openat(&at, part, folder | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok((at, format!("{name}{ENDING}")))
}

/// Removes the status file of a file that is not there, if it is one of ours. Blocks.
#[cfg(unix)]
pub(crate) fn remove_left(root: &Path, path: &str) -> io::Result<()> {
    use std::io::Read as _;

    use rustix::fs::{Mode, OFlags, openat};

    let (at, name) = folder_of(root, path)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = std::fs::File::from(openat(&at, &*name, flags, Mode::empty())?);
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    let ours = serde_json::from_slice::<Ours>(&text).is_ok_and(|ours| ours.path == path);
    if ours { write(root, path, None) } else { Ok(()) }
}

/// No status is as long, in bytes.
#[cfg(unix)]
const LONGEST: u64 = 1 << 20;

/// By what a status is known.
#[cfg(unix)]
#[derive(serde::Deserialize)]
struct Ours {
    path: String,
    #[serde(rename = "state")]
    _state: String,
}

#[cfg(not(unix))]
pub(crate) fn remove_left(root: &Path, path: &str) -> io::Result<()> {
    Ok(())
}

/// Elsewhere there is none: links cannot be kept out of the way by the standard library.
#[cfg(not(unix))]
pub(crate) fn write(root: &Path, path: &str, status: Option<&[u8]>) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn it_stands_beside_the_file_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("models/m")).unwrap();
        for path in ["a.bin", "models/m/b.bin"] {
            for text in ["{}", "{\"state\":\"accepted\"}"] {
                write(&root, path, Some(text.as_bytes())).unwrap();
                let status = fs::read_to_string(root.join(format!("{path}.status.json")));
                assert_eq!(status.unwrap(), text);
            }
            write(&root, path, None).unwrap();
            write(&root, path, None).unwrap();
        }
        assert_eq!(fs::read_dir(root.join("models/m")).unwrap().count(), 0);
        assert!(write(&root, "missing/c.bin", Some(b"{}")).is_err());
    }

    #[test]
    fn what_is_left_of_a_file_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let beside = |name: &str| root.join(format!("{name}{ENDING}"));
        let ours = |path: &str| format!("{{\"path\": \"{path}\", \"state\": \"refused\"}}");
        for (name, text, stays) in [
            ("a.bin", ours("a.bin"), false),
            ("b.bin", ours("other.bin"), true),
            ("c.bin", "{\"path\": \"c.bin\"}".to_owned(), true),
            ("d.bin", "anything".to_owned(), true),
        ] {
            fs::write(beside(name), text).unwrap();
            remove_left(root, name).unwrap();
            assert_eq!(beside(name).exists(), stays, "{name}");
        }
        fs::write(root.join("target"), ours("e.bin")).unwrap();
        symlink(root.join("target"), beside("e.bin")).unwrap();
        assert!(remove_left(root, "e.bin").is_err());
        assert!(fs::symlink_metadata(beside("e.bin")).is_ok());
    }

    #[test]
    fn no_link_leads_it_away() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        let secret = outside.join("secret");
        fs::write(&secret, "secret").unwrap();
        // In place of the status file, of the temporary one, and of a folder.
        symlink(&secret, root.join("a.bin.status.json")).unwrap();
        symlink(&secret, root.join(".a.bin.status.json.tmp")).unwrap();
        write(&root, "a.bin", Some(b"{}")).unwrap();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
        assert!(fs::symlink_metadata(root.join("a.bin.status.json")).unwrap().is_file());
        symlink(&outside, root.join("all")).unwrap();
        assert!(write(&root, "all/a.bin", Some(b"{}")).is_err());
        assert!(write(&root, "../outside/a.bin", Some(b"{}")).is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }
}
