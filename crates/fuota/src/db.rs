//! The fleet's database: the one place that knows it is SQLite. `rows` is what goes in and out,
//! `tables` how, with `users`, `fleet` and `requests` for some of them; `check` knows what may be
//! wrong with its file.
//!
//! Everything is read once, at start. Afterwards the memory is the truth and one writer thread
//! follows it: jobs come over a bounded queue, each is atomic, and those that wait together
//! share one commit. A job's callback runs after its commit, so that "in the database before
//! the manifest leaves" is a callback and nobody waits.
//!
//! The queue is full: the job is refused at once ([`DbError::Busy`]) and the caller decides;
//! progress is written again at the next interval, an offer is tried again later. The same where
//! the file cannot be written: what needs the database waits, what does not goes on.

mod check;
mod fleet;
#[cfg(test)]
pub mod full;
mod requests;
mod rows;
mod tables;
mod users;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rusqlite::Connection;

pub use fleet::{AuditRow, DeploymentRow, MemberRow, TimelineRow};
pub use requests::{RequestRow, UserTokenRow};
pub use rows::{DeviceRow, FileRow, HistoryRow, Loaded, Op, TransferRow};
pub use users::UserRow;

/// Each script makes the next version of the schema; the number of scripts is the version.
const MIGRATIONS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("db/users.sql"),
    include_str!("db/schemes.sql"),
    include_str!("db/fleet.sql"),
    include_str!("db/requests.sql"),
    include_str!("db/conditions.sql"),
    include_str!("db/firmware.sql"),
    include_str!("db/dialects.sql"),
    include_str!("db/cancelled.sql"),
    include_str!("db/waits.sql"),
    include_str!("db/forgiven.sql"),
    include_str!("db/links.sql"),
    include_str!("db/endings.sql"),
];
/// Jobs that may wait.
const QUEUE: usize = 16_384;
/// Jobs in one commit.
const GROUP: usize = 1024;
/// After what a failure that lasts is logged again.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// Why the database did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DbError {
    /// Too much waits to be written.
    #[error("the database is behind with writing")]
    Busy,
    /// The program ends.
    #[error("the database is closed")]
    Closed,
    /// SQLite says no.
    #[error("the database: {0}")]
    Sqlite(Arc<rusqlite::Error>),
    /// The file cannot be opened, read or written as it is.
    #[error("{path} cannot be used: {reason}", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file is not what was written.
    #[error(
        "{path} is damaged ({why}): put a backup in its place; or move it away, with {path}-wal and {path}-shm, \
         to begin anew without the accounts, tokens and devices that are in it",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It was written by a later version of this program.
    #[error(
        "{path} has schema version {found}, this program knows {known}: run a newer fuotad, or restore an older backup"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// Ours.
        known: usize,
    },
}

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        DbError::Sqlite(Arc::new(error))
    }
}

/// Called once, on the writer's thread, after the job's commit or its failure.
pub type Done = Box<dyn FnOnce(Result<(), DbError>) + Send>;

struct Job {
    ops: Vec<Op>,
    /// Where the whole file is to be copied to, once this is called, and nothing is written.
    copy: Option<(PathBuf, Meanwhile)>,
    done: Option<Done>,
}

/// Called on the writer's thread, between two commits.
pub type Meanwhile = Box<dyn FnOnce() + Send>;

/// The way to the writer.
pub struct Db {
    jobs: Mutex<Option<SyncSender<Job>>>,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
    problem: Arc<Mutex<Option<String>>>,
    /// Of each group of jobs.
    pub commit_time: Arc<hook::Histogram>,
    /// Jobs that were queued, for tests.
    #[cfg(test)]
    jobs_queued: std::sync::atomic::AtomicU64,
    /// For looking things up that are not kept in memory.
    reader: Arc<Mutex<Connection>>,
}

