//! SUBSCRIBE and UNSUBSCRIBE.
//!
//! A bridge of MQTT 3.1.1 has no words for what MQTT 5 calls No Local and Retain As Published. It
//! says with the top bit of its protocol level that it means both with each subscription, or what it
//! publishes would come back, and retained messages would lose their flag on the way.

use hook::{Protocol, Qos, Reason, SubscribeVerdict, Subscription};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    backlog::Owed,
    codec,
    connection::{Connection, Ending},
    inbound::reason_code,
    journal::{Journal, Record, Ticket},
    packet::{RetainHandling, Subscribe, SubscribeFilter, Unsubscribe, reason},
    subscriptions::Held,
    topic::check_filter,
    unsettled::Answer,
};

/// So many filters one SUBSCRIBE may have where a session may hold fewer, since some may repeat.
const FILTERS: usize = 64;
/// So long the filters of a session are, on average, where it has as many as it may: several times
/// what people write. A filter may have 65,535 bytes, and those of thousands would fill the memory.
const FILTER_BYTES: usize = 256;
/// So long they may be together in any case, so that one of any length is taken.
const LEAST_BYTES: usize = 64 * 1024;

/// What a SUBSCRIBE made of the subscriptions of a session.
#[derive(Default)]
struct Made {
    /// Something that the log has to have.
    changed: bool,
    /// Filters that it had not before.
    new: Vec<Arc<str>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// An answer that the client does not take cannot be given, nor left out [MQTT-3.1.2-24].
    fn check_answer(&self, codes: usize) -> Result<(), Ending> {
        if codec::answer_len(codes) <= self.client.maximum_packet_size as usize {
            return Ok(());
        }
        let text = "the acknowledgement would be larger than the Maximum Packet Size";
        Err(Ending::protocol(reason::PACKET_TOO_LARGE, text))
    }

    pub(crate) fn on_subscribe(&mut self, subscribe: Subscribe) -> Result<(), Ending> {
        let Subscribe { packet_id, identifier, filters } = subscribe;
        self.check_answer(filters.len())?;
        // What is more than a session may hold repeats itself, or is refused anyway.
        let held = self.session.subscriptions.lock().len();
        let most = self.exchange.limits.subscriptions().max(held).max(FILTERS);
        // One after the other, and one answer [MQTT-3.8.4-1], [MQTT-3.8.4-5], [MQTT-3.9.3-1].
        let mut codes = Vec::with_capacity(filters.len());
        let mut made = Made::default();
        for (at, options) in filters.into_iter().enumerate() {
            let granted = if at < most {
                self.subscribe(packet_id, options, identifier, &mut made)
            } else {
                Err(reason::QUOTA_EXCEEDED)
            };
            // [MQTT-3.8.4-7]
            codes.push(granted.map_or_else(|code| code, |qos| qos as u8));
            self.tally.refused += u32::from(granted.is_err());
        }
        let granted = codes.iter().any(|code| *code < 0x80);
        // What is repeated stands in the log, or waits for it.
        let waits = self.unsettled.as_ref().is_some_and(|unsettled| unsettled.has_answers());
        let how = match made.changed || waits {
            true => Journal::reporting_barrier,
            false => Journal::barrier,
        };
        let ticket = self.logged_before(granted, how);
        self.answer(ticket, Answer::SubAck { packet_id, codes, new: made.new });
        Ok(())
    }

    /// A ticket for all that this session has appended so far, where something was.
    fn logged_before(&self, something: bool, how: fn(&Journal) -> Ticket) -> Option<Ticket> {
        let journal = self.exchange.journal.as_ref();
        journal.filter(|_| something && self.session.is_durable()).map(|journal| how(journal))
    }

    /// Whether nothing can be promised to this session that lasts.
    fn promises_nothing(&self) -> bool {
        self.session.is_durable() && self.exchange.log_is_failing()
    }

    /// The log could not be written when these subscriptions were on their way there.
    pub(crate) fn take_back(&mut self, packet_id: u16, mut codes: Vec<u8>, new: &[Arc<str>]) {
        for filter in new {
            self.unsubscribe(filter);
        }
        for code in codes.iter_mut().filter(|code| **code < 0x80) {
            *code = reason::QUOTA_EXCEEDED;
            self.tally.refused += 1;
        }
        self.answer(None, Answer::SubAck { packet_id, codes, new: Vec::new() });
    }

