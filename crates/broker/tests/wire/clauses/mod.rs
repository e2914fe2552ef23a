//! The tags: `[MQTT-x.y.z-n]` names a normative statement of MQTT 5.0, `[MQTT311-x.y.z-n]` one of
//! 3.1.1 that MQTT 5.0 does not make. Each statement that binds a server has its tag at the line
//! that meets it and at a test of it, or stands with a reason among those that ask nothing of this
//! broker.
//!
//! | file | subject |
//! | --- | --- |
//! | `v5` | the statements of MQTT 5.0, and the exceptions |
//! | `v311` | those of 3.1.1, and what they are called in MQTT 5.0 |

mod v311;
mod v5;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};
use v311::Met;

/// A tag, where it stands, and the function behind it: in a test, the test that it is about.
struct Tag {
    name: String,
    file: String,
    function: String,
}

/// The tags in all files below a directory of this crate.
fn tags_below(directory: &str) -> Vec<Tag> {
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), &mut found);
    found
}

fn collect(directory: &Path, found: &mut Vec<Tag>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // The tables and this file speak of tags.
            if !path.ends_with("clauses") {
                collect(&path, found);
            }
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for prefix in ["[MQTT-", "[MQTT311-"] {
            for (at, _) in text.match_indices(prefix) {
                let Some((name, rest)) = text[at + 1..].split_once(']') else { continue };
                if name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b)) {
                    let (name, file) = (name.to_owned(), path.display().to_string());
                    found.push(Tag { name, file, function: function_behind(&text[..at], rest) });
                }
            }
        }
    }
}

/// The function that a tag at the end of `before` stands in or in front of.
fn function_behind(before: &str, rest: &str) -> String {
    let line = before.rsplit('\n').next().unwrap_or_default().trim_start();
    let inside = !line.starts_with("///");
    let start = if inside { before.rfind("\nfn ").unwrap_or(0) } else { before.len() };
    let text = format!("{before}{rest}");
    let text = &text[start..];
    text.split_inclusive("\n}\n").next().unwrap_or_default().to_owned()
}

fn names(tags: &[Tag]) -> BTreeSet<&str> {
    tags.iter().map(|tag| &*tag.name).collect()
}

/// Every statement of MQTT 5.0 as a tag names it, with the reason where it does not bind.
fn statements() -> BTreeMap<String, Option<&'static str>> {
    let numbers = |(section, last, exempt): &(&str, u32, &'static [(u32, &'static str)])| {
        let (section, exempt) = (section.to_string(), *exempt);
        (1..=*last).map(move |number| {
            let why = exempt.iter().find(|(exempt, _)| *exempt == number).map(|(_, why)| *why);
            (format!("MQTT-{section}-{number}"), why)
        })
    };
    v5::STATEMENTS.iter().flat_map(numbers).collect()
}

/// Those of 3.1.1 that have a tag of their own.
fn alone() -> impl Iterator<Item = String> {
    let alone = v311::STATEMENTS.iter().filter(|(_, met)| matches!(met, Met::Alone));
    alone.map(|(number, _)| format!("MQTT311-{number}"))
}

#[test]
fn every_tag_is_a_statement_of_the_standard() {
    let known: BTreeSet<String> = statements().into_keys().chain(alone()).collect();
    for tag in tags_below("src").iter().chain(&tags_below("tests")) {
        assert!(known.contains(&tag.name), "there is no statement {}: {}", tag.name, tag.file);
    }
}

#[test]
fn every_statement_that_binds_is_met_and_tested() {
    let (source, tests) = (tags_below("src"), tags_below("tests"));
    let (met, tested) = (names(&source), names(&tests));
    let mut missing = Vec::new();
    for (name, exempt) in statements().into_iter().chain(alone().map(|name| (name, None))) {
        let (met, tested) = (met.contains(&*name), tested.contains(&*name));
        match exempt {
            None if !met => {
                missing.push(format!("{name}: no line of the code says that it meets it"))
            }
            None if !tested => missing.push(format!("{name}: no test")),
            Some(why) if met || tested => {
                missing.push(format!("{name}: has a tag, so it is not to be excused by {why:?}"));
            }
            _ => {}
        }
    }
    assert!(missing.is_empty(), "{} statements:\n{}", missing.len(), missing.join("\n"));
}

#[test]
fn every_statement_of_3_1_1_is_tested_in_3_1_1() {
    let tests = tags_below("tests");
    let exempt = statements();
    let mut missing = Vec::new();
    for (number, met) in v311::STATEMENTS {
        let name = match met {
            Met::As(same) => format!("MQTT-{same}"),
            Met::Alone => format!("MQTT311-{number}"),
            Met::Not(why) => {
                assert!(!why.is_empty(), "{number} needs a reason");
                continue;
            }
        };
        let speaks = |tag: &&Tag| tag.function.contains("V4") || tag.function.contains("BOTH");
        if !tests.iter().filter(|tag| tag.name == name).any(|tag| speaks(&tag)) {
            missing.push(format!("{number} ({name}): no test speaks 3.1.1"));
        }
        if let Some(Some(why)) = exempt.get(&name) {
            missing.push(format!("{number}: {name} does not bind: {why}"));
        }
    }
    assert!(missing.is_empty(), "{} statements:\n{}", missing.len(), missing.join("\n"));
}
