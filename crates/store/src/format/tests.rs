//! Against files that the formats' own tools made (`tests/fixtures/formats/make.py`), and against
//! what is left of them when they are cut, damaged or made up.

use std::io::Cursor;
use std::path::PathBuf;

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;

mod tools;

const LIMIT: u64 = 1 << 20;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats")
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The header, and the image if it was unpacked.
fn read(bytes: &[u8]) -> Result<(Header, Option<Vec<u8>>), String> {
    let mut source = Source::new(Cursor::new(bytes), bytes.len() as u64);
    let run = |source: &mut Source<_>| {
        let examined = examine(source, LIMIT)?;
        let Some(how) = examined.unpack else { return Ok((examined.header, None)) };
        let mut out = Cursor::new(Vec::new());
        let size = unpack(source, &how, LIMIT, &mut out)?;
        let image = out.into_inner();
        assert_eq!(image.len() as u64, size);
        let mut inner = Source::new(Cursor::new(&image[..]), size);
        let inner = examine(&mut inner, LIMIT)?;
        Ok((joined(examined.header, inner.header), Some(image)))
    };
    run(&mut source).map_err(|problem| match problem {
        Problem::Refused(reason) => reason,
        Problem::Io(error) => panic!("reading from memory failed: {error}"),
    })
}

fn header(name: &str) -> Header {
    read(&fixture(name)).unwrap_or_else(|reason| panic!("{name}: {reason}")).0
}

fn refusal(bytes: &[u8]) -> String {
    read(bytes).expect_err("a refusal")
}

#[test]
fn esp_idf_tells_title_version_chip_and_secure_version() {
    for (name, title, version, chip, counter) in [
        ("esp32.bin", Some("pump"), Some("1.4.2"), "esp32", None),
        ("esp32s3.bin", Some("valve"), Some("v2.0.0-rc.1"), "esp32s3", Some(3)),
        ("esp32c3-no-digest.bin", Some("meter"), Some("7"), "esp32c3", None),
        ("esp32-arduino.bin", None, None, "esp32", None),
    ] {
        let header = header(name);
        assert_eq!(header.format, Format::EspIdf, "{name}");
        assert_eq!(header.title.as_deref(), title, "{name}");
        assert_eq!(header.version.as_deref(), version, "{name}");
        assert_eq!(header.chip.as_deref(), Some(chip), "{name}");
        assert_eq!(header.security_counter, counter, "{name}");
        assert_eq!(header.warnings, [""; 0], "{name}");
        assert!(!header.signed);
    }
}

#[test]
fn every_byte_of_an_esp_image_is_checked() {
    let whole = fixture("esp32.bin");
    // Not the reserved bytes of the descriptor's texts alone: all of them, the digest included.
    for at in (24..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        let reason = refusal(&damaged);
        assert!(reason.contains("damaged") || reason.contains("cut short"), "{at}: {reason}");
    }
    for len in [30, 300, 4000, whole.len() - 33, whole.len() - 1] {
        let reason = refusal(&whole[..len]);
        assert!(reason.contains("cut short"), "{len}: {reason}");
    }
    // The checksum alone finds it too.
    let mut damaged = fixture("esp32c3-no-digest.bin");
    damaged[2000] ^= 1;
    assert!(refusal(&damaged).contains("checksum"));
}

#[test]
fn a_signature_sector_and_a_tail_are_noticed() {
    let mut image = fixture("esp32.bin");
    let with_tail = [&image[..], &[0xFF; 10]].concat();
    let (header, _) = read(&with_tail).unwrap();
    assert!(header.warnings[0].starts_with("10 bytes follow"), "{:?}", header.warnings);
    image.resize(image.len().next_multiple_of(4096), 0xFF);
    image.extend([0xE7; 4096]);
    let (header, _) = read(&image).unwrap();
    assert!(header.signed && header.warnings.is_empty());
}