impl Db {
    /// Opens or makes the file, brings its schema up to date and reads everything.
    pub fn open(path: &Path) -> Result<(Db, Loaded), DbError> {
        check::not_emptied(path)?;
        let (connection, loaded) = open(path)?;
        let (sender, receiver) = sync_channel(QUEUE);
        let problem = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&problem);
        let commit_time = Arc::new(hook::Histogram::default());
        let measured = Arc::clone(&commit_time);
        let reader = Connection::open(path).map_err(check::at_start(path))?;
        reader.busy_timeout(Duration::from_secs(5)).map_err(check::at_start(path))?;
        reader.pragma_update(None, "query_only", true).map_err(check::at_start(path))?;
        let path = path.to_owned();
        let writer = thread::Builder::new()
            .name("fuota-db".into())
            .spawn(move || write(connection, &path, receiver, &shared, &measured))
            .map_err(|_| DbError::Closed)?;
        let db = Db {
            jobs: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
            problem,
            commit_time,
            #[cfg(test)]
            jobs_queued: std::sync::atomic::AtomicU64::new(0),
            reader: Arc::new(Mutex::new(reader)),
        };
        Ok((db, loaded))
    }

    /// Queues one atomic job.
    ///
    /// # Errors
    /// [`DbError::Busy`] or [`DbError::Closed`]: `done` is dropped uncalled.
    pub fn submit(&self, ops: Vec<Op>, done: Option<Done>) -> Result<(), DbError> {
        #[cfg(test)]
        self.jobs_queued.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match self.jobs.lock().as_ref() {
            None => Err(DbError::Closed),
            Some(jobs) => send(jobs, Job { ops, copy: None, done }),
        }
    }

    /// Copies the whole database into a new file. `meanwhile` is called first, and nothing is
    /// written between that and the copy.
    pub async fn copy_to(&self, path: PathBuf, meanwhile: Meanwhile) -> Result<(), DbError> {
        let (done, copied) = tokio::sync::oneshot::channel();
        let done: Done = Box::new(move |result| drop(done.send(result)));
        let job = Job { ops: Vec::new(), copy: Some((path, meanwhile)), done: Some(done) };
        match self.jobs.lock().as_ref() {
            None => return Err(DbError::Closed),
            Some(jobs) => send(jobs, job)?,
        }
        copied.await.unwrap_or(Err(DbError::Closed))
    }

    /// Queues one job at once, and gives what waits for its commit.
    pub fn queue(&self, ops: Vec<Op>) -> impl Future<Output = Result<(), DbError>> + use<> {
        let (done, committed) = tokio::sync::oneshot::channel();
        let queued = self.submit(ops, Some(Box::new(move |result| drop(done.send(result)))));
        async move {
            queued?;
            committed.await.unwrap_or(Err(DbError::Closed))
        }
    }

    /// Queues one job and waits for its commit.
    pub async fn commit(&self, ops: Vec<Op>) -> Result<(), DbError> {
        self.queue(ops).await
    }

    /// The newest lines of a device's timeline before the line `before`, the newest first.
    pub async fn timeline(
        &self,
        device: &str,
        before: i64,
        limit: usize,
    ) -> Result<Vec<TimelineRow>, DbError> {
        let device = device.to_owned();
        self.read(move |reader| fleet::timeline(reader, &device, before, limit)).await
    }

    /// The newest lines of the audit before the line `before`, the newest first.
    pub async fn audit(&self, before: i64, limit: usize) -> Result<Vec<AuditRow>, DbError> {
        self.read(move |reader| fleet::audit(reader, before, limit)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DbError> {
        let reader = Arc::clone(&self.reader);
        let reading = tokio::task::spawn_blocking(move || read(&reader.lock()));
        Ok(reading.await.map_err(|_| DbError::Closed)??)
    }

    /// How many jobs were queued.
    #[cfg(test)]
    pub fn jobs(&self) -> u64 {
        self.jobs_queued.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Why the last job could not be written, if it could not.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    /// Ends the writer as the end of the process would, but for what waits already. Blocks until it
    /// has; what comes later is refused.
    #[cfg(test)]
    pub fn kill(&self) {
        self.jobs.lock().take();
        if let Some(writer) = self.writer.lock().take() {
            drop(writer.join());
        }
    }

    /// Writes what waits and ends the writer. Blocks until it has.
    pub fn close(&self) {
        drop(self.submit(vec![Op::Clean(true)], None));
        self.jobs.lock().take();
        if let Some(writer) = self.writer.lock().take() {
            drop(writer.join());
        }
    }
}

fn send(jobs: &SyncSender<Job>, job: Job) -> Result<(), DbError> {
    jobs.try_send(job).map_err(|error| match error {
        TrySendError::Full(_) => DbError::Busy,
        TrySendError::Disconnected(_) => DbError::Closed,
    })
}

/// The connection, its schema up to date, and all that is in it.
fn open(path: &Path) -> Result<(Connection, Loaded), DbError> {
    let unusable = check::at_start(path);
    let mut connection = Connection::open(path).map_err(&unusable)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(&unusable)?;
    // First whether it is ours: what a later version means by it is not known here.
    let found = version(&connection).map_err(&unusable)?;
    if found > MIGRATIONS.len() {
        return Err(DbError::TooNew { path: path.into(), found, known: MIGRATIONS.len() });
    }
    check::whole(&connection, path)?;
    prepare(&mut connection, found).map_err(&unusable)?;
    check::schema(&connection, path)?;
    let loaded = tables::load(&connection).map_err(&unusable)?;
    connection.execute("UPDATE run SET clean = 0", []).map_err(&unusable)?;
    Ok((connection, loaded))
}

fn version(connection: &Connection) -> rusqlite::Result<usize> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    // A negative one is as unknown as a large one.
    Ok(usize::try_from(found).unwrap_or(usize::MAX))
}

fn prepare(connection: &mut Connection, found: usize) -> rusqlite::Result<()> {
    // WAL: a reader from outside (a backup) never stops the writer. FULL: a pin that a
    // power cut takes back could let a device mix two images, and commits are grouped.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    migrate(connection, found)
}

/// All of it or nothing: what is cut short or has no room leaves a file that the older program
/// still takes.
fn migrate(connection: &mut Connection, found: usize) -> rusqlite::Result<()> {
    if found == MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for script in MIGRATIONS.iter().skip(found) {
        transaction.execute_batch(script)?;
    }
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    transaction.commit()
}

/// Held by the writer: where it panicked, the broker says why nothing is written any more.
struct Last<'a>(&'a Mutex<Option<String>>);

