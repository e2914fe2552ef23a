use rusqlite::params;
use store::Digest;

use super::*;

fn device(id: &str) -> Op {
    Op::Device(DeviceRow { id: id.into(), groups: vec!["g".into()], ..DeviceRow::default() })
}

fn transfer(device: &str) -> Op {
    Op::Transfer(TransferRow {
        device: device.into(),
        digest: Digest::of(b"x"),
        size: u64::from(u32::MAX) + 1,
        chunk_size: 4096,
        path: "a.bin".into(),
        title: None,
        version: "1".into(),
        own_version: true,
        attempt: 1,
        state: "offered".into(),
        reason: None,
        served: vec![1, 2],
        downloaded_at: None,
        replaces: false,
        deployment: None,
        file: None,
        note: None,
    })
}

#[tokio::test]
async fn what_was_committed_is_there_after_the_next_open() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("fuota.db");
    let (db, loaded) = Db::open(&path).expect("made");
    assert!(loaded.clean && loaded.devices.is_empty());
    db.commit(vec![device("d"), transfer("d")]).await.expect("written");
    db.commit(vec![device("d")]).await.expect("updated");
    drop(db);

    let (db, loaded) = Db::open(&path).expect("opened");
    assert!(!loaded.clean, "it did not end in order");
    assert_eq!(loaded.devices[0].groups, ["g"]);
    assert_eq!(loaded.transfers[0].served, [1, 2], "an update of the device keeps its transfer");
    assert_eq!(loaded.transfers[0].size, u64::from(u32::MAX) + 1);
    db.commit(vec![Op::DeviceGone("d".into())]).await.expect("written");
    db.close();

    let (_db, loaded) = Db::open(&path).expect("opened");
    assert!(loaded.clean);
    assert!(loaded.devices.is_empty() && loaded.transfers.is_empty());
}

#[tokio::test]
async fn a_job_is_atomic_and_fails_alone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("fuota.db");
    let (db, _) = Db::open(&path).expect("made");
    let broken = db.commit(vec![device("a"), transfer("nobody")]);
    let whole = db.commit(vec![device("b")]);
    let (broken, whole) = tokio::join!(broken, whole);
    assert!(broken.is_err() && whole.is_ok());
    db.close();
    assert!(matches!(db.commit(vec![device("c")]).await, Err(DbError::Closed)));
    let (_db, loaded) = Db::open(&path).expect("opened");
    assert_eq!(loaded.devices.len(), 1);
    assert_eq!(loaded.devices[0].id, "b");
}

/// SQLite may take the whole transaction back and go on without one: what came then would be
/// written though its caller was told that it is not.
#[test]
fn what_a_full_disk_takes_back_is_taken_back_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let (mut connection, _) = open(&dir.path().join("fuota.db")).unwrap();
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    connection.pragma_update(None, "max_page_count", pages + 4).unwrap();
    let job = |ops| Job { ops, copy: None, done: None };
    let many = (0..1000).map(|number| device(&format!("many-{number:060}"))).collect();
    let group = [job(vec![device("a")]), job(many), job(vec![device("b")])];
    let devices = |connection: &Connection| -> i64 {
        connection.query_row("SELECT count(*) FROM device", [], |row| row.get(0)).unwrap()
    };
    let (_, committed) = write_group(&mut connection, &group);
    assert_eq!(devices(&connection), 0);
    let reason = committed.unwrap_err().to_string();
    assert!(reason.contains("full"), "{reason}");
    // There is room again.
    connection.pragma_update(None, "max_page_count", pages + 4000).unwrap();
    let (results, committed) = write_group(&mut connection, &group);
    assert!(committed.is_ok() && results.iter().all(Result::is_ok));
    assert_eq!(devices(&connection), 1002);
}

#[tokio::test]
async fn a_writer_that_fails_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = Db::open(&dir.path().join("fuota.db")).unwrap();
    db.submit(Vec::new(), Some(Box::new(|_| panic!("on purpose")))).unwrap();
    // It comes before the end of the writer, or behind it.
    assert!(matches!(db.commit(vec![device("a")]).await, Err(DbError::Closed)));
    assert!(db.problem().unwrap().contains("has failed"));
}