#[test]
fn what_would_brick_a_device_is_refused_with_what_to_do() {
    for (name, says) in [
        ("esp32-bootloader.bin", "boot loader"),
        ("esp32-merged.bin", "whole flash"),
        ("esp32s3-merged.bin", "whole flash"),
        ("esp32-merged-table.bin", "whole flash"),
        ("application.elf", "not the .elf"),
        ("page.bin", "web page"),
        ("zephyr.bin.gz", "gunzip"),
        ("dfu_application-two.zip", "2 images"),
    ] {
        let reason = refusal(&fixture(name));
        assert!(reason.contains(says), "{name}: {reason}");
        assert!(
            reason.contains(": d") || reason.contains(": u"),
            "{name} says what to do: {reason}"
        );
    }
    let boot_of_old_tools = {
        // Before ESP-IDF 5.2 boot loaders had no descriptor either.
        let mut image = fixture("esp32-bootloader.bin");
        image[0x20..0x70].fill(0);
        image
    };
    assert!(refusal(&boot_of_old_tools).contains("boot loader"));
    assert!(refusal(&[0x10, 0xDE, 0xCD, 0xFC, 0, 0]).contains("patch"));
    assert!(refusal(&[0xCF, 0xB6, 0x88, 0x07, 0, 0]).contains("encrypted"));
    for page in
        ["\u{feff}\r\n <HTML lang=en>", "<!doctype HTML><p>", "<?xml version='1.0'?><Error/>"]
    {
        assert!(refusal(page.as_bytes()).contains("web page"), "{page}");
    }
}

#[test]
fn a_whole_flash_is_known_without_its_partition_table() {
    let boot = fixture("esp32-bootloader.bin");
    for at in [0x1000, 0x2000] {
        let mut flash = vec![0xFF; at];
        flash.extend(&boot);
        assert!(refusal(&flash).contains("whole flash"), "{at:#x}");
        // With something else before it, it is not known what it is.
        flash[at - 1] = 0xFE;
        assert_eq!(read(&flash).unwrap().0, Header::default(), "{at:#x}");
    }
    assert!(read(&[0xFF; 0x3000]).is_ok());
}

#[test]
fn a_boot_loader_of_a_chip_that_is_not_known_is_one_all_the_same() {
    let mut boot = fixture("esp32-bootloader.bin");
    for chip in [99_u16, 0x7fff] {
        boot[0x0C..0x0E].copy_from_slice(&chip.to_le_bytes());
        assert!(refusal(&boot).contains("boot loader"), "{chip}");
        let flash = [&[0xFF; 0x2000][..], &boot].concat();
        assert!(refusal(&flash).contains("whole flash"), "{chip}");
    }
    // What says nothing of ESP-IDF is not taken for one.
    boot[0x28..0x48].fill(0);
    assert_eq!(read(&boot).unwrap().0, Header::default());
}

#[test]
fn text_is_no_firmware() {
    let long = "a line of a README\r\n".repeat(10_000);
    for text in [
        "404: Not Found",
        r#"{"message":"Not"}"#,
        "<Error></Error>",
        "9f86d08  pump-1.4.2.bin\n",
        "\u{feff}# Pumpe für Gärten\n\ttext",
        &long,
        ":00000001FE\n; a HEX file is one only where it begins as one\n".trim_start_matches(':'),
    ] {
        let reason = refusal(text.as_bytes());
        assert!(reason.contains("it is text") || reason.contains("web page"), "{text}: {reason}");
        // One byte that no text has.
        for at in [0, text.len()] {
            let mut bytes = text.as_bytes().to_vec();
            bytes.insert(at, 0);
            assert_eq!(read(&bytes).unwrap().0, Header::default(), "{text}");
        }
    }
    for bytes in [&b"word"[..], &[b'\t'; 250], &[b' '; 250]] {
        assert!(read(bytes).is_ok(), "too little to tell");
    }
}

#[test]
fn a_boot_loader_with_its_application_is_refused() {
    let (boot, application) = (vec![0x20; 0xC000], fixture("mcuboot.bin"));
    let merged = [&boot[..], &application].concat();
    assert!(refusal(&merged).contains("for a cable"));
    let apart = [&boot[1..], &application].concat();
    assert!(read(&apart).is_ok(), "no slot begins there");
}

