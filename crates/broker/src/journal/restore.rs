//! From the durable state to sessions, at the start of the broker.

use hook::{Client, clock};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    Journal, Record,
    image::{Image, Promised, SessionImage},
    wall_seconds,
};
use crate::{
    backlog::Backlog,
    index::Index,
    message::Delivery,
    registry::{Due, Registry},
    retained::Retained,
    session::{Session, State, View},
    topic::check_filter,
};

/// Makes what the log describes. Returns the sessions whose time ran out meanwhile, which are to be
/// ended.
pub(crate) fn restore(
    image: Image,
    journal: &Journal,
    registry: &Registry,
    index: &Index,
    retained: &Retained,
) -> Vec<Arc<Session>> {
    retained.restore(image.next.sequence, image.retained());
    registry.restore_keys(image.next.session);
    let (sessions, messages) = (image.sessions.len(), image.retained().count());
    // A client whose session was ending, behind what it left to others, may have begun another one.
    let newest: HashMap<Arc<str>, u64> =
        image.sessions.iter().map(|(key, session)| (session.client_id.clone(), *key)).collect();
    let restored = image.sessions.into_iter().filter_map(|(key, session)| {
        let replaced = newest.get(&session.client_id) != Some(&key);
        let session = SessionImage { expiry: if replaced { 0 } else { session.expiry }, ..session };
        restore_session(key, session, journal, registry, index)
    });
    let over: Vec<_> = restored.collect();
    if sessions + messages > 0 {
        let sessions = registry.len() - over.len();
        tracing::info!(sessions, retained = messages, "the broker's log was read");
    }
    over
}

/// The session where it is over.
fn restore_session(
    key: u64,
    image: SessionImage,
    journal: &Journal,
    registry: &Registry,
    index: &Index,
) -> Option<Arc<Session>> {
    let SessionImage { client_id, owner, expiry, left, will, .. } = image;
    let SessionImage { subscriptions, deliveries, received, backlogs, .. } = image;
    let now = wall_seconds();
    // A clock that was stepped makes it live longer, but never longer than it may.
    let away = clock::passed(left.unwrap_or(now), now);
    let remaining = match expiry {
        u32::MAX => None,
        seconds => Some(Duration::from_secs(u64::from(seconds).saturating_sub(away))),
    };
    if left.is_none() {
        // It was connected until the broker ended, which is about now.
        journal.append(Record::Leave { session: key, at: now, expiry });
    }
    let session = registry.restore(key, client_id);
    session.set_durable(true);
    registry.settle(&session, true, None, &owner.identity);
    *session.view.lock() = View::restored(Client {
        connection: 0,
        id: session.client_id.clone(),
        assigned_id: false,
        identity: owner.identity,
        username: None,
        protocol: owner.protocol,
        address: None,
        maximum_packet_size: u32::MAX,
        receive_maximum: u16::MAX,
        user_properties: Box::default(),
    });
    for (filter, held) in subscriptions {
        let filter: Arc<str> = filter.into();
        if !held.consumed
            && let Ok(parsed) = check_filter(&filter)
        {
            index.insert(parsed, &filter, held.entry(&session));
        }
        session.subscriptions.lock().insert(filter, held);
    }
    if let Ok(mut state) = session.state.try_lock() {
        state.present = true;
        state.expiry = match expiry {
            u32::MAX => None,
            seconds => Some(Duration::from_secs(seconds.into())),
        };
        state.received = received.into_iter().collect();
        state.backlog = Backlog::restored(backlogs);
        for (number, promised) in deliveries {
            restore_delivery(&session, &mut state, number, promised);
        }
        // Of a session that is over it is published with its end.
        if let Some(will) = will.as_ref().filter(|_| remaining != Some(Duration::ZERO)) {
            let left = will.delay.saturating_sub(Duration::from_secs(away));
            registry.schedule(&session, Due::Will, left);
        }
        state.will = will;
        session.inflight.store(state.window.len(), Ordering::Relaxed);
    }
    match remaining {
        None => None,
        Some(Duration::ZERO) => Some(session),
        Some(remaining) => {
            registry.schedule(&session, Due::Expire, remaining);
            None
        }
    }
}

fn restore_delivery(session: &Arc<Session>, state: &mut State, number: u64, promised: Promised) {
    match promised {
        Promised::Release(packet_id) => state.window.restore(packet_id, None, number),
        Promised::Message { message, target, packet_id } => {
            let delivery = Delivery {
                id: number,
                message,
                qos: target.qos,
                retain: target.retain,
                subscriptions: target.subscriptions,
                share: target.share,
            };
            match packet_id {
                Some(packet_id) => state.window.restore(packet_id, Some(delivery), number),
                None => session.inbox.restore(delivery),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        journal::{Directory, Owner, Sync},
        message::Message,
        session::Will,
    };
    use hook::{Identity, Protocol, Qos};

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// What a session's delayed will had left when the broker ended has run on since.
    #[tokio::test]
    async fn the_time_without_a_broker_counts() {
        let message = Message {
            topic: "w".into(),
            payload: "x".into(),
            qos: Qos::AtMostOnce,
            retain: false,
            properties: None,
            publisher: 7,
            sequence: 0,
            expires: None,
        };
        let will = Will { message: Arc::new(message), delay: 4 * PATIENCE };
        let owner = Owner { identity: Identity::ANONYMOUS, protocol: Protocol::V5 };
        let away = (5 * PATIENCE).as_secs();
        let mut image = Image::default();
        for record in [
            Record::Begin { session: 7, client_id: "c".into(), owner, expiry: u32::MAX },
            Record::Will { session: 7, will: Some(Box::new(will)) },
            Record::Leave { session: 7, at: wall_seconds() - away, expiry: u32::MAX },
        ] {
            image.apply(record);
        }
        let directory = tempfile::tempdir().unwrap();
        let storage = Arc::new(Directory::open(directory.path()).unwrap());
        let (journal, _) = Journal::open(storage, Sync::Os).unwrap();
        let registry = Registry::new(1, Arc::default());
        let (index, retained) = (Index::default(), Retained::new(Arc::default()));
        assert!(restore(image, &journal, &registry, &index, &retained).is_empty());
        let (due, session, state) =
            tokio::time::timeout(PATIENCE, registry.next_due()).await.unwrap();
        assert_eq!((due, session.key), (Due::Will, 7));
        assert_eq!(&*state.will.as_ref().unwrap().message.topic, "w");
    }
}