#[test]
fn an_older_program_refuses_a_newer_file() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("fuota.db");
    drop(Db::open(&path).expect("made"));
    let connection = Connection::open(&path).expect("opened");
    connection.pragma_update(None, "user_version", 99).expect("written");
    drop(connection);
    let error = Db::open(&path).err().expect("refused").to_string();
    assert!(error.contains("99") && error.contains("newer fuotad"), "{error}");
}

/// As an older program has left it.
fn of_version_10(path: &Path) -> Connection {
    let old = Connection::open(path).unwrap();
    for script in &MIGRATIONS[..10] {
        old.execute_batch(script).unwrap();
    }
    old.pragma_update(None, "user_version", 10).unwrap();
    old
}

/// Or the older program, which may be all that is at hand, refuses what the newer one left.
#[test]
fn an_upgrade_is_made_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fuota.db");
    let old = of_version_10(&path);
    // What the last script makes.
    old.execute_batch("CREATE TABLE ending (name TEXT)").unwrap();
    assert!(Db::open(&path).is_err());
    assert_eq!(version(&old).unwrap(), 10);
    old.execute_batch("DROP TABLE ending").unwrap();
    drop(old);
    assert!(Db::open(&path).is_ok());
}

#[test]
fn failures_that_were_known_before_the_upgrade_still_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fuota.db");
    let old = of_version_10(&path);
    // The first is in its second wave, the second was resumed in its first.
    for (id, wave, forgiven) in [(1, 1, 0), (2, 0, 1)] {
        old.execute(
            "INSERT INTO deployment (id, file, target, tier, plan, downgrade, state, wave, size, forgiven,
             created_seq, created_at, created_by) VALUES (?1, 1, 'all', 4, ?2, 0, 'running', ?3, 1, ?4, 1, 1, '')",
            params![
                id,
                r#"{"waves":[{"count":1},{"percent":100}],"pause_at_percent":5}"#,
                wave,
                forgiven
            ],
        )
        .unwrap();
    }
    for (deployment, device, wave) in [(1, "a", 0), (1, "b", 1), (2, "c", 0)] {
        let device_sql =
            "INSERT INTO device (id, registered, groups, labels) VALUES (?1, 1, '[]', '{}')";
        old.execute(device_sql, [device]).unwrap();
        old.execute(
            "INSERT INTO member (deployment, device, wave, counts, failed, reached, offers, deliveries, differs, at)
             VALUES (?1, ?2, ?3, 1, 1, 0, 1, 0, 0, 1)",
            params![deployment, device, wave],
        )
        .unwrap();
    }
    drop(old);
    let (db, loaded) = Db::open(&path).unwrap();
    let mut known: Vec<_> = loaded.members.iter().map(|row| (&*row.device, row.forgiven)).collect();
    known.sort_unstable();
    assert_eq!(known, [("a", true), ("b", false), ("c", true)]);
    assert_eq!(loaded.deployments.len(), 2);
    db.close();
}

