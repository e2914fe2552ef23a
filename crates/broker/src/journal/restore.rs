//! From the durable state to sessions, at the start of the broker.

use hook::{Client, clock};
use std::{
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
    let restored = image
        .sessions
        .into_iter()
        .filter_map(|(key, session)| restore_session(key, session, journal, registry, index));
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
    let SessionImage { client_id, owner, expiry, left, .. } = image;
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
