//! Records of a session that come behind what it leaves to others.

use std::sync::Arc;
use tokio::task::JoinHandle;

use crate::{
    journal::{Journal, Record},
    left::Left,
};

/// A will, and what a member of shared subscriptions hands on, may have to wait for room in other
/// queues (`limits.publish_hold`). Until they are in the log, no record of their session may say
/// that they are over, so that no end of the process comes between; and since a record behind one
/// that waits waits as well, the log has all of them in their order, over any number of connections.
#[derive(Default)]
pub(crate) struct Behind {
    earlier: Option<JoinHandle<()>>,
    /// Something was left for later since a connection ended last.
    pub has_left: bool,
}

/// What sees to publishes whose publisher is gone.
#[derive(Debug)]
pub(crate) struct Later {
    /// Ends when they are done.
    pub task: JoinHandle<()>,
    /// Some of them are not on their way into the log yet.
    pub unwritten: bool,
}

impl Behind {
    /// What the session's records from now on come behind.
    pub fn wait_for(&mut self, later: Option<Later>) {
        let Some(Later { task, unwritten }) = later else { return };
        self.has_left = true;
        if !unwritten {
            return;
        }
        self.earlier = Some(match self.unfinished() {
            None => task,
            Some(earlier) => tokio::spawn(async move {
                let _ = earlier.await;
                let _ = task.await;
            }),
        });
    }

    /// Writes records of the session, which hold so many bytes: now, or when what they come behind is
    /// in the log.
    pub fn write(
        &mut self,
        journal: &Arc<Journal>,
        left: &Arc<Left>,
        bytes: usize,
        write: impl FnOnce(&Journal) + Send + 'static,
    ) {
        let Some(earlier) = self.unfinished() else { return write(journal) };
        self.has_left = true;
        let (journal, share) = (journal.clone(), left.take(size_of::<Record>() + bytes));
        self.earlier = Some(tokio::spawn(async move {
            // Should it have panicked, what comes behind it is true all the same.
            let _ = earlier.await;
            write(&journal);
            drop(share);
        }));
    }

    fn unfinished(&mut self) -> Option<JoinHandle<()>> {
        self.earlier.take().filter(|task| !task.is_finished())
    }
}
