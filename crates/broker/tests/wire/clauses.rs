//! The tags: `[MQTT-x.y.z-n]` names a normative statement of MQTT 5.0 (its appendix B).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Each section with normative statements, and the number of its last one.
const STATEMENTS: &[(&str, u32)] = &[
    ("1.5.4", 3),
    ("1.5.5", 1),
    ("1.5.7", 1),
    ("2.1.3", 1),
    ("2.2.1", 6),
    ("2.2.2", 1),
    ("3.1.0", 2),
    ("3.1.2", 30),
    ("3.1.3", 12),
    ("3.1.4", 6),
    ("3.2.0", 2),
    ("3.2.2", 22),
    ("3.3.1", 13),
    ("3.3.2", 20),
    ("3.3.4", 10),
    ("3.4.2", 3),
    ("3.5.2", 3),
    ("3.6.1", 1),
    ("3.6.2", 3),
    ("3.7.2", 3),
    ("3.8.1", 1),
    ("3.8.3", 5),
    ("3.8.4", 8),
    ("3.9.2", 2),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.11.2", 2),
    ("3.11.3", 2),
    ("3.12.4", 1),
    ("3.14.0", 1),
    ("3.14.1", 1),
    ("3.14.2", 4),
    ("3.14.4", 3),
    ("3.15.1", 1),
    ("3.15.2", 3),
    ("4.1.0", 2),
    ("4.2.0", 1),
    ("4.3.1", 1),
    ("4.3.2", 5),
    ("4.3.3", 13),
    ("4.4.0", 2),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.0", 1),
    ("4.7.1", 2),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.2", 6),
    ("4.9.0", 3),
    ("4.12.0", 7),
    ("4.12.1", 2),
    ("4.13.1", 1),
    ("4.13.2", 1),
    ("6.0.0", 4),
];

/// The tags in all files below a directory, each with the files that have it.
fn tags(directory: &Path, found: &mut BTreeMap<String, BTreeSet<String>>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tags(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices("[MQTT-") {
            let Some((tag, _)) = text[at + 6..].split_once(']') else { continue };
            if tag.starts_with(|c: char| c.is_ascii_digit()) {
                found.entry(tag.into()).or_default().insert(path.display().to_string());
            }
        }
    }
}

fn tags_below(directory: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    tags(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), &mut found);
    found
}

#[test]
fn every_tag_is_a_statement_of_the_standard() {
    let known = |tag: &str| {
        tag.split_once('-').is_some_and(|(section, number)| {
            let number: u32 = number.parse().unwrap_or(0);
            let last = STATEMENTS.iter().find(|(known, _)| *known == section);
            last.is_some_and(|(_, last)| (1..=*last).contains(&number))
        })
    };
    for directory in ["src", "tests"] {
        for (tag, files) in tags_below(directory) {
            assert!(known(&tag), "MQTT 5.0 has no statement {tag}: {files:?}");
        }
    }
}

#[test]
fn every_statement_that_the_code_meets_is_tested_on_the_wire() {
    let tested = tags_below("tests");
    let untested: Vec<_> =
        tags_below("src").into_iter().filter(|(tag, _)| !tested.contains_key(tag)).collect();
    assert!(untested.is_empty(), "no test is tagged with {untested:#?}");
}
