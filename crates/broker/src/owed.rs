//! Retained messages that a session is promised because it subscribed, and the log.
//!
//! The SUBACK is the promise: before it, one record says what is owed, by the filter and the place
//! in the order of retained publishes. Each message becomes a delivery when it is sent, and is
//! named in the log by its topic and place, since its payload stands there already. So neither a
//! queue nor the log holds what is retained anyway, however much a filter matches. A message that
//! is replaced before it was sent is not owed any more: the newer one comes as a live message; or
//! in its place, where that was at QoS 0 and found nobody.

use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    backlog::{Owed, promises},
    connection::Connection,
    journal::{Record, RetainedRecord, wall_seconds},
    message::Delivery,
};

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A subscription, perhaps a new one, is to be sent what is retained, behind the SUBACK with
    /// this packet id.
    pub(crate) fn owe(&mut self, owed: Owed, new: bool, packet_id: u16) {
        let number = self.log_owed(&owed);
        let backlog = self.backlog.get_or_insert_default();
        let replaced = backlog.subscribe(owed, new, number, packet_id);
        self.no_longer_owed(replaced);
    }

    /// The number of what is promised, in the log; 0 where nothing is, or nothing is to last.
    fn log_owed(&self, owed: &Owed) -> u64 {
        let Some(journal) = &self.exchange.journal else { return 0 };
        if !self.session.is_durable() || !promises(&self.exchange.retained, owed) {
            return 0;
        }
        let (session, backlog) = (self.session.key, journal.deliveries(1));
        journal.append(Record::Owe { session, backlog, owed: Box::new(owed.clone()) });
        backlog
    }

    /// A retained message of this backlog leaves at QoS 1 or 2: from now on it is a delivery.
    pub(crate) fn log_served(&self, delivery: &mut Delivery, backlog: u64) {
        let Some(journal) = self.exchange.journal.as_ref().filter(|_| backlog != 0) else { return };
        delivery.id = journal.deliveries(1);
        let (session, message) = (self.session.key, delivery.message.clone());
        let what = RetainedRecord::Message { message, at: wall_seconds() };
        journal.append(Record::Serve { session, backlog, delivery: delivery.id, what });
    }

    /// A subscription has ended, or is not served by the broker any more.
    pub(crate) fn forget_owed(&mut self, filter: &str) {
        if let Some(backlog) = &mut self.backlog {
            let gone = backlog.unsubscribe(filter);
            self.no_longer_owed(gone);
        }
    }

    /// The connection has ended: what a session that lasts was promised waits for its next one.
    pub(crate) fn keep_owed(&mut self) {
        let Some(mut backlog) = self.backlog.take() else { return };
        if self.state.expiry == Some(Duration::ZERO) {
            return;
        }
        let gone = backlog.keep_promised();
        self.no_longer_owed(gone);
        self.state.backlog = Some(backlog).filter(|backlog| !backlog.is_over());
    }

    fn no_longer_owed(&self, backlogs: impl IntoIterator<Item = u64>) {
        for backlog in backlogs.into_iter().filter(|number| *number != 0) {
            self.log(|session| Record::Served { session, backlog });
        }
    }
}
