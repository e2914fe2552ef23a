//! The arrows between the crates of this workspace, and the few third-party crates that may be
//! named in one place only. `docs/README.md` shows the same table to people.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

/// Folder under `crates/`, package name, and what it may use of ours.
const ARROWS: &[(&str, &str, &[&str])] = &[
    ("hook", "hook", &[]),
    ("broker", "broker", &["hook"]),
    ("store", "store", &[]),
    ("fuota", "fuota", &["hook", "store"]),
    ("admin", "admin", &["fuota", "hook"]),
    ("simulator", "simulator", &[]),
    ("daemon", "fuotad", &["hook", "broker", "store", "fuota", "admin", "simulator"]),
];

/// Third-party crate, and the one folder that may depend on it.
const KEPT_IN: &[(&str, &str)] =
    &[("rumqttd", "broker"), ("object_store", "store"), ("rusqlite", "fuota")];

/// Third-party crate, and the one module that may name its types.
const NAMED_IN: &[(&str, &str)] = &[
    ("rumqttd", "crates/broker/src/router"),
    ("object_store", "crates/store/src/origin"),
    ("rusqlite", "crates/fuota/src/db"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("workspace root")
}

fn manifest(folder: &str) -> toml::Table {
    let path = root().join("crates").join(folder).join("Cargo.toml");
    fs::read_to_string(&path).expect("Cargo.toml").parse().expect("TOML")
}

/// The packages that a manifest depends on: ordinary, dev and build dependencies, for every
/// target, under their real names.
fn dependencies(table: &toml::Table) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (key, value) in table {
        let Some(section) = value.as_table() else { continue };
        match key.as_str() {
            "dependencies" | "dev-dependencies" | "build-dependencies" => {
                found.extend(section.iter().map(|(name, detail)| {
                    detail.get("package").and_then(|name| name.as_str()).unwrap_or(name).to_owned()
                }));
            }
            "target" => {
                for nested in section.values().filter_map(toml::Value::as_table) {
                    found.extend(dependencies(nested));
                }
            }
            _ => {}
        }
    }
    found
}

/// The uses that the table does not allow, as sentences.
fn forbidden_arrows(manifests: &BTreeMap<&str, BTreeSet<String>>) -> Vec<String> {
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(_, package, _)| *package).collect();
    let mut wrong = Vec::new();
    for (folder, _, may_use) in ARROWS {
        for dependency in &manifests[folder] {
            if ours.contains(dependency.as_str()) && !may_use.contains(&dependency.as_str()) {
                wrong.push(format!("crates/{folder} may not use {dependency}"));
            }
            for (crate_name, home) in KEPT_IN {
                if dependency == crate_name && folder != home {
                    wrong.push(format!(
                        "crates/{folder} may not use {crate_name}: crates/{home} does"
                    ));
                }
            }
        }
    }
    wrong
}

fn manifests() -> BTreeMap<&'static str, BTreeSet<String>> {
    ARROWS.iter().map(|(folder, _, _)| (*folder, dependencies(&manifest(folder)))).collect()
}

#[test]
fn every_crate_stands_in_the_table() {
    let on_disk: BTreeSet<String> = fs::read_dir(root().join("crates"))
        .expect("crates")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
        .collect();
    let in_table: BTreeSet<String> = ARROWS.iter().map(|(folder, ..)| (*folder).into()).collect();
    assert_eq!(on_disk, in_table);
    for (folder, package, _) in ARROWS {
        assert_eq!(manifest(folder)["package"]["name"].as_str(), Some(*package), "crates/{folder}");
    }
}

#[test]
fn arrows_point_only_where_the_table_says() {
    assert_eq!(forbidden_arrows(&manifests()), Vec::<String>::new());
}

#[test]
fn a_wrong_arrow_is_seen() {
    let mut manifests: BTreeMap<_, _> =
        ARROWS.iter().map(|(folder, ..)| (*folder, BTreeSet::new())).collect();
    manifests.get_mut("broker").expect("in the table").insert("fuota".into());
    manifests.get_mut("admin").expect("in the table").insert("rusqlite".into());
    assert_eq!(
        forbidden_arrows(&manifests),
        ["crates/broker may not use fuota", "crates/admin may not use rusqlite: crates/fuota does"]
    );
}

#[test]
fn dependencies_are_found_in_every_section() {
    let table = "
        [dependencies]
        a.workspace = true
        [dev-dependencies]
        b = { package = \"real-b\", version = \"1\" }
        [target.'cfg(unix)'.build-dependencies]
        c = \"1\"
    ";
    let found = dependencies(&table.parse().expect("TOML"));
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a", "c", "real-b"]);
}

#[test]
fn foreign_types_are_named_in_one_module_each() {
    for (crate_name, module) in NAMED_IN {
        let mut inside = 0;
        for source in sources(&root().join("crates")) {
            // Tests may look at the other side with the same library; `rules` are tests too.
            let is_test = |part: Component<'_>| {
                ["tests", "rules"].map(Some).contains(&part.as_os_str().to_str())
            };
            if source.components().any(is_test) {
                continue;
            }
            let text = fs::read_to_string(&source).expect("source");
            if !text.lines().any(|line| names(line, crate_name)) {
                continue;
            }
            let file = source.strip_prefix(root()).expect("inside").display().to_string();
            let in_module =
                file == format!("{module}.rs") || file.starts_with(&format!("{module}/"));
            assert!(
                in_module,
                "{file} names types of {crate_name}, which {module} keeps to itself"
            );
            inside += 1;
        }
        assert!(inside > 0, "{module} is where {crate_name} is used, and it is not");
    }
}