#[test]
fn a_database_of_version_1_gets_its_users_and_keeps_its_devices() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fuota.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(MIGRATIONS[0]).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    old.execute(
        "INSERT INTO device (id, registered, groups, labels) VALUES ('a', 1, '[]', '{}')",
        [],
    )
    .unwrap();
    old.execute_batch(
        "INSERT INTO file VALUES (4, 'models/m/a.bin', 'f', zeroblob(32), 9, 'model:m', '{}', NULL, NULL, 1, 5, NULL);
         INSERT INTO file VALUES (5, 'b.bin', 'f', zeroblob(32), 9, 'all', '{}', NULL, NULL, 2, 6, 3);
         INSERT INTO transfer VALUES ('a', zeroblob(32), 9, 4, 'models/m/a.bin', NULL, '1', 1, 2, 'updated', NULL, x'07', 77, 0);
         INSERT INTO history VALUES ('a', zeroblob(32), 2, 1, 0);",
    )
    .unwrap();
    drop(old);
    let (db, loaded) = Db::open(&path).unwrap();
    assert_eq!((loaded.devices.len(), loaded.users.len()), (1, 0));
    // What was dropped then is a deployment now, for everybody at once.
    let deployments: Vec<_> = loaded
        .deployments
        .iter()
        .map(|row| (row.id, row.tier, &*row.state, row.ended_seq))
        .collect();
    assert_eq!(deployments, [(4, 2, "running", None), (5, 4, "ended", Some(3))]);
    let fleet = crate::fleet::Fleet::load(&loaded.deployments, &loaded.members, None);
    let member = &fleet.deployments[&4].members["a"];
    assert_eq!((member.reached, member.history.offers), (true, 2));
    assert_eq!(loaded.transfers[0].deployment, Some(4));
    assert_eq!(loaded.devices[0].confirmed, Some(4));
    assert!(loaded.scanned, "its files are not held");
    let password = crate::accounts::PasswordHash::make(b"correct horse").unwrap();
    let user = |role| UserRow { name: "u".into(), role, password: password.clone(), created: 7 };
    for role in [crate::UserRole::Service, crate::UserRole::Admin] {
        db.submit(vec![Op::User(user(role))], None).unwrap();
    }
    db.close();
    let (db, loaded) = Db::open(&path).unwrap();
    let read = &loaded.users[0];
    assert_eq!((read.role, read.created, loaded.users.len()), (crate::UserRole::Admin, 7, 1));
    assert!(read.password.matches(b"correct horse"));
    db.submit(vec![Op::UserGone("u".into())], None).unwrap();
    db.close();
    assert!(Db::open(&path).unwrap().1.users.is_empty());
}

#[tokio::test]
async fn old_lines_are_pruned_and_the_newest_come_first() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _) = Db::open(&dir.path().join("fuota.db")).unwrap();
    let line = |at, action: &str| {
        Op::Timeline(TimelineRow {
            id: 0,
            at,
            device: "d".into(),
            action: action.into(),
            detail: None,
            deployment: None,
        })
    };
    db.commit(vec![device("d"), line(10, "a"), line(20, "b"), line(30, "c")]).await.unwrap();
    let actions = async |before, limit| {
        let lines = db.timeline("d", before, limit).await.unwrap();
        lines.into_iter().map(|line| line.action).collect::<Vec<_>>()
    };
    assert_eq!(actions(i64::MAX, 2).await, ["c", "b"]);
    assert_eq!(actions(2, 2).await, ["a"]);
    db.commit(vec![Op::Prune { audit: 0, timeline: 0 }]).await.unwrap();
    let all = db.audit(i64::MAX, 100).await.unwrap().len();
    db.commit(vec![Op::Prune { audit: 0, timeline: 20 }]).await.unwrap();
    assert_eq!(db.audit(i64::MAX, 100).await.unwrap().len(), all, "each has its own time");
    db.commit(vec![Op::Prune { audit: 20, timeline: 20 }]).await.unwrap();
    assert_eq!(actions(i64::MAX, 9).await, ["c", "b"]);
}

/// Whole for SQLite, and yet not what was written.
#[test]
fn tables_and_values_that_are_not_ours_are_damage() {
    for (change, why) in [
        ("DROP TABLE history", "table history is not as"),
        ("ALTER TABLE device DROP COLUMN model", "table device is not as"),
        ("DROP INDEX file_present", "index file_present is not as"),
        (
            "INSERT INTO user (name, role, salt, hash, memory, passes, lanes, created)
             VALUES ('u', 'king', x'00', x'00', 1, 1, 1, 0)",
            "",
        ),
        ("DELETE FROM run", "no rows"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fuota.db");
        Db::open(&path).unwrap().0.close();
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(change).unwrap();
        connection.pragma_update(None, "wal_checkpoint", "TRUNCATE").unwrap();
        drop(connection);
        let error = Db::open(&path).err().expect(change);
        assert!(matches!(error, DbError::Damaged { .. }), "{change}: {error}");
        let text = error.to_string();
        assert!(text.contains(&path.display().to_string()), "{text}");
        assert!(text.to_lowercase().contains(why) && text.contains("backup"), "{change}: {text}");
    }
}

#[test]
fn a_lock_of_another_program_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fuota.db");
    Db::open(&path).unwrap().0.close();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    let error = Db::open(&path).err().expect("locked");
    assert!(matches!(error, DbError::Unusable { .. }), "{error}");
    assert!(error.to_string().contains("another program has locked it"), "{error}");
}
