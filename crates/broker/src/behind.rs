//! Records of a session that come behind what it leaves to others.

use std::sync::Arc;
use tokio::task::JoinHandle;

use crate::journal::Journal;

/// A will, and what a member of shared subscriptions hands on, may have to wait for room in other
/// queues (`limits.publish_hold`). Until they are in the log, no record of their session may say
/// that they are over, so that no end of the process comes between; and since a record behind one
/// that waits waits as well, the log has all of them in their order, over any number of connections.
#[derive(Default)]
pub(crate) struct Behind(Option<JoinHandle<()>>);

impl Behind {
    /// What the session's records from now on come behind.
    pub fn wait_for(&mut self, task: Option<JoinHandle<()>>) {
        let Some(task) = task else { return };
        self.0 = Some(match self.unfinished() {
            None => task,
            Some(earlier) => tokio::spawn(async move {
                let _ = earlier.await;
                let _ = task.await;
            }),
        });
    }

    /// Writes records of the session: now, or when what they come behind is in the log.
    pub fn write(&mut self, journal: &Arc<Journal>, write: impl FnOnce(&Journal) + Send + 'static) {
        let Some(earlier) = self.unfinished() else { return write(journal) };
        let journal = journal.clone();
        self.0 = Some(tokio::spawn(async move {
            // Should it have panicked, what comes behind it is true all the same.
            let _ = earlier.await;
            write(&journal);
        }));
    }

    fn unfinished(&mut self) -> Option<JoinHandle<()>> {
        self.0.take().filter(|task| !task.is_finished())
    }
}
