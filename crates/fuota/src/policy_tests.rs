use proptest::prelude::*;

use super::*;
use crate::{
    catalog::{Site, tests},
    db::FileRow,
    fleet::deployment::Deployment,
};
use tests::row;

fn catalog(rows: &[FileRow]) -> Catalog {
    tests::catalog(rows, Site::default())
}

/// Every deployment is open to everybody, except those that wait.
#[derive(Default)]
struct Door {
    waiting: Vec<i64>,
    listed: Vec<i64>,
    own: Option<History>,
}

impl Gate for Door {
    fn lists(&self, release: &Release) -> bool {
        self.listed.contains(&release.deployment)
    }
    fn holds(&self, release: &Release) -> Option<String> {
        self.waiting.contains(&release.deployment).then(|| "its turn comes later".into())
    }
    fn history(&self, release: &Release) -> Option<History> {
        release.downgrade.then(|| self.own.unwrap_or_default())
    }
}

/// A device in group `g`, of model `m`, that never reported.
struct Known {
    groups: Vec<String>,
    labels: BTreeMap<String, String>,
    model: Option<&'static str>,
    title: Option<&'static str>,
    version: Option<&'static str>,
    confirmed: Option<i64>,
    history: HashMap<Digest, History>,
}

fn known() -> Known {
    Known {
        groups: vec!["g".into()],
        labels: BTreeMap::from([("hall".into(), "2".into())]),
        model: Some("m"),
        title: None,
        version: None,
        confirmed: None,
        history: HashMap::new(),
    }
}

impl Known {
    fn decide(&self, rows: &[FileRow]) -> Decision {
        self.decide_at(&catalog(rows), &Door::default())
    }

    fn decide_at(&self, catalog: &Catalog, door: &Door) -> Decision {
        let facts = Facts {
            id: "d",
            groups: &self.groups,
            labels: &self.labels,
            model: self.model,
            title: self.title,
            version: self.version,
            confirmed: self.confirmed,
            history: &self.history,
        };
        decide(catalog, &facts, 3, door)
    }

    /// The bytes that it should be offered, or why nothing.
    fn runs<'a>(&self, rows: &'a [FileRow]) -> Result<&'a str, String> {
        match self.decide(rows) {
            Decision::Run(release) => {
                let row =
                    rows.iter().find(|row| row.digest == release.digest).expect("one of those");
                Ok(&row.fingerprint)
            }
            Decision::Nothing(why) => Err(why),
        }
    }

    fn with(mut self, bytes: &str, offers: u32, deliveries: u32, differs: bool) -> Known {
        self.history.insert(
            Digest::of(bytes.as_bytes()),
            History { offers, deliveries, differs, wait: None },
        );
        self
    }
}

#[test]
fn rule_12_the_more_specific_target_wins_then_the_version_then_the_later() {
    let mut rows = vec![
        row("fw-9.0.0.bin", "all", "all", 1, "{}"),
        row("models/m/fw-8.0.0.bin", "model:m", "model", 2, "{}"),
        row("groups/g/fw-7.0.0.bin", "group:g", "group", 3, "{}"),
        row("devices/d/fw-6.0.0.bin", "device:d", "device", 4, "{}"),
    ];
    for expected in ["device", "group", "model", "all"] {
        assert_eq!(known().runs(&rows), Ok(expected));
        rows.pop();
    }
    let rows =
        [row("fw-1.10.0.bin", "all", "ten", 1, "{}"), row("fw-1.9.0.bin", "all", "nine", 2, "{}")];
    assert_eq!(known().runs(&rows), Ok("ten"));
    let rows = [row("b.bin", "all", "b", 1, "{}"), row("a.bin", "all", "a", 2, "{}")];
    assert_eq!(known().runs(&rows), Ok("a"), "the later, where no version says more");
}

#[test]
fn rule_12_a_mix_of_versions_has_one_best() {
    let rows = [
        row("fw-2.0.0.bin", "all", "two", 1, "{}"),
        row("x.bin", "all", "x", 2, "{}"),
        row("fw-1.0.0.bin", "all", "one", 3, "{}"),
    ];
    assert_eq!(known().runs(&rows), Ok("two"));
}

