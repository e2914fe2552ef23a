//! The end of a session: its will, and what it leaves to others.

use hook::{Identity, Outbox, Outgoing, Refused, Sink};
use std::sync::Arc;
use tokio::sync::{OwnedMutexGuard, oneshot};

use crate::{
    behind::Later,
    counters::Tally,
    exchange::{Exchange, How, Routed},
    hooks::View,
    index::Receivers,
    journal::Record,
    message::Delivery,
    session::{Session, State, Will},
};

impl Exchange {
    /// Forgets a session that the caller holds.
    pub fn end_session(&self, session: &Arc<Session>, state: &mut State) {
        let shared = shared(session, state);
        self.registry.remove(session, state, &self.index);
        state.behind.wait_for(self.hand_on(session, shared));
        self.log_behind(session, state, Record::End { session: session.key });
    }

    /// Ends a session that is away: its delayed will is due with it.
    pub fn end_away(&self, session: &Arc<Session>, mut state: OwnedMutexGuard<State>) {
        self.end_held(session, &mut state);
    }

    fn end_held(&self, session: &Arc<Session>, state: &mut State) {
        if let Some(will) = state.will.take() {
            state.behind.wait_for(self.publish_will(session, will));
        }
        self.end_session(session, state);
    }

    /// A delayed will is due before its session ends.
    pub fn mourn(&self, session: &Session, state: &mut State) {
        if let Some(will) = state.will.take() {
            state.behind.wait_for(self.publish_will(session, will));
            self.log_will_over(session, state);
        }
    }

    /// The will of a session was published or given up. The log hears of it behind the publish: the
    /// end of the process may bring it twice, but never lose it.
    pub fn log_will_over(&self, session: &Session, state: &mut State) {
        self.log_behind(session, state, Record::Will { session: session.key, will: None });
    }

    /// Writes a record of a session that lasts, behind what it leaves to others.
    pub fn log_behind(&self, session: &Session, state: &mut State, record: Record) {
        if let Some(journal) = self.journal.as_ref().filter(|_| session.is_durable()) {
            let bytes = record.cost();
            state.behind.write(journal, &self.left, bytes, move |journal| journal.append(record));
        }
    }

    /// Ends a session whose owner is gone: now where it is away, and else as soon as its connection
    /// has ended, which the caller has asked it to. Then `told` hears when the log has it.
    pub fn end_abandoned(
        self: &Arc<Self>,
        session: Arc<Session>,
        owner: Identity,
        told: oneshot::Sender<bool>,
    ) {
        if let Ok(state) = session.state.clone().try_lock_owned() {
            return self.end_away_and_tell(&session, state, told);
        }
        let exchange = self.clone();
        tokio::spawn(async move {
            let mut state = session.state.clone().lock_owned().await;
            // It may have ended by itself, or have got another owner.
            let client = session.view.lock().client.clone();
            if !state.ended && client.is_some_and(|client| client.identity == owner) {
                exchange.end_away_and_tell(&session, state, told);
            } else {
                exchange.tell_behind(&mut state, told);
            }
        });
    }

    fn end_away_and_tell(
        &self,
        session: &Arc<Session>,
        mut state: OwnedMutexGuard<State>,
        told: oneshot::Sender<bool>,
    ) {
        self.end_held(session, &mut state);
        self.tell_behind(&mut state, told);
    }

    /// Tells when the log has what was written of a session, behind what it leaves to others.
    fn tell_behind(&self, state: &mut State, told: oneshot::Sender<bool>) {
        match &self.journal {
            Some(journal) => {
                state.behind.write(journal, &self.left, 0, |journal| journal.tell_written(told));
            }
            // Whoever wants to know may be gone.
            None => drop(told.send(true)),
        }
    }

    /// Publishes a will, asking the hooks as for any publish, but with no connection behind it.
    /// Where it is not with its receivers yet, what sees to it is returned.
    pub fn publish_will(&self, session: &Session, will: Will) -> Option<Later> {
        let client = session.view.lock().client.clone()?;
        let outbox = Outbox::new(Arc::new(Closed));
        let mut slots = self.hooks.slots();
        let mut view = View { client: &client, outbox: &outbox, slots: &mut slots };
        self.publish_checked(&mut view, session, &will.message)
    }

    /// What a member of shared subscriptions leaves behind goes to other members (MQTT 5.0, 4.8.2).
    /// Where there are none, or the log cannot be written, it ends with its session. One record of
    /// the log takes it from the one and gives it to the other. Where some of those are not on their
    /// way yet, the task that sees to them is returned.
    pub fn hand_on(&self, from: &Session, shared: Vec<Delivery>) -> Option<Later> {
        let (mut under_way, mut tally) = (Vec::new(), Tally::default());
        for Delivery { id, message, share, .. } in shared {
            let Some(share) = share.filter(|_| !message.expired()) else { continue };
            let (receivers, _) = self.index.receivers(&message.topic, 0);
            let mut groups = receivers.groups.iter();
            let group = groups.find(|group| group.share.0 == share.0);
            let Some(receiver) = group.and_then(|group| group.pick()) else { continue };
            let receivers = Receivers { sessions: vec![receiver], groups: Vec::new() };
            let logged = id != 0 && !self.log_is_failing();
            let how = How {
                instead: logged.then_some((from.key, id)),
                follows: !under_way.is_empty(),
                ..How::default()
            };
            if let Routed::Pending(pending) = self.distribute(message, &receivers, how, &mut tally)
            {
                under_way.push(pending);
            }
        }
        tally.flush(&self.totals);
        self.finish_later(under_way)
    }
}

/// What a session would leave to other members of its shared subscriptions, in the order in which
/// it would have got it.
pub(crate) fn shared(session: &Session, state: &State) -> Vec<Delivery> {
    let sent = state.window.shared().cloned();
    sent.chain(session.inbox.shared()).collect()
}

/// The outbox of a client that is gone.
struct Closed;

impl Sink for Closed {
    fn push(&self, _: Outgoing) -> Result<(), Refused> {
        Err(Refused::Closed)
    }
    fn pending_blocks(&self) -> usize {
        0
    }
    fn is_open(&self) -> bool {
        false
    }
}