    fn subscribe(
        &mut self,
        packet_id: u16,
        mut options: SubscribeFilter,
        identifier: Option<u32>,
        made: &mut Made,
    ) -> Result<Qos, u8> {
        let text: Arc<str> = options.filter.as_str().into();
        let filter = check_filter(&text).map_err(|_| reason::TOPIC_FILTER_INVALID)?;
        if self.bridge {
            // [MQTT-3.8.3-4]
            options.no_local = filter.share.is_none();
            options.retain_as_published = true;
        }
        let refused = |why: Reason| reason_code(why.kind);
        self.exchange.hooks.authorize_subscribe(&self.client, &text).map_err(refused)?;
        let old = self.session.subscriptions.lock().get(&text).cloned();
        let known = old.as_ref().map(|held| held.consumed);
        if known.is_none() && !self.has_room_for(&text) {
            return Err(reason::QUOTA_EXCEEDED);
        }
        let is_old = |held: &Held| *held == Held::new(&options, identifier, held.consumed);
        if self.promises_nothing() && !old.as_ref().is_some_and(is_old) {
            return Err(reason::QUOTA_EXCEEDED);
        }
        let qos = options.qos;
        let asked = Subscription { filter: options.filter.clone(), qos };
        let (exchange, mut view) = self.view();
        let consumed = match exchange.hooks.subscribe(&mut view, &asked) {
            SubscribeVerdict::Continue => false,
            SubscribeVerdict::Consume => true,
            SubscribeVerdict::Reject(why) => return Err(reason_code(why.kind)),
        };
        if known == Some(false) && consumed {
            self.exchange.index.remove(filter, self.session.key);
        }
        let handling = options.retain_handling;
        let held = Held::new(&options, identifier, consumed);
        if old.as_ref() != Some(&held) {
            made.changed = true;
            made.new.extend(known.is_none().then(|| text.clone()));
            self.log(|session| Record::Subscribe {
                session,
                filter: (*text).into(),
                held: held.clone(),
            });
        }
        if !consumed {
            self.exchange.index.insert(filter, &text, held.entry(&self.session));
        }
        self.session.subscriptions.lock().insert(text.clone(), held);
        let wanted = match handling {
            // [MQTT-3.3.1-9], [MQTT-3.8.4-4]
            RetainHandling::Send => true,
            // [MQTT-3.3.1-10]
            RetainHandling::SendIfNew => known.is_none(),
            // [MQTT-3.3.1-11]
            RetainHandling::DoNotSend => false,
        };
        // Shared subscriptions get no retained messages (4.8.2).
        if wanted && !consumed && filter.share.is_none() {
            // Behind the index: what is published from now on comes as a live message. They are
            // sent with RETAIN set [MQTT311-3.3.1-8].
            let owed = Owed {
                filter: filter.levels.into(),
                qos,
                identifier,
                newest: self.exchange.retained.newest(),
                after: None,
            };
            self.owe(owed, known.is_none(), packet_id);
        }
        Ok(qos)
    }

    /// Whether the session may have one more filter.
    fn has_room_for(&self, filter: &str) -> bool {
        let most = self.exchange.limits.subscriptions();
        let held = self.session.subscriptions.lock();
        held.len() < most
            && held.bytes() + filter.len() <= most.saturating_mul(FILTER_BYTES).max(LEAST_BYTES)
    }

    /// While the log cannot be written nothing changes, where the client can be told. MQTT 3.1.1 has
    /// no code for it: the UNSUBACK comes when there is room, and all else goes on.
    pub(crate) fn on_unsubscribe(&mut self, unsubscribe: Unsubscribe) -> Result<(), Ending> {
        self.check_answer(unsubscribe.filters.len())?;
        if self.promises_nothing() && self.client.protocol == Protocol::V5 {
            let refusal = |filter: &String| match self.session.subscriptions.lock().get(filter) {
                Some(_) => reason::IMPLEMENTATION_SPECIFIC_ERROR,
                None if check_filter(filter).is_err() => reason::TOPIC_FILTER_INVALID,
                None => reason::NO_SUBSCRIPTION_EXISTED,
            };
            let codes = unsubscribe.filters.iter().map(refusal).collect();
            self.answer(None, Answer::UnsubAck { packet_id: unsubscribe.packet_id, codes });
            return Ok(());
        }
        // [MQTT-3.10.4-4], [MQTT-3.10.4-6], [MQTT-3.11.3-1]
        let codes: Vec<u8> =
            unsubscribe.filters.iter().map(|filter| self.unsubscribe(filter)).collect();
        let ticket = self.logged_before(codes.contains(&reason::SUCCESS), Journal::written_before);
        let packet_id = unsubscribe.packet_id;
        self.answer(ticket, Answer::UnsubAck { packet_id, codes });
        Ok(())
    }

    /// By its text [MQTT-3.10.4-1]; what is in the queue already is still delivered [MQTT-3.10.4-3].
    fn unsubscribe(&mut self, text: &str) -> u8 {
        let Ok(filter) = check_filter(text) else { return reason::TOPIC_FILTER_INVALID };
        let Some(held) = self.session.subscriptions.lock().remove(text) else {
            return reason::NO_SUBSCRIPTION_EXISTED;
        };
        if !held.consumed {
            self.exchange.index.remove(filter, self.session.key);
        }
        self.forget_owed(text);
        self.log(|session| Record::Unsubscribe { session, filter: text.into() });
        let (exchange, mut view) = self.view();
        exchange.hooks.unsubscribe(&mut view, text);
        reason::SUCCESS
    }
}