#[test]
fn an_esp8266_image_is_whole() {
    // A boot loader of one sector, and an application of two segments behind it, as Arduino's
    // `elf2bin.py` lays them out.
    let image = |segments: &[(u32, usize)]| {
        let mut image = vec![0xE9, segments.len() as u8, 0, 0x40];
        image.extend(0x4010_0010_u32.to_le_bytes());
        for (address, len) in segments {
            image.extend(address.to_le_bytes());
            image.extend((*len as u32).to_le_bytes());
            image.extend((0..*len).map(|at| at as u8 | 1));
        }
        image.resize((image.len() + 1).next_multiple_of(16), 0);
        image
    };
    let mut whole = image(&[(0x4010_F000, 500)]);
    whole.resize(4096, 0xAA);
    whole.extend(image(&[(0x3FFE_8000, 30_000), (0x4010_0000, 2_001)]));
    let (header, _) = read(&whole).unwrap();
    assert_eq!((header.format, header.chip.as_deref()), (Format::Esp8266, Some("esp8266")));
    for len in [100, 4096 + 20, 20_000, whole.len() - 1] {
        assert!(refusal(&whole[..len]).contains("cut short"), "{len}");
    }
    // Without its second part it is a boot loader alone, which only looks like an image.
    assert!(read(&whole[..4096]).is_ok());
}

#[test]
fn esp8266_images_of_its_own_tool_are_whole() {
    // Behind the end of the third form there is a SHA-256 that its boot loader does not know of.
    for (name, behind) in [("esp8266.bin", 32), ("esp8266-first.bin", 0), ("esp8266-second.bin", 0)]
    {
        let mut whole = fixture(name);
        whole.truncate(whole.len() - behind);
        assert_eq!(header(name).warnings, [""; 0], "{name}");
        for len in [30, 100, whole.len() / 2, whole.len() - 1] {
            assert!(refusal(&whole[..len]).contains("cut short"), "{name}: {len}");
        }
    }
    // The second form alone has a sum of all.
    let whole = fixture("esp8266-second.bin");
    for at in (32..whole.len()).step_by(97) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        let reason = refusal(&damaged);
        assert!(reason.contains("CRC-32") || reason.contains("cut short"), "{at}: {reason}");
    }
}

/// Zeros without end, but for what stands at the beginning; counts what is read.
struct Sparse {
    head: Vec<u8>,
    at: u64,
    read: u64,
}

impl std::io::Read for Sparse {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        for (offset, byte) in buffer.iter_mut().enumerate() {
            *byte = self.head.get(self.at as usize + offset).copied().unwrap_or_default();
        }
        self.at += buffer.len() as u64;
        self.read += buffer.len() as u64;
        Ok(buffer.len())
    }
}

impl std::io::Seek for Sparse {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.at = match to {
            std::io::SeekFrom::Start(at) => at,
            std::io::SeekFrom::Current(by) => self.at.saturating_add_signed(by),
            std::io::SeekFrom::End(_) => unreachable!("nothing has to know the end"),
        };
        Ok(self.at)
    }
}

#[test]
fn a_long_name_in_an_archive_is_not_read() {
    let mut head = tar::Header::new_ustar();
    head.set_path("version").unwrap();
    head.set_size(19);
    head.set_cksum();
    for kind in [tar::EntryType::GNULongName, tar::EntryType::XHeader, tar::EntryType::GNULongLink]
    {
        let mut name = tar::Header::new_ustar();
        name.set_path("long").unwrap();
        name.set_size(1 << 28);
        name.set_entry_type(kind);
        name.set_cksum();
        let mut version = br#"{"format":"mender"}"#.to_vec();
        version.resize(512, 0);
        let head = [&head.as_bytes()[..], &version, name.as_bytes()].concat();
        let sparse = Sparse { head, at: 0, read: 0 };
        let mut source = Source::new(sparse, 1 << 29);
        assert!(matches!(examine(&mut source, LIMIT), Err(Problem::Refused(_))));
        assert!(source.reader.read < 1 << 20, "{} bytes of {kind:?}", source.reader.read);
    }
}

