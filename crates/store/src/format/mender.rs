//! Mender artifacts, version 3: a tar archive of `version`, `manifest`, `header.tar…`, `data/…`,
//! in this order. Served as they are; the device checks the digests and signatures within.

use std::io::{self, Read, Seek};

use flate2::read::GzDecoder;
use serde::Deserialize;

use super::{Examined, Format, Header, Problem, Source, packed, refuse, text};
use crate::names::NameParts;

/// What is read of the header, compressed or not, at most.
const MAX_HEADER: u64 = 1 << 20;
/// Members that are looked at.
const MAX_MEMBERS: usize = 64;

#[derive(Deserialize)]
struct Info {
    artifact_provides: Option<Provides>,
    artifact_depends: Option<Depends>,
}

#[derive(Deserialize)]
struct Provides {
    artifact_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Depends {
    device_type: Vec<String>,
}

/// A tar archive whose first member is named `version`.
pub(super) fn begins(head: &[u8]) -> bool {
    head.starts_with(b"version\0") && head.get(257..262) == Some(b"ustar")
}

pub(super) fn examine<R: Read + Seek>(source: &mut Source<R>) -> Result<Examined, Problem> {
    let size = source.size;
    let cut = |error| packed(error, "a Mender artifact");
    let mut header = Header { format: Format::Mender, ..Header::default() };
    let (mut seen_version, mut seen_header, mut seen_data) = (false, false, false);
    let mut archive = tar::Archive::new(source.rewound()?);
    // Raw: else a member that extends the name of the next one is read into memory, however large.
    for entry in archive.entries_with_seek().map_err(cut)?.raw(true).take(MAX_MEMBERS) {
        let mut entry = entry.map_err(cut)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.raw_file_position().saturating_add(entry.size()) > size {
            return refuse(format!("it is cut short within its member {name:?}: copy it again"));
        }
        match &*name {
            "version" => {
                let mut text = String::new();
                entry.by_ref().take(1024).read_to_string(&mut text).map_err(cut)?;
                seen_version = text.contains("\"mender\"");
            }
            "manifest.sig" => header.signed = true,
            "header.tar" => info(&mut entry, &mut header).map_err(cut)?,
            "header.tar.gz" => info(&mut GzDecoder::new(&mut entry), &mut header).map_err(cut)?,
            _ => {}
        }
        seen_header |= name.starts_with("header.tar");
        seen_data |= name.starts_with("data/");
    }
    if !seen_version {
        // Some other archive.
        return Ok(Header::default().into());
    }
    if !seen_header || !seen_data {
        return refuse("it is a Mender artifact that is cut short: copy it again");
    }
    Ok(header.into())
}

/// Reads name and devices out of the header. Other compressions than gzip stay closed.
fn info(packed: &mut impl Read, header: &mut Header) -> io::Result<()> {
    let mut archive = tar::Archive::new(packed.take(MAX_HEADER));
    for entry in archive.entries()?.raw(true).take(MAX_MEMBERS) {
        let entry = entry?;
        if &*entry.path_bytes() != b"header-info" {
            continue;
        }
        let mut bytes = Vec::new();
        entry.take(MAX_HEADER).read_to_end(&mut bytes)?;
        let Ok(info) = serde_json::from_slice::<Info>(&bytes) else { break };
        let name = info.artifact_provides.and_then(|provides| provides.artifact_name);
        if let Some(name) = name.and_then(|name| text(name.as_bytes())) {
            let parts = NameParts::parse(&name);
            (header.title, header.version) = match parts.version {
                Some(version) => (parts.title, Some(version)),
                None => (None, Some(name)),
            };
        }
        let devices = info.artifact_depends.unwrap_or_default().device_type;
        header.hardware.extend(devices.iter().take(32).filter_map(|name| text(name.as_bytes())));
        break;
    }
    Ok(())
}
