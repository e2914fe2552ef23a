//! What ended connections leave behind: publishes that wait for the log or for room in other
//! queues, wills, what members of shared subscriptions hand on, and the records behind those.
//!
//! It is finished without them, so that a client may come back at once. All of it together is
//! bounded: while there is more than [`MOST_BYTES`], a connection that leaves something ends only
//! when there is less. Until then it keeps its place among `limits.connections`, so that beyond the
//! bound there is no more than as many connections leave; and where it leaves publishes it keeps its
//! session, so that its client cannot come back and leave more. Delayed wills, and sessions whose
//! time is up, wait as well. Nothing is dropped for it, and who leaves nothing waits for nobody.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::Notify;

use crate::{behind::Later, exchange::Exchange, pending::Pending};

/// As much as may wait for the writer of the log.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Left {
    bytes: AtomicUsize,
    /// There is less than the bound again.
    room: Notify,
}

/// A part of it, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    left: Arc<Left>,
    bytes: usize,
}

impl Left {
    /// So many bytes are left behind.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Share {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        Share { left: self.clone(), bytes }
    }

    /// Whether who leaves something waits.
    pub fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Acquire) > MOST_BYTES
    }

    /// Waits until there is less than the bound.
    pub async fn room(&self) {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            // From here on it hears of it.
            room.as_mut().enable();
            if !self.is_full() {
                return;
            }
            room.await;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let before = self.left.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        if before > MOST_BYTES && before - self.bytes <= MOST_BYTES {
            self.left.room.notify_waiters();
        }
    }
}

impl Exchange {
    /// Finishes publishes that nobody waits for any more, one behind the other.
    pub fn finish_later(&self, all: impl IntoIterator<Item = Box<Pending>>) -> Option<Later> {
        let mut unwritten = false;
        let with_share = |pending: Box<Pending>| {
            unwritten |= pending.waits_for_room();
            let share = self.left.take(pending.held());
            (pending, Some(share))
        };
        let all: Vec<_> = all.into_iter().map(with_share).collect();
        (!all.is_empty())
            .then(|| Pending::go_on_in_order(all, self.totals.clone()))
            .map(|task| Later { task, unwritten })
    }
}

#[cfg(test)]
mod tests;