/// Where devices' dialects are, and who else may name one: HTTP's downloads are made of what is
/// said in that dialect, and the fuzz targets drive each.
const DIALECTS: &str = "crates/fuota/src/dialect/";
const MAY_NAME: &[(&str, &str)] =
    &[("crates/fuota/src/download.rs", "http"), ("crates/fuota/src/fuzzing.rs", "")];

#[test]
fn nothing_else_knows_which_dialects_there_are() {
    let dialects = ["aws", "http", "native", "reference", "thingsboard"];
    for dialect in dialects {
        let path = root().join(DIALECTS).join(dialect);
        assert!(path.is_dir() || path.with_extension("rs").is_file(), "{dialect}");
    }
    let mut seen = 0;
    for folder in ["admin", "broker", "daemon", "fuota", "hook", "store"] {
        for source in sources(&root().join("crates").join(folder).join("src")) {
            let file = source.strip_prefix(root()).expect("inside").display().to_string();
            if file.starts_with(DIALECTS) {
                continue;
            }
            let text = fs::read_to_string(&source).expect("source");
            for dialect in dialects {
                if !speaks_of(&text, dialect) {
                    continue;
                }
                let may = |(known, which): &(&str, &str)| *known == file && dialect.contains(which);
                assert!(MAY_NAME.iter().any(may), "{file} names the dialect {dialect}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 2, "those that may name one do");
}

/// Whether a source names this dialect's module, or compares with its name.
fn speaks_of(text: &str, dialect: &str) -> bool {
    let code: String = text
        .lines()
        // The simulator has dialects of its own.
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(" ");
    let uses = code.split("dialect::{").skip(1).filter_map(|rest| rest.split_once("};"));
    let imported = uses.flat_map(|(list, _)| list.split([',', '{', ' ', ':', '}']));
    code.contains(&format!("dialect::{dialect}"))
        || imported.map(str::trim).any(|name| name == dialect)
        || code.contains(&format!("== \"{dialect}\""))
        || code.contains(&format!("\"{dialect}\" =>"))
}

#[test]
fn a_dialect_that_is_named_is_seen() {
    assert!(speaks_of("use crate::dialect::aws::Aws;", "aws"));
    assert!(speaks_of(
        "use crate::{\n    dialect::{Talk,\n        http::{self, Head},\n    },\n};",
        "http"
    ));
    assert!(speaks_of("if talk.name() == \"native\" {", "native"));
    assert!(!speaks_of("use crate::dialect::{Talk, Heard}; // as aws has it", "aws"));
    assert!(!speaks_of("use http::Uri;", "http"));
}

/// Whether a line of code, comments and texts aside, has a path that begins with this crate.
fn names(line: &str, crate_name: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    if code.trim() == format!("use {crate_name};") {
        return true;
    }
    code.match_indices(&format!("{crate_name}::")).any(|(at, _)| {
        let before = &code[..at];
        let in_text = before.matches('"').count() % 2 == 1;
        // `my_object_store::` is another name.
        !in_text && !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
    })
}

#[test]
fn a_path_is_told_from_a_mention() {
    assert!(names("use rumqttd::Router;", "rumqttd"));
    assert!(names("    let x: rumqttd::local::LinkTx = y;", "rumqttd"));
    assert!(names("use rumqttd;", "rumqttd"));
    assert!(!names("// rumqttd::Router is wrapped", "rumqttd"));
    assert!(!names("let filter = \"rumqttd::router=off\";", "rumqttd"));
    assert!(!names("my_rumqttd::x()", "rumqttd"));
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn no_merge_is_left_undone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut folders = vec![root];
    let mut undone = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("folder") {
            let entry = entry.expect("entry");
            let (path, name) = (entry.path(), entry.file_name());
            let kind = entry.file_type().expect("kind");
            if kind.is_dir() && !["target", ".git", "node_modules"].iter().any(|it| name == *it) {
                folders.push(path);
            } else if kind.is_file()
                && let Ok(text) = fs::read_to_string(&path)
                && text.lines().any(is_merge_marker)
            {
                undone.push(path);
            }
        }
    }
    assert!(undone.is_empty(), "conflict markers in {undone:?}");
}

fn is_merge_marker(line: &str) -> bool {
    ['<', '>'].iter().any(|&sign| {
        let rest = line.trim_start_matches(sign);
        line.len() - rest.len() == 7 && (rest.is_empty() || rest.starts_with(' '))
    })
}

#[test]
fn a_merge_marker_is_told_from_others() {
    let sign = |sign: &str| sign.repeat(7);
    assert!(is_merge_marker(&format!("{} HEAD", sign("<"))));
    assert!(is_merge_marker(&format!("{} branch", sign(">"))));
    assert!(!is_merge_marker(&format!("{}<", sign("<"))));
    assert!(!is_merge_marker("<< HEAD") && !is_merge_marker(&format!(" {}", sign(">"))));
}