#[test]
fn rule_12_what_is_removed_never_brings_an_older_one_back() {
    let mut new = row("new-2.0.0.bin", "all", "new", 2, "{}");
    new.removed_seq = Some(3);
    let rows = [row("old-1.0.0.bin", "all", "old", 1, "{}"), new.clone()];
    assert!(known().runs(&rows).is_err());
    // Dropped again after the removal, it is meant.
    let rows = [row("old-1.0.0.bin", "all", "old", 4, "{}"), new];
    assert_eq!(known().runs(&rows), Ok("old"));
}

#[test]
fn rule_12_only_within_one_title() {
    let rows = [
        row("models/m/a.bin", "model:m", "a", 1, r#"{"name":"A","version":"1.0.0"}"#),
        row("models/m/b.bin", "model:m", "b", 2, r#"{"name":"B","version":"1.0.0"}"#),
    ];
    let first = known().runs(&rows).expect("one");
    assert_eq!(first, "b");
    let mut has_b = known().with("b", 1, 1, false);
    has_b.title = Some("B");
    assert_eq!(has_b.runs(&rows), Ok("a"), "the other title is still due");
}

#[test]
fn rule_8_model_and_title() {
    let rows = [row("models/x/fw.bin", "model:x", "x", 1, "{}")];
    assert!(known().runs(&rows).is_err(), "another model's folder");
    let sidecar = [row("fw.bin", "all", "x", 1, r#"{"model":"x"}"#)];
    let why = known().runs(&sidecar).expect_err("another model");
    assert!(why.contains("for model x") && why.contains("is a m"), "{why}");
    let why = Known { model: None, ..known() }.runs(&sidecar).expect_err("unknown model");
    assert!(why.contains("unknown"), "{why}");

    let titled = [row("fw.bin", "all", "t", 1, r#"{"name":"T"}"#)];
    assert_eq!(known().runs(&titled), Ok("t"), "a device of no title");
    assert_eq!(Known { title: Some("T"), ..known() }.runs(&titled), Ok("t"));
    assert!(Known { title: Some("U"), ..known() }.runs(&titled).is_err());
    let from_name = [row("fw-1.bin", "all", "f", 1, "{}")];
    assert_eq!(
        Known { title: Some("U"), ..known() }.runs(&from_name),
        Ok("f"),
        "a file's name is no title"
    );
}

#[test]
fn rule_9_min_version_narrows() {
    let rows = [row("fw.bin", "all", "x", 1, r#"{"version":"2.0.0","min_version":"1.5.0"}"#)];
    assert!(known().runs(&rows).expect_err("unknown").contains("unknown"));
    assert!(Known { version: Some("1.4.9"), ..known() }.runs(&rows).is_err());
    assert_eq!(Known { version: Some("1.5.0"), ..known() }.runs(&rows), Ok("x"));
}

#[test]
fn rule_13_who_has_it_is_not_offered_it() {
    let rows = [row("fw-1.2.0.bin", "all", "x", 1, "{}")];
    assert!(Known { version: Some("1.2.0"), ..known() }.runs(&rows).is_err(), "it reports it");
    assert!(
        known().with("x", 1, 1, false).runs(&rows).is_err(),
        "it never reports, and got every block"
    );
    assert_eq!(Known { version: Some("1.1.0"), ..known() }.runs(&rows), Ok("x"));
    let why = Known { version: Some("1.3.0"), ..known() }.runs(&rows).expect_err("a lower one");
    assert!(why.contains("higher"), "{why}");
    let reports = Known { version: Some("1.1.0"), ..known() };
    assert!(
        reports.with("x", 1, 1, false).runs(&rows).is_err(),
        "what it reported before says nothing"
    );
}

#[test]
fn rule_13_a_version_that_still_differs_after_two_deliveries_is_a_mismatch() {
    let rows = [row("fw-1.2.0.bin", "all", "x", 1, "{}")];
    let reports = || Known { version: Some("1.1.0"), ..known() };
    assert_eq!(reports().with("x", 1, 1, true).runs(&rows), Ok("x"), "a second time");
    let why = reports().with("x", 2, 2, true).runs(&rows).expect_err("no third");
    assert!(why.contains("version mismatch"), "{why}");
}

#[test]
fn rule_13_at_most_three_offers() {
    let rows = [row("fw-1.2.0.bin", "all", "x", 1, "{}")];
    assert_eq!(known().with("x", 2, 0, false).runs(&rows), Ok("x"));
    assert!(known().with("x", 3, 0, false).runs(&rows).expect_err("no fourth").contains("3 times"));
}

fn any_rows() -> impl Strategy<Value = Vec<FileRow>> {
    let target = prop::sample::select(vec!["all", "group:g", "group:h", "model:m", "device:d"]);
    let name = prop::sample::select(vec!["fw-1.0.0", "fw-2.0.0", "fw-1.10.0", "x", "y", "z-3"]);
    prop::collection::vec((target, name, any::<bool>()), 0..8).prop_map(|files| {
        files
            .into_iter()
            .enumerate()
            .map(|(number, (target, name, removed))| {
                let seq = number as i64 * 2 + 1;
                let mut row =
                    row(&format!("{number}/{name}.bin"), target, &format!("{number}"), seq, "{}");
                row.removed_seq = removed.then_some(seq + 1);
                row
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn what_is_offered_is_present_and_for_the_device(rows in any_rows()) {
        if let Decision::Run(release) = known().decide(&rows) {
            prop_assert!(release.removed.is_none());
            prop_assert!(release.target != Target::Group("h".into()));
            // And it is not offered again once it was given.
            let again = known().with(&rows.iter().find(|row| row.digest == release.digest).expect("it").fingerprint, 1, 1, false);
            if let Decision::Run(other) = again.decide(&rows) {
                prop_assert_ne!(&other.digest, &release.digest);
            }
        }
    }

    #[test]
    fn a_device_that_has_the_best_is_left_alone(rows in any_rows()) {
        if let Decision::Run(release) = known().decide(&rows) {
            let bytes = &rows.iter().find(|row| row.digest == release.digest).expect("it").fingerprint;
            let has = known().with(bytes, 1, 1, false);
            prop_assert!(matches!(has.decide(&rows), Decision::Nothing(_)), "one title, so one offer");
        }
    }
}

/// The catalog of these files, with these deployments beside those of the drops.
fn with(rows: &[FileRow], more: Vec<Deployment>) -> Catalog {
    let mut all = tests::dropped(rows);
    all.extend(more);
    Catalog::build(rows, all.iter(), &BTreeMap::new(), Site::default(), &store::Trust::default())
}

fn by_operator(id: i64, file: i64, target: &str, created: i64) -> Deployment {
    Deployment::new(id, file, Target::from_text(target).expect(target), created)
}

fn downgrade(id: i64, file: i64, target: &str, created: i64) -> Deployment {
    let mut deployment = by_operator(id, file, target, created);
    deployment.downgrade = true;
    deployment
}

fn path(decision: &Decision) -> &str {
    match decision {
        Decision::Run(release) => &release.path,
        Decision::Nothing(why) => why,
    }
}

#[test]
fn rule_12_labels_come_after_the_model_and_before_all() {
    let rows = [row("a-1.0.0.bin", "all", "a", 1, "{}"), row("b-1.0.0.bin", "all", "b", 2, "{}")];
    let labels = by_operator(10, 1, "labels:hall=2", 3);
    let catalog = with(&rows, vec![labels.clone()]);
    assert_eq!(path(&known().decide_at(&catalog, &Door::default())), "a-1.0.0.bin");
    let model = by_operator(11, 2, "model:m", 4);
    let catalog = with(&rows, vec![labels, model]);
    assert_eq!(path(&known().decide_at(&catalog, &Door::default())), "b-1.0.0.bin");
}

#[test]
fn rule_11_a_moved_file_is_not_kept_out_by_itself() {
    let mut old = row("groups/g/fw-1.0.0.bin", "group:g", "x", 1, "{}");
    let new = row("fw-1.0.0.bin", "all", "x", 2, "{}");
    old.removed_seq = Some(3);
    assert_eq!(known().runs(&[old, new]), Ok("x"));
}

#[test]
fn rule_12_a_downgrade_goes_below_what_is_older_than_it_and_no_further() {
    let rows =
        [row("fw-1.0.0.bin", "all", "one", 1, "{}"), row("fw-2.0.0.bin", "all", "two", 2, "{}")];
    let down = downgrade(10, 1, "all", 3);
    let runs_two = || Known { version: Some("2.0.0"), ..known().with("one", 1, 1, false) };
    let catalog = with(&rows, vec![down.clone()]);
    assert_eq!(path(&runs_two().decide_at(&catalog, &Door::default())), "fw-1.0.0.bin");
    let given = Door {
        own: Some(History { offers: 1, deliveries: 1, ..History::default() }),
        ..Door::default()
    };
    let why = runs_two().decide_at(&catalog, &given);
    assert!(path(&why).contains("it was given"), "once is enough: {why:?}");
    // What runs 1.0.0 by then is not lifted to 2.0.0 again, also when a 1.5.0 comes.
    let back = || Known { version: Some("1.0.0"), ..known() };
    assert!(path(&back().decide_at(&catalog, &Door::default())).contains("it runs"));
    let mut later = rows.to_vec();
    later.push(row("fw-1.5.0.bin", "all", "onefive", 4, "{}"));
    let catalog = with(&later, vec![down]);
    assert_eq!(path(&back().decide_at(&catalog, &Door::default())), "fw-1.5.0.bin");
}

#[test]
fn rule_22_a_rollback_is_for_whom_it_lists() {
    let rows =
        [row("fw-1.0.0.bin", "all", "one", 1, "{}"), row("fw-2.0.0.bin", "all", "two", 2, "{}")];
    let back = downgrade(10, 1, "rollback:2", 3);
    let catalog = with(&rows, vec![back]);
    let device = Known { version: Some("2.0.0"), ..known() };
    let listed = Door { listed: vec![10], ..Door::default() };
    assert_eq!(path(&device.decide_at(&catalog, &listed)), "fw-1.0.0.bin");
    assert!(path(&device.decide_at(&catalog, &Door::default())).contains("it runs"));
}

#[test]
fn rule_20_who_waits_for_the_newer_is_not_given_the_older() {
    let rows =
        [row("fw-1.0.0.bin", "all", "one", 1, "{}"), row("fw-2.0.0.bin", "all", "two", 2, "{}")];
    let door = Door { waiting: vec![2], ..Door::default() };
    let why = known().decide_at(&catalog(&rows), &door);
    assert!(path(&why).contains("2.0.0 (fw-2.0.0.bin) waits: its turn"), "{why:?}");
}

#[test]
fn rule_8_a_chip_that_the_header_names() {
    let mut chip = row("fw-1.0.0.bin", "all", "c3", 1, "{}");
    chip.facts = Some(r#"{"header":{"format":"esp-idf","chip":"esp32c3"}}"#.into());
    let mut device = known();
    assert_eq!(device.runs(std::slice::from_ref(&chip)), Ok("c3"), "its own is not known");
    for own in ["esp32c3", "ESP32-C3"] {
        device.labels.insert("chip".into(), own.into());
        assert_eq!(device.runs(std::slice::from_ref(&chip)), Ok("c3"), "{own}");
    }
    device.labels.insert("chip".into(), "ESP32-S3".into());
    let why = device.runs(&[chip]).unwrap_err();
    assert!(why.contains("for the chip esp32c3, this device has an ESP32-S3"), "{why}");
}

#[test]
fn rule_22_a_security_counter_allows_no_way_back() {
    let counted = |bytes: &str, seq, counter: &str| {
        let mut row = row(&format!("fw-{seq}.bin"), "all", bytes, seq, "{}");
        row.facts =
            Some(format!(r#"{{"header":{{"format":"mcuboot","security_counter":{counter}}}}}"#));
        row
    };
    let mut device = known();
    // What it runs has a counter of 3; that its file is gone from the folder does not matter.
    let mut runs = counted("runs", 1, "3");
    runs.removed_seq = Some(2);
    device.confirmed = Some(1);
    for (counter, goes) in [("4", true), ("3", true), ("2", false), ("null", false)] {
        let rows = [runs.clone(), counted("new", 3, counter)];
        assert_eq!(device.runs(&rows).is_ok(), goes, "{counter}: {:?}", device.runs(&rows));
    }
    let why = device.runs(&[runs.clone(), counted("new", 3, "2")]).unwrap_err();
    assert!(why.contains("security counter is 2") && why.contains("is 3"), "{why}");
    let plain = row("data-3.bin", "all", "data", 3, "{}");
    assert_eq!(device.runs(&[runs, plain]), Ok("data"), "a file of another format counts nothing");
}
