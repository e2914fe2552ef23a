//! What the bytes of an image say of themselves.
//!
//! A file is looked at once, when its copy is whole and before anybody is told of it. What would
//! brick a device is refused with a sentence that says what to do; what a device cannot write as
//! it is (HEX, SREC, UF2, a zip of the nRF Connect SDK) is turned into the binary that it can;
//! anything that is not known is a plain binary. Every reader takes a file that may be hundreds of
//! megabytes and keeps no more than [`CHUNK`] bytes of it, and some thousand address ranges.
//!
//! | module | format |
//! | --- | --- |
//! | `esp` | applications of ESP-IDF, and what looks like them |
//! | `mcuboot` | images for MCUboot: Zephyr, nRF Connect SDK |
//! | `uf2`, `intel_hex`, `srec` | blocks and records with addresses; `flatten` makes them binary |
//! | `nrf` | the zip archives of the nRF Connect SDK and of nrfutil |
//! | `mender`, `swupdate`, `rauc`, `zigbee` | containers, served as they are |
//! | `mistakes` | what is dropped by mistake: ELF, web pages, gzip, patches |

mod esp;
mod flatten;
mod intel_hex;
mod mcuboot;
mod mender;
mod mistakes;
mod nrf;
mod rauc;
mod srec;
mod swupdate;
mod uf2;
mod zigbee;

use std::io::{self, Read, Seek, SeekFrom, Write};

use serde::{Deserialize, Serialize};

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// The longest text that is taken out of a header, in bytes; as for a sidecar.
const MAX_TEXT: usize = 128;

/// The formats that are told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Bytes that say nothing.
    #[default]
    Binary,
    /// An application of ESP-IDF.
    EspIdf,
    /// An image of an ESP8266.
    Esp8266,
    /// An image for MCUboot.
    Mcuboot,
    /// USB Flashing Format; served as the binary in it.
    Uf2,
    /// Intel HEX; served as the binary in it.
    IntelHex,
    /// Motorola S-records; served as the binary in them.
    Srec,
    /// `dfu_application.zip` of the nRF Connect SDK; served as the image in it.
    NrfConnect,
    /// A package of nrfutil for the nRF5 SDK's boot loader, with its init packet.
    NrfUtil,
    /// A Mender artifact.
    Mender,
    /// A SWUpdate image.
    SwUpdate,
    /// A RAUC bundle.
    Rauc,
    /// A Zigbee OTA file.
    ZigbeeOta,
}

impl Format {
    /// The name in listings.
    pub fn name(self) -> &'static str {
        match self {
            Format::Binary => "binary",
            Format::EspIdf => "ESP-IDF",
            Format::Esp8266 => "ESP8266",
            Format::Mcuboot => "MCUboot",
            Format::Uf2 => "UF2",
            Format::IntelHex => "Intel HEX",
            Format::Srec => "SREC",
            Format::NrfConnect => "nRF Connect SDK",
            Format::NrfUtil => "nrfutil",
            Format::Mender => "Mender",
            Format::SwUpdate => "SWUpdate",
            Format::Rauc => "RAUC",
            Format::ZigbeeOta => "Zigbee OTA",
        }
    }
}

/// What an image says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Header {
    /// What it is; of what was turned into a binary, what it was.
    pub format: Format,
    /// What the firmware is called.
    pub title: Option<String>,
    /// Its version, as it stands there.
    pub version: Option<String>,
    /// The chip that it runs on, in lower case and without dashes, as in `esp32s3`.
    pub chip: Option<String>,
    /// The devices that a container names, in its own words.
    pub hardware: Vec<String>,
    /// The security version or counter: a boot loader with a higher one refuses the image.
    pub security_counter: Option<u32>,
    /// Whether it carries a signature of its own, which is the device's to check.
    pub signed: bool,
    /// What is odd about it, a sentence each.
    pub warnings: Vec<String>,
}

/// Why an image is not taken.
#[derive(Debug)]
pub(crate) enum Problem {
    /// What it is and what to do, as the end of a sentence that begins with its name.
    Refused(String),
    /// It cannot be read or written.
    Io(io::Error),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Problem {
    /// A refusal of one line: what a library says of a file may quote it.
    fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(reason.into().replace(char::is_control, " "))
    }
}

/// Makes a refusal.
fn refuse<T>(reason: impl Into<String>) -> Result<T, Problem> {
    Err(Problem::refused(reason))
}

/// An image that can be read from any place.
#[derive(Debug)]
pub(crate) struct Source<R> {
    reader: R,
    size: u64,
}

impl<R: Read + Seek> Source<R> {
    pub(crate) fn new(reader: R, size: u64) -> Self {
        Self { reader, size }
    }

