//! The zip archives of Nordic's SDKs, each with a `manifest.json`.
//!
//! `dfu_application.zip` of the nRF Connect SDK names its images in a list; the one image in it is
//! what a device takes. A package of nrfutil for the older nRF5 SDK is served whole, since its boot
//! loader wants the init packet that lies beside the image.

use std::io::{self, Read, Seek, Write};

use serde::Deserialize;
use serde_json::Value;
use zip::{ZipArchive, result::ZipError};

use super::{Examined, Format, Header, Problem, Source, Unpack, packed, refuse, text};

/// The largest manifest that is read, in bytes.
const MAX_MANIFEST: u64 = 64 << 10;
/// Files in such an archive, at most. Those that the SDKs make have four.
const MAX_ENTRIES: u16 = 64;
/// The end of an archive: its record of 22 bytes and a comment.
const MAX_END: usize = 22 + 0xFFFF;

#[derive(Deserialize)]
struct Manifest {
    /// nRF Connect SDK.
    #[serde(default)]
    files: Vec<File>,
    name: Option<String>,
    /// nrfutil: application, bootloader, softdevice, each with its files.
    manifest: Option<serde_json::Map<String, Value>>,
}

#[derive(Deserialize)]
struct File {
    file: String,
    size: Option<u64>,
    soc: Option<String>,
    board: Option<String>,
    #[serde(rename = "version_MCUBOOT")]
    version: Option<String>,
}

pub(super) fn begins(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06")
}

pub(super) fn examine<R: Read + Seek>(
    source: &mut Source<R>,
    limit: u64,
) -> Result<Examined, Problem> {
    let mut archive = open(source)?;
    let Some(bytes) = manifest(&mut archive)? else {
        return refuse(
            "it is a zip archive without a manifest.json: drop the image that is in it, or write \
             `as_is = true` into its sidecar if the device takes the archive",
        );
    };
    let manifest: Manifest = match serde_json::from_slice(&bytes) {
        Ok(manifest) => manifest,
        Err(error) => {
            return refuse(format!("its manifest.json cannot be read ({error}): build it again"));
        }
    };
    let is_name = |name: &Option<String>| name.as_deref().and_then(|name| text(name.as_bytes()));
    if let Some(packages) = manifest.manifest {
        let Some(application) = packages.get("application").filter(|it| it.is_object()) else {
            return refuse(
                "it is a package of nrfutil without an application, and what else it replaces \
                 (boot loader, soft device) can leave a device that does not start: drop the \
                 application's package, or write `as_is = true` into its sidecar if this is meant",
            );
        };
        let version = nrfutil_version(application);
        return Ok(
            Header { format: Format::NrfUtil, version, signed: true, ..Header::default() }.into()
        );
    }
    let file = match &manifest.files[..] {
        [file] => file,
        [] => return refuse("its manifest.json names no image: build it again"),
        several => {
            return refuse(format!(
                "it holds {} images ({}), and a device takes one for its one component, `main`: \
                 drop the application's .bin alone",
                several.len(),
                several.iter().map(|file| &*file.file).take(4).collect::<Vec<_>>().join(", ")
            ));
        }
    };
    let size = match archive.by_name(&file.file) {
        Ok(entry) => entry.size(),
        Err(_) => {
            return refuse(format!(
                "its manifest.json names {:?}, which is not in it: build it again",
                file.file
            ));
        }
    };
    if let Some(named) = file.size.filter(|named| *named != size) {
        return refuse(format!(
            "its manifest.json names {named} bytes for {:?}, which has {size}: build it again",
            file.file
        ));
    }
    if size == 0 {
        return refuse("the image in it is empty: build it again");
    }
    if size > limit {
        return refuse(format!(
            "the image in it has {size} bytes, more than store.max_size allows ({limit})"
        ));
    }
    let header = Header {
        format: Format::NrfConnect,
        title: is_name(&manifest.name),
        version: is_name(&file.version),
        hardware: [&file.board, &file.soc].into_iter().filter_map(is_name).collect(),
        ..Header::default()
    };
    Ok(Examined { header, unpack: Some(Unpack::Zip { entry: file.file.clone() }) })
}

/// Writes the image in it. What an entry says of its size may be a lie.
pub(super) fn unpack<R: Read + Seek, W: Write>(
    source: &mut Source<R>,
    entry: &str,
    limit: u64,
    out: &mut W,
) -> Result<u64, Problem> {
    let mut archive = open(source)?;
    let mut entry = archive.by_name(entry).map_err(broken)?;
    let size = entry.size();
    let mut image = entry.by_ref().take(limit.saturating_add(1));
    let written = io::copy(&mut image, out).map_err(|error| broken(error.into()))?;
    if written != size || written > limit || written == 0 {
        return refuse(
            "it is damaged: the image in it has not the size that it names: build it again",
        );
    }
    Ok(written)
}

/// Opens it, unless its directory is larger than that of any such archive: that would be read
/// into memory.
fn open<R: Read + Seek>(source: &mut Source<R>) -> Result<ZipArchive<&mut R>, Problem> {
    let tail = source.at(source.size.saturating_sub(MAX_END as u64), MAX_END)?;
    let is_large = tail.windows(12).any(|window| {
        window.starts_with(b"PK\x06\x07")
            || (window.starts_with(b"PK\x05\x06")
                && u16::from_le_bytes([window[10], window[11]]) > MAX_ENTRIES)
    });
    if is_large {
        return refuse(format!(
            "it is a zip archive of more than {MAX_ENTRIES} files, and no firmware package: drop \
             the image that is in it"
        ));
    }
    ZipArchive::new(source.rewound()?).map_err(broken)
}

fn manifest<R: Read + Seek>(archive: &mut ZipArchive<R>) -> Result<Option<Vec<u8>>, Problem> {
    let entry = match archive.by_name("manifest.json") {
        Ok(entry) => entry,
        Err(ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(broken(error)),
    };
    let mut bytes = Vec::new();
    entry.take(MAX_MANIFEST + 1).read_to_end(&mut bytes).map_err(|error| broken(error.into()))?;
    if bytes.len() as u64 > MAX_MANIFEST {
        return refuse("its manifest.json is too large to be one: build it again");
    }
    Ok(Some(bytes))
}

fn nrfutil_version(application: &Value) -> Option<String> {
    let version = application.get("init_packet_data")?.get("application_version")?.as_u64()?;
    // The value of a package that names none.
    (version != 0xFFFF_FFFF).then(|| version.to_string())
}

fn broken(error: ZipError) -> Problem {
    let error = match error {
        ZipError::Io(error) => error,
        error => io::Error::other(error),
    };
    packed(error, "a zip archive")
}