#[test]
fn an_application_without_a_descriptor_is_taken() {
    // As other frameworks build them: it is known by its use of the flash.
    let mut image = fixture("esp32c3-no-digest.bin");
    let sum: u8 = image[0x20..0x120].iter().fold(0, |sum, byte| sum ^ byte);
    image[0x20..0x120].fill(0);
    let checksum = image.len() - 1;
    image[checksum] ^= sum;
    let (header, _) = read(&image).unwrap();
    assert_eq!((header.format, header.version), (Format::EspIdf, None));
}

#[test]
fn bytes_that_only_begin_like_an_image_are_plain() {
    for bytes in
        [&[0xE9][..], &[0xE9; 600], &[0xE9, 3, 0, 0x20, 1, 2, 3, 4], b"\x01:-)", b"S1", b"PK", b""]
    {
        let (header, image) = read(bytes).unwrap();
        assert_eq!((header, image), (Header::default(), None), "{bytes:?}");
    }
}

#[test]
fn mcuboot_tells_version_counter_and_signature() {
    for (name, version, counter, signed) in [
        ("mcuboot.bin", "1.2.3+4", None, false),
        ("mcuboot-counter.bin", "2.0.0", Some(9), false),
        // `--security-counter auto` makes it of the version: 3.1.0.
        ("mcuboot-signed.bin", "3.1.0+7", Some(0x0301_0000), true),
    ] {
        let header = header(name);
        assert_eq!(header.format, Format::Mcuboot);
        assert_eq!(header.version.as_deref(), Some(version), "{name}");
        assert_eq!(header.security_counter, counter, "{name}");
        assert_eq!(header.signed, signed, "{name}");
        assert_eq!((header.title, header.warnings), (None, vec![]));
    }
    let padded = header("mcuboot-padded.bin");
    assert!(padded.warnings[0].contains("padded to a slot"), "{:?}", padded.warnings);
}

#[test]
fn every_byte_of_an_mcuboot_image_is_checked() {
    let whole = fixture("mcuboot-counter.bin");
    for at in (16..whole.len() - 40).step_by(11) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x20;
        assert!(read(&damaged).is_err(), "{at}");
    }
    for len in [20, 40, 1000, whole.len() - 1] {
        let reason = refusal(&whole[..len]);
        assert!(reason.contains("cut short"), "{len}: {reason}");
    }
}

#[test]
fn an_image_in_the_first_format_of_mcuboot_is_refused() {
    // `imgtool` makes none any more. Its magic is one less; all else of it lies elsewhere.
    let mut image = fixture("mcuboot.bin");
    image[0] = 0x3C;
    let reason = refusal(&image);
    assert!(reason.contains("first format") && reason.contains("as_is = true"), "{reason}");
    let merged = [&[0x20; 0xC000][..], &image].concat();
    assert!(refusal(&merged).contains("for a cable"));
}

#[test]
fn the_protected_area_is_as_large_as_the_header_says() {
    let whole = fixture("mcuboot-counter.bin");
    let field = |at: usize| usize::from(u16::from_le_bytes([whole[at], whole[at + 1]]));
    let (body, protected) = (field(8) + field(12), field(10));
    assert_eq!(field(body), 0x6908);
    assert_eq!(field(body + 2), protected);
    // A boot loader compares both; the hash is right in any case.
    for total in [protected - 1, protected + 1, 4, 0] {
        let mut image = whole.clone();
        image[body + 2..body + 4].copy_from_slice(&(total as u16).to_le_bytes());
        let hash = Sha256::digest(&image[..body + protected]);
        let at = body + protected + 4;
        assert_eq!(field(at), 0x10, "its hash comes first");
        image[at + 4..at + 36].copy_from_slice(&hash);
        let reason = refusal(&image);
        assert!(reason.contains("does not fit its end"), "{total}: {reason}");
    }
}

