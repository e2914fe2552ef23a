use super::*;
use crate::views::Decided;

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
        uploaded: false,
        withdrawn: None,
        facts: None,
        signature: None,
    }
}

/// The deployments that dropping these files made.
pub(crate) fn dropped(rows: &[FileRow]) -> Vec<Deployment> {
    let one = |row: &FileRow| {
        let target = Target::from_text(&row.target).unwrap();
        let mut deployment = Deployment::new(row.id, row.id, target, row.created_seq);
        if let Some(removed) = row.removed_seq {
            deployment.end(DeploymentState::Ended, "deleted".into(), removed);
        }
        deployment
    };
    rows.iter().map(one).collect()
}

/// The catalog of these files, all of them deployed.
pub(crate) fn catalog(rows: &[FileRow], site: Site) -> Catalog {
    Catalog::build(rows, dropped(rows).iter(), &BTreeMap::new(), site, &store::Trust::default())
}

pub(crate) fn site(models: &[&str], titles: &[&str]) -> Site {
    let set = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    Site { models: set(models), titles: set(titles) }
}

fn states(rows: &[FileRow], site: &Site) -> Vec<(String, FirmwareState)> {
    let catalog = catalog(rows, site.clone());
    catalog.views().iter().map(|view| (view.path.clone(), view.state)).collect()
}

