//! The messages of plugins, each for one connection.

use hook::{Class, Outgoing, Refused};

use super::{Inbox, wake};

/// While more than this waits in an outbox, no further PUBLISH of that client is read.
const OUTBOX_HIGH_BYTES: usize = 8 * 1024 * 1024;
/// The same in messages.
const OUTBOX_HIGH_MESSAGES: usize = 1024;
/// Past this many times the high-water mark an outbox refuses.
const OUTBOX_HARD_FACTOR: usize = 4;

impl Inbox {
    /// A plugin's message for one connection.
    pub fn push_outgoing(&self, connection: u64, message: Outgoing) -> Result<(), Refused> {
        let mut inner = self.inner.lock();
        if inner.connection != connection {
            return Err(Refused::Closed);
        }
        if inner.outbox_messages >= OUTBOX_HIGH_MESSAGES * OUTBOX_HARD_FACTOR
            || inner.outbox_bytes + message.payload.len() > OUTBOX_HIGH_BYTES * OUTBOX_HARD_FACTOR
        {
            return Err(Refused::Full);
        }
        inner.outbox_messages += 1;
        inner.outbox_bytes += message.payload.len();
        match message.class {
            Class::Control => inner.queues.control.push_back(message),
            Class::Block => {
                inner.pending_blocks += 1;
                inner.queues.blocks.push_back(message);
            }
        }
        wake(inner);
        Ok(())
    }

    /// Blocks pushed for this connection and not yet written.
    pub fn pending_blocks(&self, connection: u64) -> usize {
        let inner = self.inner.lock();
        if inner.connection == connection { inner.pending_blocks } else { 0 }
    }

    /// Whether this connection still drains it.
    pub fn serves(&self, connection: u64) -> bool {
        self.inner.lock().connection == connection
    }

    /// Whether the outbox is above its high-water mark.
    pub fn outbox_is_high(&self) -> bool {
        let inner = self.inner.lock();
        inner.outbox_bytes > OUTBOX_HIGH_BYTES || inner.outbox_messages > OUTBOX_HIGH_MESSAGES
    }
}
