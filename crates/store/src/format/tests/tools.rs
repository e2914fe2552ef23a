//! What the formats' own tools say of the files in the folder, as `expected.tsv` has it, is what is
//! said here.

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{fixture, folder, read};

/// What a tool says of a file; the JSON of its line.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Said {
    format: String,
    title: Option<String>,
    version: Option<String>,
    chip: Option<String>,
    security_counter: Option<u32>,
    /// The SHA-256 of the binary in it.
    image: Option<String>,
    /// Of blocks for several families.
    chips: Vec<String>,
}

/// Name, size, SHA-256, and what a tool says, where one is for it.
fn listed() -> Vec<(String, usize, String, Option<Said>)> {
    let listing = String::from_utf8(fixture("expected.tsv")).unwrap();
    let line = |line: &str| {
        let mut fields = line.split('\t');
        let mut next = || fields.next().unwrap_or_default();
        let (name, size, digest, said) = (next(), next(), next(), next());
        let said = (!said.is_empty()).then(|| serde_json::from_str(said).expect(name));
        (name.to_owned(), size.parse().expect(name), digest.to_owned(), said)
    };
    listing.lines().map(line).collect()
}

#[test]
fn every_file_is_listed_and_as_it_was_made() {
    let listed = listed();
    let mut names = Vec::new();
    for (name, size, digest, _) in &listed {
        let bytes = fixture(name);
        assert_eq!((bytes.len(), &hex::encode(Sha256::digest(&bytes))), (*size, digest), "{name}");
        names.push(name.clone());
    }
    let files = std::fs::read_dir(folder()).unwrap();
    let mut found: Vec<_> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    found.retain(|name| ![".py", ".sh", ".tsv"].iter().any(|end| name.ends_with(end)));
    found.sort();
    names.sort();
    assert_eq!(names, found);
}

#[test]
fn what_tools_say_is_said_here() {
    let mut judged = 0;
    for (name, _, _, said) in listed() {
        let Some(said) = said.filter(|said| said.chips.is_empty()) else { continue };
        let (header, image) =
            read(&fixture(&name)).unwrap_or_else(|reason| panic!("{name}: {reason}"));
        let mut here = Said {
            format: header.format.name().to_owned(),
            title: header.title,
            version: header.version,
            chip: header.chip,
            security_counter: header.security_counter,
            image: image.map(|image| hex::encode(Sha256::digest(image))),
            chips: Vec::new(),
        };
        if said.format == "MCUboot" {
            // The tool's library does not tell it.
            here.security_counter = None;
        }
        assert_eq!(here, said, "{name}");
        judged += 1;
    }
    assert!(judged >= 25, "{judged} files");
}

#[test]
fn a_family_that_is_one_chip_names_it() {
    let listed = listed();
    let (name, .., said) = listed.iter().find(|(name, ..)| name == "families.bin").unwrap();
    let chips = &said.as_ref().unwrap().chips;
    let blocks = fixture(name);
    assert_eq!(blocks.len(), 512 * chips.len());
    for (block, chip) in blocks.chunks(512).zip(chips) {
        let (header, _) = read(block).unwrap();
        assert_eq!(header.chip.as_ref(), Some(chip), "{:?}", header.hardware);
    }
    // A series, and where to put blocks.
    for family in [0x5775_5a57_u32, 0xe48b_ff58] {
        let mut block = blocks[..512].to_vec();
        block[28..32].copy_from_slice(&family.to_le_bytes());
        let (header, _) = read(&block).unwrap();
        assert_eq!((header.chip, header.hardware.len()), (None, 1), "{family:#x}");
    }
}