#[test]
fn what_decided_is_shown() {
    let rows = [
        row("fw-1.2.0.bin", "all", "a", 1, "{}"),
        row("models/m/fw.bin", "model:m", "b", 2, r#"{"name":"Pump","version":"2.0.0"}"#),
        row("x.bin", "all", "c", 3, "{}"),
    ];
    let catalog = catalog(&rows, Site::default());
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
    let catalog = catalog(&rows, Site::default());
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
    let catalog = catalog(&rows, Site::default());
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
    let refused = BTreeMap::from([("a/b/c.bin".to_owned(), Trouble::Refused("too deep".into()))]);
    let catalog =
        Catalog::build(&[], [].iter(), &refused, Site::default(), &store::Trust::default());
    assert_eq!(catalog.views()[0].state, FirmwareState::Refused);
    assert_eq!(catalog.views()[0].reason.as_deref(), Some("too deep"));
}

#[test]
fn what_is_wrong_with_a_file_is_shown_beside_what_is_known_of_it() {
    let rows = [row("fw-1.0.bin", "all", "a", 1, "{}"), row("gw-1.0.bin", "all", "b", 2, "{}")];
    let troubles = BTreeMap::from([
        ("fw-1.0.bin".to_owned(), Trouble::Refused("colour?".into())),
        ("gw-1.0.bin".to_owned(), Trouble::Unreadable("status 500".into())),
    ]);
    let catalog = Catalog::build(
        &rows,
        dropped(&rows).iter(),
        &troubles,
        Site::default(),
        &store::Trust::default(),
    );
    let [refused, unreadable] = catalog.views() else { panic!("{:?}", catalog.views()) };
    assert_eq!(
        (refused.state, refused.reason.as_deref()),
        (FirmwareState::Refused, Some("colour?"))
    );
    assert_eq!(
        (&refused.digest, &*refused.deployments),
        (&Some(Digest::of(b"a").to_string()), &["1".to_owned()][..])
    );
    assert!(!catalog.offers(1) && catalog.suspended(1).is_some() && catalog.offers(2));
    assert_eq!(unreadable.state, FirmwareState::Accepted);
    assert!(unreadable.warnings[0].contains("status 500"), "{unreadable:?}");
    assert!(unreadable.reason.as_deref().is_some_and(|reason| reason.contains("status 500")));
}

#[test]
fn what_is_refused_for_a_while_lets_nothing_else_in() {
    let rows = [
        row("models/m/a-1.0.bin", "model:m", "a", 1, "{}"),
        row("models/n/b-1.0.bin", "model:n", "b", 2, "{}"),
        row("c-1.0.bin", "all", "c", 3, "{}"),
        row("groups/g/a-1.0.bin", "group:g", "other a", 4, r#"{"model":"n"}"#),
    ];
    let refused = BTreeMap::from([(rows[0].path.clone(), Trouble::Refused("status 500".into()))]);
    for troubles in [BTreeMap::new(), refused] {
        let trust = store::Trust::default();
        let catalog =
            Catalog::build(&rows, dropped(&rows).iter(), &troubles, Site::default(), &trust);
        let offered = [1, 2, 3, 4].map(|id| catalog.offers(id));
        assert_eq!(offered, [troubles.is_empty(), true, false, false]);
        let state = |path: &str| {
            catalog.views().iter().find(|view| view.path == path).map(|view| view.state)
        };
        assert_eq!(state("c-1.0.bin"), Some(FirmwareState::Held), "which model?");
        assert_eq!(state("groups/g/a-1.0.bin"), Some(FirmwareState::Conflict));
    }
}

#[test]
fn rule_11_an_upload_is_catalogued_and_a_deployment_is_its_own_act() {
    let mut upload = row("uploads/fw-1.0.0.bin", "", "a", 1, r#"{"name":"Pump"}"#);
    upload.uploaded = true;
    let build = |deployments: &[Deployment]| {
        Catalog::build(
            std::slice::from_ref(&upload),
            deployments.iter(),
            &BTreeMap::new(),
            Site::default(),
            &store::Trust::default(),
        )
    };
    let catalog = build(&[]);
    let view = &catalog.views()[0];
    assert_eq!((view.state, view.target.as_deref()), (FirmwareState::Catalogued, None));
    assert_eq!(view.title.as_ref().unwrap().from, "upload");
    let mut deployment = Deployment::new(7, 1, Target::All, 2);
    deployment.state = DeploymentState::Held;
    assert_eq!(build(&[deployment.clone()]).views()[0].state, FirmwareState::Held);
    deployment.state = DeploymentState::Paused;
    let catalog = build(&[deployment]);
    let view = &catalog.views()[0];
    assert_eq!(
        (view.state, &view.deployments[..]),
        (FirmwareState::Accepted, &["7".to_owned()][..])
    );
}

#[test]
fn rule_10_withdrawn_bytes_are_withdrawn_wherever_they_lie() {
    let mut rows =
        [row("a-1.bin", "all", "x", 1, "{}"), row("groups/g/a-1.bin", "group:g", "x", 2, "{}")];
    rows[0].withdrawn = Some("ann".into());
    rows[0].removed_seq = Some(3);
    let catalog = catalog(&rows, Site::default());
    let view = &catalog.views()[0];
    assert_eq!((&*view.path, view.state), ("groups/g/a-1.bin", FirmwareState::Withdrawn));
    assert!(view.reason.as_deref().unwrap().contains("ann withdrew"), "{view:?}");
    assert!(catalog.blocked(2).is_some());
}

/// What was found out about a file and its signature, as the database holds it.
fn found(row: FileRow, header: &str, comment: Option<&str>) -> FileRow {
    let trusted = |comment| format!(r#"{{"state":"trusted","key":"1A2B","comment":{comment}}}"#);
    FileRow {
        facts: Some(format!(r#"{{"header":{header}}}"#)),
        signature: comment.map(trusted),
        ..row
    }
}

#[test]
fn comment_sidecar_header_and_file_name_decide_in_this_order() {
    let header = r#"{"format":"esp-idf","title":"H","version":"3.0.0"}"#;
    let sidecar = r#"{"name":"S","version":"2.0.0","model":"s"}"#;
    let comment = r#"{"title":"C","version":"4.0.0","model":"c"}"#;
    let file = |sidecar| row("fw-1.0.0.bin", "all", "a", 1, sidecar);
    for (row, title, version, model, explicit) in [
        (file("{}"), "fw (file name)", "1.0.0 (file name)", None, None),
        (
            found(file("{}"), header, None),
            "H (image header)",
            "3.0.0 (image header)",
            None,
            Some("H"),
        ),
        (
            found(file(sidecar), header, None),
            "S (sidecar)",
            "2.0.0 (sidecar)",
            Some("s (sidecar)"),
            Some("S"),
        ),
        (
            found(file(sidecar), header, Some(comment)),
            "C (trusted comment)",
            "4.0.0 (trusted comment)",
            Some("c (trusted comment)"),
            Some("C"),
        ),
        (
            found(file(sidecar), header, Some(r#"{"version":"4.0.0"}"#)),
            "S (sidecar)",
            "4.0.0 (trusted comment)",
            Some("s (sidecar)"),
            Some("S"),
        ),
    ] {
        let catalog = catalog(std::slice::from_ref(&row), Site::default());
        let view = &catalog.views()[0];
        let text = |decided: &Option<Decided>| {
            decided.as_ref().map(|decided| format!("{} ({})", decided.value, decided.from))
        };
        assert_eq!(text(&view.title).as_deref(), Some(title));
        assert_eq!(text(&view.version).as_deref(), Some(version));
        assert_eq!(text(&view.model).as_deref(), model);
        assert_eq!(catalog.file(1).unwrap().explicit_title(), explicit);
    }
}

#[test]
fn rule_30_a_comment_that_names_another_model_than_the_folder_is_refused() {
    let file = row("models/m/fw-1.0.0.bin", "model:m", "a", 1, "{}");
    let signed = found(file, "{}", Some(r#"{"model":"other"}"#));
    let catalog = catalog(&[signed], Site::default());
    assert_eq!(catalog.views()[0].state, FirmwareState::Refused);
    let reason = catalog.views()[0].reason.as_deref().unwrap();
    assert!(reason.contains("trusted comment names model \"other\""), "{reason}");
}

#[test]
fn rule_8_the_model_of_a_signature_that_nobody_trusts_only_narrows() {
    let text = r#"{"state":"unknown","key":"K","line":"l","model":"px"}"#;
    let signed = |row: FileRow| FileRow { signature: Some(text.into()), ..row };
    let other = r#"{"model":"other"}"#;
    for (row, state, model) in [
        (row("fw-1.bin", "all", "a", 1, "{}"), FirmwareState::Accepted, "px (unverified comment)"),
        (
            row("groups/g/fw-1.bin", "group:g", "a", 1, other),
            FirmwareState::Held,
            "other (sidecar)",
        ),
        (row("models/m/fw-1.bin", "model:m", "a", 1, "{}"), FirmwareState::Held, "m (folder)"),
        (
            row("models/px/fw-1.bin", "model:px", "a", 1, "{}"),
            FirmwareState::Accepted,
            "px (folder)",
        ),
    ] {
        let rows = [signed(row)];
        let catalog = catalog(&rows, Site::default());
        let view = &catalog.views()[0];
        let decided = view.model.as_ref().map(|it| format!("{} ({})", it.value, it.from));
        assert_eq!((view.state, decided.as_deref()), (state, Some(model)), "{}", view.path);
        assert_eq!(catalog.offers(1), state == FirmwareState::Accepted, "{}", view.path);
    }
}

#[test]
fn a_label_that_differs_from_what_is_inside_is_a_warning() {
    let header = r#"{"format":"esp-idf","version":"v1.4.2"}"#;
    for (path, sidecar, says) in [
        ("fw-1.4.2.bin", "{}", None),
        ("fw.bin", "{}", None),
        (
            "fw-1.4.3.bin",
            "{}",
            Some("file name says version 1.4.3, the image itself v1.4.2: v1.4.2"),
        ),
        (
            "fw.bin",
            r#"{"version":"2.0.0"}"#,
            Some("sidecar says version 2.0.0, the image itself v1.4.2: 2.0.0"),
        ),
    ] {
        let file = found(row(path, "all", "a", 1, sidecar), header, None);
        let catalog = catalog(&[file], Site::default());
        let view = &catalog.views()[0];
        assert_eq!(view.state, FirmwareState::Accepted);
        match says {
            Some(says) => {
                assert!(view.warnings[0].contains(says), "{:?}", view.warnings);
                assert!(view.reason.as_deref().unwrap().starts_with("warning: "));
            }
            None => assert_eq!((&view.reason, &view.warnings), (&None, &Vec::new()), "{path}"),
        }
    }
}