#[test]
fn records_become_the_binary_that_other_tools_make_of_them() {
    let binary = fixture("gap.bin");
    for (name, format, title) in [
        ("gap.hex", Format::IntelHex, None),
        ("gap-bincopy.hex", Format::IntelHex, None),
        ("gap24.srec", Format::Srec, Some("boiler")),
        ("gap32.srec", Format::Srec, Some("boiler")),
    ] {
        let (header, image) = read(&fixture(name)).unwrap();
        assert_eq!((header.format, header.title.as_deref()), (format, title), "{name}");
        assert!(image.unwrap() == binary, "{name}");
    }
    let (_, image) = read(&fixture("segments.hex")).unwrap();
    assert!(image.unwrap() == fixture("segments.bin"));
    let (header, image) = read(&fixture("rp2040.uf2")).unwrap();
    assert_eq!(header.format, Format::Uf2);
    assert_eq!(header.hardware, ["UF2 family 0xe48bff56"]);
    // In whole blocks of 256 bytes, with zeros behind the last byte.
    let (image, zephyr) = (image.unwrap(), fixture("zephyr.bin"));
    assert!(image.starts_with(&zephyr) && image.len() == zephyr.len().next_multiple_of(256));
    let (_, image) = read(&fixture("nrf52840.uf2")).unwrap();
    let image = image.unwrap();
    assert!(image[..100] == binary[..100] && image[0x200..845] == binary[0x200..]);
}

#[test]
fn records_that_make_no_image_are_refused() {
    let hex = String::from_utf8(fixture("gap.hex")).unwrap();
    let without_end = hex.replace(":00000001FF", "");
    let twice = {
        let line = hex.lines().nth(2).unwrap();
        hex.replacen(line, &format!("{line}\n{line}"), 1)
    };
    // Data at 0, and again at 0xFFFF0000.
    let gigantic = ":0100000001FE\n:02000004FFFFFC\n:0100000001FE\n:00000001FF\n";
    let mut wide = String::new();
    for bank in 0..20 {
        let sum = 0u8.wrapping_sub(2 + 4 + bank);
        wide += &format!(":0200000400{bank:02X}{sum:02X}\n:01000000AA55\n:01F00000AA65\n");
    }
    wide += ":00000001FF\n";
    let many: String = (0..5000u32)
        .map(|number| {
            let [high, low] = ((number * 4) as u16).to_be_bytes();
            let sum = 0u8.wrapping_sub(1u8.wrapping_add(high).wrapping_add(low).wrapping_add(7));
            format!(":01{high:02X}{low:02X}0007{sum:02X}\n")
        })
        .collect();
    let long = format!(":{}\n", "00".repeat(1000));
    for (text, says) in [
        (&*without_end, "end record is missing"),
        (&twice, "two of its records are for the address"),
        (gigantic, "more than one image"),
        (&wide, "store.max_size"),
        (&many, "separate ranges"),
        (&long, "too long"),
        (":00000001FF\n", "no data"),
        (":0000000100\n", "checksum"),
        (":00000009F7\n", "type 09"),
        (":00000001FF\n:0100000001FE\n", "follows the end"),
        (":0100000001FE\nhello\n", "line 2"),
        ("S1040000AA51\nS5030002FA\nS9030000FC\n", "counts 2"),
        ("S1040000AA51\n", "end record is missing"),
        ("S1040000AA52\n", "checksum"),
    ] {
        let mut source = Source::new(Cursor::new(text.as_bytes()), text.len() as u64);
        let Err(Problem::Refused(reason)) = examine(&mut source, 1_000_000) else {
            panic!("{text} is taken");
        };
        assert!(reason.contains(says), "{says}: {reason}");
    }

    let uf2 = fixture("rp2040.uf2");
    let with = |at: usize, byte: u8| {
        let mut damaged = uf2.clone();
        damaged[at] = byte;
        refusal(&damaged)
    };
    assert!(refusal(&uf2[..uf2.len() - 512]).contains("8 of 9 blocks"));
    assert!(refusal(&uf2[..uf2.len() - 1]).contains("no whole number"));
    assert!(with(512, 0).contains("block 1 is damaged"));
    assert!(with(512 + 28, 0).contains("more than one family"));
    assert!(with(512 + 13, 0).contains("two of its records"), "{}", with(512 + 13, 0));
    assert!(with(512 + 15, 0x80).contains("more than one image"));
    assert!(with(512 + 17, 0xFF).contains("block 1 is damaged"));
    assert!(with(9, 0x30).contains("holds files"));
}

