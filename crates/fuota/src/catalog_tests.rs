use super::*;

/// A row that was created at `seq`; `sidecar` is JSON.
pub(crate) fn row(path: &str, target: &str, bytes: &str, seq: i64, sidecar: &str) -> FileRow {
    let stem = path.rsplit('/').next().and_then(|name| name.strip_suffix(".bin")).unwrap_or(path);
    let (title, version) = match stem.rsplit_once('-') {
        Some((title, version)) => (Some(title), Some(version)),
        None => (Some(stem), None),
    };
    FileRow {
        id: seq,
        path: path.into(),
        fingerprint: bytes.into(),
        digest: Digest::of(bytes.as_bytes()),
        size: bytes.len() as u64,
        target: target.into(),
        sidecar: sidecar.into(),
        name_title: title.map(Into::into),
        name_version: version.map(Into::into),
        created_seq: seq,
        created_at: 0,
        removed_seq: None,
    }
}

pub(crate) fn site(models: &[&str], titles: &[&str]) -> Site {
    let set = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    Site { models: set(models), titles: set(titles) }
}

fn states(rows: &[FileRow], site: &Site) -> Vec<(String, FirmwareState)> {
    let catalog = Catalog::build(rows, &BTreeMap::new(), site.clone());
    catalog.views().iter().map(|view| (view.path.clone(), view.state)).collect()
}

#[test]
fn what_decided_is_shown() {
    let rows = [
        row("fw-1.2.0.bin", "all", "a", 1, "{}"),
        row("models/m/fw.bin", "model:m", "b", 2, r#"{"name":"Pump","version":"2.0.0"}"#),
        row("x.bin", "all", "c", 3, "{}"),
    ];
    let catalog = Catalog::build(&rows, &BTreeMap::new(), Site::default());
    let decided: Vec<_> = catalog
        .views()
        .iter()
        .map(|view| {
            let text = |decided: &Option<Decided>| {
                decided.as_ref().map(|d| format!("{} ({})", d.value, d.from))
            };
            (text(&view.title), text(&view.version), text(&view.model))
        })
        .collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(decided[0], (some("fw (file name)"), some("1.2.0 (file name)"), None));
    assert_eq!(decided[1], (some("Pump (sidecar)"), some("2.0.0 (sidecar)"), some("m (folder)")));
    let digest = format!("{} (digest)", Digest::of(b"c").short());
    assert_eq!(decided[2], (some("x (file name)"), some(&digest), None));
}

#[test]
fn rule_8_which_model() {
    let plain = [row("fw-1.bin", "all", "a", 1, "{}")];
    assert_eq!(states(&plain, &site(&["m1"], &[]))[0].1, FirmwareState::Accepted);
    assert_eq!(states(&plain, &site(&["m1", "m2"], &[]))[0].1, FirmwareState::Held);
    assert_eq!(states(&plain, &site(&[], &["t1", "t2"]))[0].1, FirmwareState::Held);
    let named = [row("fw-1.bin", "all", "a", 1, r#"{"model":"m1"}"#)];
    assert_eq!(states(&named, &site(&["m1", "m2"], &["t1", "t2"]))[0].1, FirmwareState::Accepted);
    let group = [row("groups/g/fw-1.bin", "group:g", "a", 1, "{}")];
    assert_eq!(states(&group, &site(&["m1", "m2"], &[]))[0].1, FirmwareState::Accepted);
    // Files make models known too.
    let both = [
        row("fw-1.bin", "all", "a", 1, "{}"),
        row("models/m1/x-1.bin", "model:m1", "b", 2, "{}"),
        row("models/m2/y-1.bin", "model:m2", "c", 3, "{}"),
    ];
    assert_eq!(states(&both, &Site::default())[0].1, FirmwareState::Held);
}

#[test]
fn rule_9_a_sidecar_never_widens() {
    let wider = [row("models/m/fw-1.bin", "model:m", "a", 1, r#"{"model":"other"}"#)];
    assert_eq!(states(&wider, &Site::default())[0].1, FirmwareState::Refused);
}

#[test]
fn rule_10_the_same_version_with_other_bytes_is_a_conflict() {
    let rows = [
        row("fw-1.0.bin", "all", "a", 1, "{}"),
        row("groups/g/fw-1.0.bin", "group:g", "b", 2, "{}"),
        row("groups/h/fw-1.0.bin", "group:h", "a", 3, "{}"),
    ];
    let catalog = Catalog::build(&rows, &BTreeMap::new(), Site::default());
    let views = catalog.views();
    assert_eq!(views[1].state, FirmwareState::Conflict);
    assert!(views[1].reason.as_deref().expect("why").contains("fw-1.0.bin already is"));
    assert_eq!(views[2].state, FirmwareState::Accepted, "the same bytes are the same artifact");
}

#[test]
fn rule_10_an_overwritten_file_with_the_same_version_shows_both() {
    let mut before = row("fw-1.0.bin", "all", "a", 1, "{}");
    before.removed_seq = Some(2);
    let rows = [before, row("fw-1.0.bin", "all", "b", 2, "{}")];
    let catalog = Catalog::build(&rows, &BTreeMap::new(), Site::default());
    let states: Vec<_> = catalog.views().iter().map(|view| view.state).collect();
    assert_eq!(states, [FirmwareState::Replaced, FirmwareState::Accepted]);
    let warning = catalog.views()[1].reason.as_deref().expect("a warning");
    assert!(
        warning.contains(&Digest::of(b"a").short()) && warning.contains(&Digest::of(b"b").short())
    );
    assert!(catalog.was_overwritten("fw-1.0.bin", &Digest::of(b"a")));
    assert!(!catalog.was_overwritten("fw-1.0.bin", &Digest::of(b"b")));
}

#[test]
fn a_refused_file_is_listed_with_its_reason() {
    let refused = BTreeMap::from([("a/b/c.bin".to_owned(), "too deep".to_owned())]);
    let catalog = Catalog::build(&[], &refused, Site::default());
    assert_eq!(catalog.views()[0].state, FirmwareState::Refused);
    assert_eq!(catalog.views()[0].reason.as_deref(), Some("too deep"));
}
