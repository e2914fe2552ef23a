//! The blob that travels with a parcel through the router: what the message is, and for whom.
//! The router does not read it, so nothing in it can harm the router.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hook::{Protocol, Qos};
use std::sync::Arc;

use crate::{
    codec::{self, PublishHead},
    index::Receiver,
    message::{Carried, Message},
    packet::Packet,
    router::Parcel,
};

/// The blob of a parcel: an MQTT 5 PUBLISH head (real topic, properties), what else the message
/// is, and then each receiver: session key and epoch, RETAIN flag, subscription identifiers.
pub(crate) fn encode<'a>(
    message: &Message,
    receivers: impl Iterator<Item = &'a Receiver>,
    count: usize,
) -> Bytes {
    let mut head = BytesMut::with_capacity(64 + message.topic.len());
    let publish = PublishHead {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: message.retain,
        topic: &message.topic,
        packet_id: 0,
        alias: None,
        properties: message.properties.as_deref(),
        expiry_left: message.seconds_left(),
        subscriptions: &[],
        payload_len: 0,
    };
    codec::publish_head(&mut head, Protocol::V5, &publish);
    let mut blob = BytesMut::with_capacity(4 + head.len() + 17 + 14 * count);
    blob.put_u32(head.len() as u32);
    blob.put_slice(&head);
    blob.put_u64(message.publisher);
    blob.put_u64(message.sequence);
    blob.put_u8(message.qos as u8);
    for receiver in receivers {
        blob.put_u64(receiver.session.key);
        blob.put_u32(receiver.epoch);
        blob.put_u8(u8::from(message.retain && receiver.retain_as_published));
        let identifiers = receiver.identifiers.as_deref().unwrap_or_default();
        // A session has far fewer filters on one topic; more would only lose identifiers.
        let identifiers = &identifiers[..identifiers.len().min(255)];
        blob.put_u8(identifiers.len() as u8);
        identifiers.iter().for_each(|id| blob.put_u32(*id));
    }
    blob.freeze()
}

/// One receiver, as a blob names it.
pub(crate) struct Named {
    /// Key of its session.
    pub key: u64,
    /// See [`Receiver::epoch`].
    pub epoch: u32,
    /// The RETAIN flag that it sees.
    pub retain: bool,
    /// Identifiers of its filters that matched.
    pub subscriptions: Option<Arc<[u32]>>,
}

/// The receivers that a blob names, one after the other.
pub(crate) struct Receivers(Bytes);

impl Receivers {
    /// The next one.
    pub fn next(&mut self) -> Option<Named> {
        let key = self.0.try_get_u64().ok()?;
        let epoch = self.0.try_get_u32().ok()?;
        let retain = self.0.try_get_u8().ok()? != 0;
        let count = self.0.try_get_u8().ok()?;
        let ids: Arc<[u32]> = (0..count).map_while(|_| self.0.try_get_u32().ok()).collect();
        let subscriptions = (!ids.is_empty()).then_some(ids);
        Some(Named { key, epoch, retain, subscriptions })
    }
}

/// A parcel as it was sent; `None` would be an error of our own.
pub(crate) fn decode(parcel: Parcel) -> Option<(Arc<Message>, Receivers)> {
    let mut blob = parcel.blob;
    let len = blob.try_get_u32().ok()? as usize;
    if blob.len() < len {
        return None;
    }
    let head = blob.split_to(len);
    let Ok(Packet::Publish(publish)) = codec::decode(&head, Protocol::V5) else { return None };
    let publisher = blob.try_get_u64().ok()?;
    let sequence = blob.try_get_u64().ok()?;
    let qos = Qos::from_bits(blob.try_get_u8().ok()?)?;
    let message = Message {
        topic: publish.topic.into(),
        payload: parcel.payload,
        qos,
        retain: publish.retain,
        expires: Message::expiry(publish.properties.as_deref()),
        properties: publish.properties.map(Carried::from),
        publisher,
        sequence,
    };
    Some((Arc::new(message), Receivers(blob)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Session;

    fn message() -> Message {
        Message {
            topic: "é/x".into(),
            payload: Bytes::from_static(b"payload"),
            qos: Qos::AtMostOnce,
            retain: true,
            properties: Some(Carried::from(Box::new(hook::Properties {
                content_type: Some("text/plain".into()),
                user_properties: vec![("a".into(), "b".into())],
                ..hook::Properties::default()
            }))),
            publisher: 77,
            sequence: 5,
            expires: None,
        }
    }

    fn receiver(session: &Arc<Session>) -> Receiver {
        Receiver {
            session: session.clone(),
            qos: Qos::AtMostOnce,
            retain_as_published: true,
            identifiers: Some(Arc::from([3, 4])),
            epoch: 5,
            share: None,
        }
    }

    #[test]
    fn a_blob_says_all_that_the_message_was() {
        let (a, b) = (Session::for_test(1), Session::for_test(2));
        let receivers = [receiver(&a), receiver(&b)];
        let original = message();
        let blob = encode(&original, receivers.iter(), 2);
        let parcel = Parcel { payload: original.payload.clone(), blob };
        let (copy, mut named) = decode(parcel).unwrap();
        assert_eq!(
            (&*copy.topic, copy.publisher, copy.sequence, copy.retain),
            ("é/x", 77, 5, true)
        );
        assert_eq!(copy.properties, original.properties);
        for key in [1, 2] {
            let Named { key: found, epoch, retain, subscriptions: ids } = named.next().unwrap();
            assert_eq!((found, epoch), (key, 5));
            assert_eq!((retain, ids.as_deref()), (true, Some(&[3, 4][..])));
        }
        assert!(named.next().is_none());
    }
}