#[test]
fn archives_of_nordic() {
    let (header, image) = read(&fixture("dfu_application.zip")).unwrap();
    assert_eq!(header.format, Format::NrfConnect);
    assert_eq!(header.title.as_deref(), Some("sensor"));
    assert_eq!(header.version.as_deref(), Some("1.2.3+4"));
    assert_eq!(header.hardware, ["nrf52840dk_nrf52840", "nRF52840"]);
    assert!(image.unwrap() == fixture("mcuboot.bin"));

    let (header, image) = read(&fixture("nrfutil.zip")).unwrap();
    assert_eq!(header.format, Format::NrfUtil);
    assert_eq!(header.version.as_deref(), Some("7"));
    assert!(image.is_none(), "its boot loader wants the init packet");

    let whole = fixture("dfu_application.zip");
    assert!(refusal(&whole[..whole.len() - 30]).contains("damaged or cut short"));
    let mut damaged = whole.clone();
    // Within the packed image, past the manifest.
    damaged[1500] ^= 0xFF;
    assert!(refusal(&damaged).contains("damaged"));
}

#[test]
fn what_an_archive_of_nordic_says_of_its_image_is_compared() {
    let app = fixture("mcuboot.bin");
    let of = |about: &str, app: &[u8]| {
        let manifest = format!(r#"{{"format-version":0,"files":[{{"file":"app.bin",{about}}}]}}"#);
        archive(&[("manifest.json", manifest.as_bytes()), ("app.bin", app)])
    };
    for (version, warns) in [("9.9.9", true), ("1.2.3", false), ("1.2.3+5", false)] {
        let bytes = of(&format!(r#""size":{},"version_MCUBOOT":"{version}""#, app.len()), &app);
        let (header, _) = read(&bytes).unwrap();
        let warned = header.warnings.iter().any(|warning| warning.contains("names version 9.9.9"));
        assert_eq!((warned, header.version.as_deref()), (warns, Some("1.2.3+4")), "{version}");
    }
    assert!(refusal(&of(r#""size":99"#, &app)).contains("names 99 bytes"));
    assert!(refusal(&of(r#""board":"b""#, b"")).contains("is empty"));
}

/// A zip archive of these entries.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for (name, bytes) in entries {
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn archives_that_are_bombs_or_no_firmware() {
    let manifest = br#"{"format-version":0,"files":[{"file":"app.bin"}]}"#;
    let bomb = archive(&[("manifest.json", manifest), ("app.bin", &vec![0; 4 << 20])]);
    assert!(bomb.len() < 10_000, "it is a small file");
    assert!(refusal(&bomb).contains("store.max_size"));
    // One that lies about what is in it: the size in the directory is made small.
    let mut liar = bomb;
    let size = (4u32 << 20).to_le_bytes();
    let places: Vec<_> = (0..liar.len() - 4).filter(|at| liar[*at..at + 4] == size).collect();
    assert!(!places.is_empty());
    for at in places {
        liar[at..at + 4].copy_from_slice(&100u32.to_le_bytes());
    }
    assert!(refusal(&liar).contains("damaged"));

    let huge = vec![b' '; 100 << 10];
    assert!(refusal(&archive(&[("manifest.json", &huge)])).contains("too large"));
    assert!(refusal(&archive(&[("manifest.json", b"{")])).contains("cannot be read"));
    assert!(refusal(&archive(&[("manifest.json", b"{}")])).contains("names no image"));
    assert!(refusal(&archive(&[("manifest.json", manifest)])).contains("not in it"));
    assert!(refusal(&archive(&[("app.bin", b"x")])).contains("without a manifest.json"));
    let names: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    let many: Vec<_> = names.iter().map(|name| (&**name, &b""[..])).collect();
    assert!(refusal(&archive(&many)).contains("more than 64 files"));
}

#[test]
fn containers_are_named_and_served_as_they_are() {
    for (name, format, title, version, hardware) in [
        ("gzip.mender", Format::Mender, Some("gateway"), Some("5.1.0"), &["rpi4", "rpi3"][..]),
        ("none.mender", Format::Mender, Some("gateway"), Some("5.1.0"), &["rpi4", "rpi3"]),
        ("gateway.swu", Format::SwUpdate, None, Some("3.2.1"), &["board-a", "board-b"]),
        ("plain.raucb", Format::Rauc, None, None, &[]),
        ("verity.raucb", Format::Rauc, None, Some("2026.1"), &["gateway-x"]),
        (
            "lamp.zigbee",
            Format::ZigbeeOta,
            Some("lamp firmware"),
            Some("0x12214566"),
            &["manufacturer 0x117c, image type 0x2101"],
        ),
    ] {
        let (header, image) = read(&fixture(name)).unwrap();
        assert!(image.is_none(), "{name}");
        assert_eq!(header.format, format, "{name}");
        assert_eq!(header.title.as_deref(), title, "{name}");
        assert_eq!(header.version.as_deref(), version, "{name}");
        assert_eq!(header.hardware, hardware, "{name}");
        assert_eq!(header.signed, format == Format::Rauc, "{name}");
    }
    for name in ["gzip.mender", "none.mender", "gateway.swu", "lamp.zigbee"] {
        let whole = fixture(name);
        let reason = refusal(&whole[..whole.len() / 2]);
        assert!(reason.contains("cut short"), "{name}: {reason}");
    }
}

/// Files of every format, to be cut and damaged.
fn all() -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(folder()).unwrap();
    let paths = files.map(|file| file.unwrap().path()).filter(|path| path.is_file());
    paths.map(|path| std::fs::read(path).unwrap()).collect()
}

fn is_sentence(reason: &str) -> bool {
    reason.len() > 20 && !reason.contains('\n')
}

proptest! {
    #[test]
    fn a_damaged_file_is_taken_or_refused(
        which in any::<proptest::sample::Index>(), at in any::<proptest::sample::Index>(),
        with in proptest::collection::vec(any::<u8>(), 1..9), cut in any::<proptest::sample::Index>(),
    ) {
        let files = all();
        let mut bytes = which.get(&files).clone();
        let at = at.index(bytes.len());
        for (byte, with) in bytes[at..].iter_mut().zip(with) {
            *byte = with;
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Err(reason) = read(bytes) {
                prop_assert!(is_sentence(&reason), "{}", reason);
            }
        }
    }

    #[test]
    fn records_in_any_order_make_the_same_image(
        pieces in proptest::collection::vec((1usize..40, 0u64..200), 1..60),
        order in any::<u64>(), base in 0u64..0xF000_0000,
    ) {
        let mut at = base;
        let mut image = Vec::new();
        let mut records = Vec::new();
        for (number, (len, gap)) in pieces.into_iter().enumerate() {
            let data = vec![number as u8; len];
            records.push((at, data.clone()));
            image.resize((at - base) as usize, 0xFF);
            image.extend(data);
            at += len as u64 + gap;
        }
        records.sort_by_key(|(at, _)| (at ^ order).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut ranges = flatten::Ranges::default();
        for (at, data) in &records {
            ranges.add(*at, data.len()).unwrap();
        }
        let ranges = ranges.check(LIMIT).unwrap();
        let mut out = Cursor::new(Vec::new());
        let mut flat = flatten::Image::new(&ranges, &mut out).unwrap();
        for (at, data) in &records {
            flat.put(*at, data).unwrap();
        }
        prop_assert_eq!(flat.finish().unwrap(), image.len() as u64);
        prop_assert!(out.into_inner() == image);
    }

    #[test]
    fn ranges_know_every_overlap(
        records in proptest::collection::vec((0u64..300, 0usize..20), 1..40),
    ) {
        let mut ranges = flatten::Ranges::default();
        let mut covered = std::collections::HashSet::new();
        for (at, len) in records {
            let addresses: Vec<_> = (at..at + len as u64).collect();
            let overlaps = addresses.iter().any(|address| covered.contains(address));
            prop_assert_eq!(ranges.add(at, len).is_err(), overlaps);
            if overlaps {
                break;
            }
            covered.extend(addresses);
        }
    }
}