impl Drop for Last<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let problem =
                "the writer of the database has failed, as the log says: restart the broker";
            *self.0.lock() = Some(problem.into());
        }
    }
}

fn write(
    mut connection: Connection,
    path: &Path,
    jobs: Receiver<Job>,
    problem: &Mutex<Option<String>>,
    commit_time: &hook::Histogram,
) {
    let mut said: Option<Instant> = None;
    // Dropped behind what says why: whoever waits for one of them hears of its end by that.
    let mut group = VecDeque::new();
    let _last = Last(problem);
    while let Ok(first) = jobs.recv() {
        group.push_back(first);
        group.extend(jobs.try_iter().take(GROUP - 1));
        let began = Instant::now();
        let (results, committed) = write_group(&mut connection, group.make_contiguous());
        commit_time.observe(began.elapsed());
        let failure =
            committed.as_ref().err().or(results.iter().find_map(|result| result.as_ref().err()));
        let reason = failure.map(|failure| match failure {
            DbError::Sqlite(error) => check::at_run(path, error),
            failure => failure.to_string(),
        });
        match &reason {
            // While it lasts every second brings another.
            Some(reason) if said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) => {
                said = Some(Instant::now());
                tracing::error!(reason, "the database was not written; what needs it waits");
            }
            None if said.take().is_some() => tracing::info!("the database is written again"),
            _ => {}
        }
        *problem.lock() = reason;
        for mut result in results {
            let Some(job) = group.pop_front() else { break };
            if let Some((path, meanwhile)) = job.copy {
                meanwhile();
                let copied = connection.execute("VACUUM INTO ?1", [path.to_string_lossy()]);
                result = copied.map(drop).map_err(DbError::from);
            }
            if let Some(done) = job.done {
                done(committed.clone().and(result));
            }
        }
    }
}

/// One commit for all; a job that fails takes only its own changes back. Where SQLite took back all
/// of them, as it may when the disk is full, nothing is written.
fn write_group(
    connection: &mut Connection,
    group: &[Job],
) -> (Vec<Result<(), DbError>>, Result<(), DbError>) {
    let mut results = Vec::with_capacity(group.len());
    let mut run = || -> Result<(), DbError> {
        let mut transaction = connection.transaction()?;
        for job in group {
            let result = write_job(&mut transaction, job).map_err(DbError::from);
            if transaction.is_autocommit() {
                // What came now would be written, each by itself, and nobody would know.
                return Err(result.err().unwrap_or(DbError::Closed));
            }
            results.push(result);
        }
        Ok(transaction.commit()?)
    };
    let committed = run();
    results.resize_with(group.len(), || Ok(()));
    (results, committed)
}

fn write_job(transaction: &mut rusqlite::Transaction<'_>, job: &Job) -> rusqlite::Result<()> {
    let savepoint = transaction.savepoint()?;
    for op in &job.ops {
        tables::apply(&savepoint, op)?;
    }
    savepoint.commit()
}

#[cfg(test)]
mod tests;
