//! A plugin that logs who comes and goes, and what they published in between.
//!
//! It knows nothing of firmware: it lives on the same [`Hook`] as the updates do, keeps its
//! counts in its own [`Slot`](hook::Slot) and never changes a verdict. `log.clients = true` turns it on;
//! it looks at every publish, so it costs a virtual call a message.

use std::time::Instant;

use hook::{Context, Hook, Publish, PublishVerdict, SessionEnd, Subscription};
use tracing::info;

/// The plugin. It has no state of its own: a connection's counts are in the connection's slot.
#[derive(Debug, Default)]
pub struct ClientLog;

/// What one connection did so far.
#[derive(Debug)]
struct Counts {
    since: Instant,
    /// Live publishes, the consumed ones included.
    publishes: u64,
    /// Bytes of their payloads.
    bytes: u64,
}

impl Hook for ClientLog {
    fn name(&self) -> &'static str {
        "client-log"
    }

    fn session_start(&self, context: Context<'_>, subscriptions: &[Subscription]) {
        let client = context.client;
        info!(
            client = %client.id,
            address = client.address.map(tracing::field::display),
            protocol = client.protocol.as_str(),
            identity = client.identity.name.as_deref(),
            role = ?client.identity.role,
            resumed_subscriptions = subscriptions.len(),
            "client connected"
        );
        context.slot.set(Counts { since: Instant::now(), publishes: 0, bytes: 0 });
    }

    fn wants(&self, _topic: &str) -> bool {
        true
    }

    fn publish(&self, context: Context<'_>, publish: &Publish<'_>) -> PublishVerdict {
        // A will is published for a client that is gone: it has no slot to count in.
        if let Some(counts) = context.slot.get_mut::<Counts>() {
            counts.publishes += 1;
            counts.bytes += publish.payload.len() as u64;
        }
        PublishVerdict::Continue
    }

    fn session_end(&self, context: Context<'_>, end: SessionEnd) {
        let Some(counts) = context.slot.take::<Counts>() else { return };
        info!(
            client = %context.client.id,
            reason = reason(end),
            seconds = counts.since.elapsed().as_secs(),
            publishes = counts.publishes,
            bytes = counts.bytes,
            "client disconnected"
        );
    }
}

fn reason(end: SessionEnd) -> &'static str {
    match end {
        SessionEnd::ClientLeft => "the client left",
        SessionEnd::ConnectionLost => "the connection was lost",
        SessionEnd::KeepAliveTimeout => "nothing was heard for one and a half keep alives",
        SessionEnd::TakenOver => "the same client id connected again",
        SessionEnd::ProtocolError => "the client broke the protocol",
        SessionEnd::Kicked => "the broker ended it",
        SessionEnd::Shutdown => "the broker stops",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hook::{Client, Identity, Origin, Outbox, Outgoing, Protocol, Qos, Refused, Sink, Slot};
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    struct NoSink;
    impl Sink for NoSink {
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

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn client() -> Arc<Client> {
        Arc::new(Client {
            connection: 1,
            id: "pump-1".into(),
            assigned_id: false,
            identity: Identity::ANONYMOUS,
            username: Some("a-token-that-nobody-may-see".into()),
            protocol: Protocol::V5,
            address: None,
            maximum_packet_size: u32::MAX,
            receive_maximum: 65_535,
            user_properties: Box::default(),
        })
    }

    #[test]
    fn counts_one_connection_and_logs_it_once() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let (client, outbox, mut slot) = (client(), Outbox::new(Arc::new(NoSink)), Slot::default());
        let plugin = ClientLog;
        tracing::subscriber::with_default(subscriber, || {
            plugin
                .session_start(Context { client: &client, outbox: &outbox, slot: &mut slot }, &[]);
            for payload in [&b"12345"[..], b"123"] {
                let publish = Publish {
                    topic: "any/topic",
                    payload,
                    qos: Qos::AtMostOnce,
                    retain: false,
                    origin: Origin::Live,
                    properties: None,
                };
                assert!(plugin.wants(publish.topic));
                let context = Context { client: &client, outbox: &outbox, slot: &mut slot };
                assert_eq!(plugin.publish(context, &publish), PublishVerdict::Continue);
            }
            // The second time, nothing is left to log.
            for end in [SessionEnd::KeepAliveTimeout, SessionEnd::Shutdown] {
                plugin.session_end(
                    Context { client: &client, outbox: &outbox, slot: &mut slot },
                    end,
                );
            }
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("client connected").count(), 1, "{text}");
        assert_eq!(text.matches("client disconnected").count(), 1, "{text}");
        assert!(text.contains("publishes=2 bytes=8"), "{text}");
        assert!(text.contains("nothing was heard"), "{text}");
        assert!(!text.contains("a-token"), "a user name may be a token: {text}");
    }

    #[test]
    fn a_publish_without_a_session_is_let_through() {
        let (client, outbox, mut slot) = (client(), Outbox::new(Arc::new(NoSink)), Slot::default());
        let will = Publish {
            topic: "last/words",
            payload: b"bye",
            qos: Qos::AtLeastOnce,
            retain: false,
            origin: Origin::Will,
            properties: None,
        };
        let context = Context { client: &client, outbox: &outbox, slot: &mut slot };
        assert_eq!(ClientLog.publish(context, &will), PublishVerdict::Continue);
    }
}
