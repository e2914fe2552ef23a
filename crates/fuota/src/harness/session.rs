//! One connection of a device to a [`Site`](super::Site): what it says, and what it hears.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use hook::{
    Access, Client, Context, Hook, Origin, Outbox, Outgoing, Publish, PublishVerdict, Qos, Refused,
    SessionEnd, Sink, Slot, SubscribeVerdict, Subscription,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{PATIENCE, TOPIC};

pub struct FakeSink {
    pub(super) sender: mpsc::UnboundedSender<Outgoing>,
    pub room: AtomicUsize,
    pub(super) open: AtomicBool,
}

impl Sink for FakeSink {
    fn push(&self, message: Outgoing) -> Result<(), Refused> {
        if !self.open.load(Ordering::Relaxed) {
            return Err(Refused::Closed);
        }
        let room = self
            .room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(1));
        room.map_err(|_| Refused::Full)?;
        self.sender.send(message).map_err(|_| Refused::Closed)
    }
    fn pending_blocks(&self) -> usize {
        0
    }
    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }
}

pub struct Session {
    pub(super) hook: Arc<dyn Hook>,
    pub client: Arc<Client>,
    pub(super) outbox: Outbox,
    pub(super) slot: Slot,
    pub sink: Arc<FakeSink>,
    pub(super) receiver: mpsc::UnboundedReceiver<Outgoing>,
}

impl Session {
    pub(super) fn context(&mut self) -> Context<'_> {
        Context { client: &self.client, outbox: &self.outbox, slot: &mut self.slot }
    }

    pub fn subscribe(&mut self, filter: &str) -> SubscribeVerdict {
        let subscription = Subscription { filter: filter.into(), qos: Qos::AtMostOnce };
        let hook = Arc::clone(&self.hook);
        hook.subscribe(self.context(), &subscription)
    }

    pub fn publish(&mut self, payload: impl AsRef<[u8]>) -> PublishVerdict {
        self.publish_to(TOPIC, payload, Origin::Live)
    }

    pub fn publish_to(
        &mut self,
        topic: &str,
        payload: impl AsRef<[u8]>,
        origin: Origin,
    ) -> PublishVerdict {
        let hook = Arc::clone(&self.hook);
        if !hook.wants(topic) {
            return PublishVerdict::Continue;
        }
        let payload = payload.as_ref();
        let publish = Publish {
            topic,
            payload,
            qos: Qos::AtMostOnce,
            retain: false,
            origin,
            properties: None,
        };
        hook.publish(self.context(), &publish)
    }

    pub fn may_publish(&self, topic: &str) -> bool {
        self.hook.authorize_publish(&self.client, topic) == Access::Continue
    }

    pub fn may_subscribe(&self, filter: &str) -> bool {
        self.hook.authorize_subscribe(&self.client, filter) == Access::Continue
    }

    pub fn ask(&mut self, index: u32) {
        let request = json!({"variable": "firmware_request", "value": index, "unit": "index"});
        assert_eq!(self.publish(request.to_string()), PublishVerdict::Consume);
    }

    /// The next message, not yet told to be written.
    pub async fn unwritten(&mut self) -> Outgoing {
        tokio::time::timeout(PATIENCE, self.receiver.recv())
            .await
            .expect("a message")
            .expect("open")
    }

    /// The next message, which is then told to be written.
    pub async fn next(&mut self) -> Value {
        let message = self.unwritten().await;
        assert_eq!(&*message.topic, TOPIC);
        if let Some((receipt, tag)) = message.receipt {
            receipt.written(tag);
        }
        serde_json::from_slice(&message.payload.to_bytes()).unwrap()
    }

    pub async fn manifest(&mut self) -> Value {
        let message = self.next().await;
        assert_eq!(message["variable"], "firmware_manifest", "{message}");
        message["metadata"].clone()
    }

    pub async fn block(&mut self) -> (u32, Vec<u8>) {
        let message = self.next().await;
        assert_eq!(message["variable"], "firmware_block", "{message}");
        let data = base64_simd::STANDARD
            .decode_to_vec(message["metadata"]["data"].as_str().unwrap())
            .unwrap();
        assert_eq!(message["metadata"]["size"], data.len());
        (message["value"].as_u64().unwrap() as u32, data)
    }

    pub async fn error(&mut self) -> String {
        let message = self.next().await;
        assert_eq!(message["variable"], "fuota_error", "{message}");
        message["value"].as_str().unwrap().into()
    }

    /// What was sent is written, and does not arrive.
    pub fn lose(&mut self) {
        while let Ok(message) = self.receiver.try_recv() {
            if let Some((receipt, tag)) = message.receipt {
                receipt.written(tag);
            }
        }
    }

    /// Whether nothing waits to be read.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Nothing has been sent: what is in the cache and what is refused is answered at once.
    #[track_caller]
    pub fn nothing(&mut self) {
        if let Ok(message) = self.receiver.try_recv() {
            panic!("{}", String::from_utf8_lossy(&message.payload.to_bytes()));
        }
    }

    /// Asks for one block after the other, from this one to the end.
    pub async fn download(&mut self, from: u32, total: u32) -> Vec<u8> {
        let mut image = Vec::new();
        for index in from..total {
            self.ask(index);
            let (got, data) = self.block().await;
            assert_eq!(got, index);
            image.extend(data);
        }
        image
    }

    pub fn end(mut self) {
        self.sink.open.store(false, Ordering::Relaxed);
        let hook = Arc::clone(&self.hook);
        hook.session_end(self.context(), SessionEnd::ConnectionLost);
    }
}