    /// As many of the `len` bytes at `offset` as there are.
    fn at(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let len = (len as u64).min(self.size.saturating_sub(offset));
        let mut bytes = Vec::new();
        if len > 0 {
            self.reader.seek(SeekFrom::Start(offset))?;
            self.reader.by_ref().take(len).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    }

    /// Feeds `len` bytes at `offset` to `each`, piece after piece.
    fn feed(&mut self, offset: u64, len: u64, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.reader.seek(SeekFrom::Start(offset))?;
        let mut buffer = vec![0; CHUNK.min(usize::try_from(len).unwrap_or(CHUNK))];
        let mut left = len;
        while left > 0 {
            let part = &mut buffer[..CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
            self.reader.read_exact(part)?;
            each(part);
            left -= part.len() as u64;
        }
        Ok(())
    }

    /// Reading from the beginning.
    fn rewound(&mut self) -> io::Result<&mut R> {
        self.reader.rewind()?;
        Ok(&mut self.reader)
    }
}

/// What a file is, and what has to be done with it.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) header: Header,
    pub(crate) unpack: Option<Unpack>,
}

/// How the image that a device can write is got out of a file; see [`unpack`].
#[derive(Debug)]
pub(crate) enum Unpack {
    Uf2(flatten::Ranges),
    IntelHex(flatten::Ranges),
    Srec(flatten::Ranges),
    Zip { entry: String },
}

impl From<Header> for Examined {
    fn from(header: Header) -> Self {
        Self { header, unpack: None }
    }
}

/// Says what a file is. What is unpacked may have no more than `limit` bytes.
pub(crate) fn examine<R: Read + Seek>(
    source: &mut Source<R>,
    limit: u64,
) -> Result<Examined, Problem> {
    let head = source.at(0, 512)?;
    mistakes::check(&head)?;
    if esp::begins(&head) {
        return esp::examine(source, &head);
    }
    if mcuboot::begins(&head) {
        return mcuboot::examine(source, &head);
    }
    if zigbee::begins(&head) {
        return zigbee::examine(source, &head);
    }
    if uf2::begins(&head) {
        return uf2::examine(source, limit);
    }
    if intel_hex::begins(&head) {
        return intel_hex::examine(source, limit);
    }
    if srec::begins(&head) {
        return srec::examine(source, limit);
    }
    if nrf::begins(&head) {
        return nrf::examine(source, limit);
    }
    if mender::begins(&head) {
        return mender::examine(source);
    }
    if swupdate::begins(&head) {
        return swupdate::examine(source);
    }
    if rauc::begins(&head) {
        return rauc::examine(source);
    }
    esp::refuse_merged(source)?;
    mistakes::refuse_merged(source)?;
    mistakes::check_text(source)?;
    Ok(Header::default().into())
}

/// Writes the image that a device can write, from the beginning of `out`. Returns its size.
pub(crate) fn unpack<R: Read + Seek, W: Write + Seek>(
    source: &mut Source<R>,
    how: &Unpack,
    limit: u64,
    out: &mut W,
) -> Result<u64, Problem> {
    match how {
        Unpack::Uf2(ranges) => {
            let mut image = flatten::Image::new(ranges, out)?;
            uf2::blocks(source, |block| image.put(block.address, block.data))?;
            image.finish()
        }
        Unpack::IntelHex(ranges) => {
            let mut image = flatten::Image::new(ranges, out)?;
            intel_hex::records(source, |address, data| image.put(address, data))?;
            image.finish()
        }
        Unpack::Srec(ranges) => {
            let mut image = flatten::Image::new(ranges, out)?;
            srec::records(source, |address, data| image.put(address, data))?;
            image.finish()
        }
        Unpack::Zip { entry } => nrf::unpack(source, entry, limit, out),
    }
}

/// What an image says that was unpacked, beside what its wrapping said.
pub(crate) fn joined(outer: Header, inner: Header) -> Header {
    // A build number may stand in one of them alone.
    let core = |version: &str| version.split('+').next().map(str::to_owned);
    let differ = match (&outer.version, &inner.version) {
        (Some(outer), Some(inner)) if core(outer) != core(inner) => Some(format!(
            "the archive names version {outer}, and the image in it is {inner}: that is what devices \
             will report"
        )),
        _ => None,
    };
    Header {
        format: outer.format,
        title: outer.title.or(inner.title),
        // What the device will report is in the image itself.
        version: inner.version.or(outer.version),
        chip: inner.chip.or(outer.chip),
        hardware: if outer.hardware.is_empty() { inner.hardware } else { outer.hardware },
        security_counter: inner.security_counter.or(outer.security_counter),
        signed: outer.signed || inner.signed,
        warnings: [outer.warnings, inner.warnings, Vec::from_iter(differ)].concat(),
    }
}

/// An error of a library that reads packed bytes: the disk's, or for the file to answer for.
fn packed(error: io::Error, what: &str) -> Problem {
    match error.raw_os_error() {
        Some(_) => Problem::Io(error),
        None => Problem::refused(format!(
            "it is {what} that is damaged or cut short ({error}): copy it again"
        )),
    }
}

/// The text before the first NUL, if it is text that can be shown.
fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = str::from_utf8(&bytes[..end]).ok()?.trim();
    let fine = !text.is_empty() && text.len() <= MAX_TEXT && !text.chars().any(char::is_control);
    fine.then(|| text.to_owned())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
