//! A client that was let in gets its session: a new one, or the one that it had.

use hook::{Client, Outbox, Outgoing, Protocol, Refused, Sink};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    codec,
    connection::{Connection, Parts},
    counters::Totals,
    deliver::outgoing_head,
    ending::shared,
    exchange::Exchange,
    handshake::{Admitted, Failed, overtaken, tell},
    journal::{Owner, Record, Ticket},
    message::{Carried, Message},
    packet::Connect,
    registry::{Claimed, drop_subscriptions},
    session::{Session, State, View, Will, clock_ms},
};

impl Admitted {
    pub(crate) async fn begin<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        mut io: S,
        rest: Vec<u8>,
        exchange: Arc<Exchange>,
    ) -> Result<Box<Connection<S>>, Failed> {
        let Admitted { connect, client, promised, mut ack, claimed, place } = self;
        let Claimed { session, mut state, claim } = claimed;
        let protocol = client.protocol;
        let is_current = || session.is_last_claim(claim);
        if !session.inbox.attach(client.connection, is_current) {
            // For the newer one, whatever time this client takes to read.
            drop(state);
            let failed = overtaken(protocol);
            tell(&mut io, &failed, client.maximum_packet_size, &exchange.totals).await;
            return Err(failed);
        }
        exchange.registry.serve(&session);
        let (present, ticket) = prepare(&session, &mut state, &connect, &client, &exchange);
        ack.session_present = present;
        let lasts = connect.session_expiry != 0;
        exchange.registry.settle(&session, lasts, place, &client.identity);
        *session.view.lock() = View { client: Some(client.clone()), since: Instant::now() };
        session.last_packet.store(clock_ms(), Ordering::Relaxed);
        session.hold(false);
        Totals::count(&exchange.totals.connects);

        let outbox = Outbox::new(Arc::new(SessionSink {
            session: session.clone(),
            connection: client.connection,
            protocol,
            maximum_packet_size: client.maximum_packet_size as usize,
        }));
        // [MQTT-3.2.2-22], and one and a half times of it [MQTT-3.1.2-22].
        let patience = u32::from(ack.server_keep_alive.unwrap_or(connect.keep_alive)) * 1_500;
        if patience > 0 {
            exchange.keep_alives.watch(&session, patience);
        }
        let mut connection = Box::new(Connection::new(Parts {
            io,
            slots: exchange.hooks.slots(),
            // [MQTT-4.9.0-1]
            window: client.receive_maximum.min(promised.inflight),
            promised,
            exchange,
            client,
            session,
            state,
            outbox,
            patience,
            topic_alias_maximum: connect.topic_alias_maximum,
            problem_information: connect.problem_information,
            bridge: connect.bridge,
            rest,
        }));
        // [MQTT-3.1.4-5], [MQTT-3.2.0-1], [MQTT-3.2.0-2]
        connection.greet(ticket, ack);
        connection.start_hooks();
        Ok(connection)
    }
}

/// Makes the session what this CONNECT asks for; `true` is session present. The client hears of
/// it when the record behind the ticket is in the log, where there is one.
fn prepare(
    session: &Session,
    state: &mut State,
    connect: &Connect,
    client: &Client,
    exchange: &Exchange,
) -> (bool, Option<Ticket>) {
    // The old connection's delayed will is due now, or void: a connection that goes on with
    // the session makes it void [MQTT-3.1.3-9].
    // [MQTT-3.1.2-4], [MQTT-3.1.2-5], [MQTT-3.1.2-6], [MQTT-3.1.4-4], [MQTT-3.2.2-2], [MQTT-3.2.2-3]
    let present = state.present && !connect.clean_start;
    if let Some(will) = state.will.take()
        && !present
    {
        state.behind.wait_for(exchange.publish_will(session, will));
    }
    if !present {
        let shared = shared(session, state);
        drop_subscriptions(session, &exchange.index);
        session.inbox.clear();
        // Of its last life only that is left which others still have to get.
        *state = State { behind: std::mem::take(&mut state.behind), ..State::default() };
        state.behind.wait_for(exchange.hand_on(session, shared));
    }
    state.present = true;
    state.expiry = match connect.session_expiry {
        u32::MAX => None,
        seconds => Some(Duration::from_secs(seconds.into())),
    };
    // [MQTT-3.1.2-7]; for 3.1.1 none in the place of an old one [MQTT311-3.1.2-12].
    state.will = connect.will.as_ref().map(|will| Will {
        delay: Duration::from_secs(will.delay_seconds.into()),
        message: Arc::new(Message {
            topic: will.topic.as_str().into(),
            payload: will.payload.clone().into(),
            qos: will.qos,
            retain: will.retain,
            properties: will.properties.clone().map(Carried::from),
            publisher: session.key,
            sequence: 0,
            expires: None,
        }),
    });
    (present, note_session(session, state, present, connect.session_expiry, client, exchange))
}

/// Writes down that a session begins, goes on, or is none any more that lasts.
fn note_session(
    session: &Session,
    state: &mut State,
    present: bool,
    expiry: u32,
    client: &Client,
    exchange: &Exchange,
) -> Option<Ticket> {
    let journal = exchange.journal.as_ref()?;
    let lasted = session.is_durable();
    let lasts = expiry != 0 || (lasted && present);
    session.set_durable(lasts);
    let key = session.key;
    let owner = Owner { identity: client.identity.clone(), protocol: client.protocol };
    let record = match (lasts, present && lasted) {
        (true, true) => Record::Resume { session: key, owner, expiry },
        (true, false) => {
            Record::Begin { session: key, client_id: session.client_id.clone(), owner, expiry }
        }
        (false, _) if lasted => Record::End { session: key },
        (false, _) => return None,
    };
    // Its will is a part of it (MQTT 5.0, 4.1).
    let will = state.will.as_ref().filter(|_| lasts);
    let will = will.map(|will| Record::Will { session: key, will: Some(Box::new(will.clone())) });
    // What was promised before goes on also while the disk is full.
    let goes_on = matches!(record, Record::Resume { .. });
    let bytes = record.cost() + will.as_ref().map_or(0, Record::cost);
    let (told, ticket) = Ticket::pair();
    state.behind.write(journal, &exchange.left, bytes, move |journal| {
        let last = match will {
            None => record,
            Some(will) => {
                journal.append(record);
                will
            }
        };
        if goes_on { journal.note(last, told) } else { journal.report(last, told) }
    });
    Some(ticket)
}

/// The plugin side of one connection's outbox.
struct SessionSink {
    session: Arc<Session>,
    connection: u64,
    protocol: Protocol,
    /// The client's, in bytes.
    maximum_packet_size: usize,
}

impl Sink for SessionSink {
    fn push(&self, message: Outgoing) -> Result<(), Refused> {
        // [MQTT-3.1.2-24]
        let len = codec::publish_len(self.protocol, &outgoing_head(&message, 1));
        if len > self.maximum_packet_size {
            return Err(Refused::TooLarge);
        }
        self.session.inbox.push_outgoing(self.connection, message)
    }

    fn pending_blocks(&self) -> usize {
        self.session.inbox.pending_blocks(self.connection)
    }

    fn is_open(&self) -> bool {
        self.session.inbox.serves(self.connection)
    }
}
