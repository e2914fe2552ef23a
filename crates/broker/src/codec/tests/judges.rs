//! Two libraries judge: `rumqttc`, which reads what we write as devices do, and `mqtt-proto`,
//! which of five libraries refuses most of what MQTT forbids, in both directions.

use bytes::{Bytes, BytesMut};
use hook::{
    Properties,
    Protocol::{self, V5, V311},
    Qos,
};
use mqtt_proto::{v3, v5};
use proptest::{collection::vec, option, prelude::*};
use rumqttc::{mqttbytes::v4 as rumqttc3, v5::mqttbytes::v5 as rumqttc5};

use super::{
    MAX, first,
    framing::{damaged, protocol},
    seen::{self, Seen},
    topics_hold,
};
use crate::{
    codec::{
        AckKind, PublishHead, ack, connack, disconnect, publish_head, publish_len, suback, unsuback,
    },
    packet::{ConnAck, Packet, SubscribeFilter},
};

fn name() -> impl Strategy<Value = String> {
    "[a-z/\u{e9}\u{20ac} $]{1,40}|[a-z]{120,140}"
}

fn text() -> impl Strategy<Value = String> {
    "[a-z\u{e9}\u{20ac}+# ]{0,20}|[a-z]{120,140}"
}

prop_compose! {
    fn properties()(
        payload_is_utf8 in any::<Option<bool>>(),
        expiry_seconds in any::<Option<u32>>(),
        content_type in option::of(text()),
        response_topic in option::of(name()),
        correlation_data in option::of(vec(any::<u8>(), 0..20)),
        user_properties in vec((text(), text()), 0..4),
    ) -> Properties {
        Properties {
            payload_is_utf8,
            expiry_seconds,
            content_type,
            response_topic,
            correlation_data: correlation_data.map(Bytes::from),
            user_properties,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn all_read_the_publish_that_we_write(
        protocol in protocol(),
        (dup, qos, retain) in (any::<bool>(), 0..3u8, any::<bool>()),
        topic in name(),
        packet_id in 1..=u16::MAX,
        alias in option::of(1..=u16::MAX),
        properties in option::of(properties()),
        expiry_left in any::<Option<u32>>(),
        subscriptions in vec(1..=268_435_455u32, 0..3),
        mut payload in vec(any::<u8>(), 0..300),
    ) {
        if properties.as_ref().is_some_and(|properties| properties.payload_is_utf8 == Some(true)) {
            // mqtt-proto looks into the payload.
            payload.iter_mut().for_each(|byte| *byte &= 0x7f);
        }
        let qos = Qos::from_bits(qos).unwrap();
        let head = PublishHead {
            dup: dup && qos != Qos::AtMostOnce,
            qos,
            retain,
            topic: &topic,
            packet_id,
            alias,
            properties: properties.as_ref(),
            expiry_left,
            subscriptions: &subscriptions,
            payload_len: payload.len(),
        };
        let write = |head: &PublishHead<'_>| {
            let mut out = BytesMut::new();
            publish_head(&mut out, protocol, head);
            out.extend_from_slice(&payload);
            assert_eq!(out.len(), publish_len(protocol, head));
            out
        };
        let v5 = protocol == V5;
        let mut travelling = properties.clone().unwrap_or_default();
        travelling.expiry_seconds = expiry_left.or(travelling.expiry_seconds);
        let mut expected = Seen {
            dup: head.dup,
            qos: qos as u8,
            retain,
            topic: topic.clone(),
            packet_id: if qos == Qos::AtMostOnce { 0 } else { packet_id },
            alias: alias.filter(|_| v5),
            properties: if v5 { travelling } else { Properties::default() },
            subscriptions: subscriptions.iter().filter(|_| v5).map(|id| *id as usize).collect(),
            payload: payload.clone(),
        };
        // rumqttc loses its place where three short identifiers stand.
        prop_assert_eq!(&seen::by_rumqttc(&write(&head), protocol), &expected);

        // A client never sends identifiers, and mqtt-proto takes one at most.
        let plain = write(&PublishHead { subscriptions: &[], ..head });
        expected.subscriptions.clear();
        prop_assert_eq!(&seen::by_mqtt_proto(&plain, protocol), &expected);
        prop_assert_eq!(&seen::by_us(&plain, protocol), &expected);
    }

    #[test]
    fn both_read_the_connack_that_we_write(
        (session_present, accepted) in any::<(bool, bool)>(),
        reason_string in option::of(text()),
        assigned_client_id in option::of(text()),
        receive_maximum in 1..=u16::MAX,
        maximum_packet_size in 1..=u32::MAX,
        topic_alias_maximum in 1..=u16::MAX,
        (session_expiry, server_keep_alive) in any::<(Option<u32>, Option<u16>)>(),
    ) {
        let reply = ConnAck {
            session_present,
            reason: if accepted { 0 } else { 0x87 },
            reason_string,
            assigned_client_id,
            receive_maximum,
            maximum_packet_size,
            topic_alias_maximum,
            session_expiry,
            server_keep_alive,
        };
        let mut out = BytesMut::new();
        connack(&mut out, V5, &reply);
        judged(&out);
        let rumqttc5::Packet::ConnAck(seen) = read5(&out) else { panic!("{out:02x?}") };
        prop_assert_eq!(seen.session_present, session_present && accepted);
        prop_assert_eq!(seen.code == rumqttc5::ConnectReturnCode::Success, accepted);
        match seen.properties {
            Some(seen) => {
                prop_assert_eq!(seen.reason_string, reply.reason_string);
                if accepted {
                    prop_assert_eq!(seen.assigned_client_identifier, reply.assigned_client_id);
                    prop_assert_eq!(seen.receive_max, Some(receive_maximum));
                    prop_assert_eq!(seen.server_keep_alive, server_keep_alive);
                    prop_assert_eq!(seen.max_packet_size, Some(maximum_packet_size));
                    prop_assert_eq!(seen.topic_alias_max, Some(topic_alias_maximum));
                    prop_assert_eq!(seen.session_expiry_interval, session_expiry);
                }
            }
            None => prop_assert!(!accepted && reply.reason_string.is_none()),
        }
    }

    #[test]
    fn both_read_the_acknowledgements_that_we_write(
        packet_id in 1..=u16::MAX,
        reason in prop_oneof![Just(0u8), Just(0x10), Just(0x80), Just(0x97)],
        text in option::of(text()),
    ) {
        let written = |kind, reason| {
            let mut out = BytesMut::new();
            ack(&mut out, V5, kind, packet_id, reason, text.as_deref());
            judged(&out);
            read5(&out)
        };
        let rumqttc5::Packet::PubAck(seen) = written(AckKind::PubAck, reason) else { panic!() };
        prop_assert_eq!((seen.pkid, seen.reason as u8 == 0), (packet_id, reason == 0));
        prop_assert_eq!(seen.properties.and_then(|p| p.reason_string), text.clone());
        let rumqttc5::Packet::PubRec(seen) = written(AckKind::PubRec, reason) else { panic!() };
        prop_assert_eq!(seen.pkid, packet_id);
        let rumqttc5::Packet::PubRel(seen) = written(AckKind::PubRel, 0x92) else { panic!() };
        prop_assert_eq!(seen.pkid, packet_id);
        let rumqttc5::Packet::PubComp(seen) = written(AckKind::PubComp, 0) else { panic!() };
        prop_assert_eq!(seen.pkid, packet_id);

        let mut out = BytesMut::new();
        disconnect(&mut out, 0x8e, text.as_deref());
        judged(&out);
        let rumqttc5::Packet::Disconnect(seen) = read5(&out) else { panic!() };
        prop_assert_eq!(seen.reason_code, rumqttc5::DisconnectReasonCode::SessionTakenOver);
        prop_assert_eq!(seen.properties.and_then(|p| p.reason_string), text);
    }

    #[test]
    fn both_read_the_answers_to_subscriptions_that_we_write(
        packet_id in 1..=u16::MAX,
        codes in vec(prop_oneof![Just(0u8), Just(1), Just(2), Just(0x87), Just(0x8f)], 1..200),
    ) {
        let written = |protocol| {
            let mut out = BytesMut::new();
            suback(&mut out, protocol, packet_id, &codes);
            out
        };
        judged(&written(V5));
        let rumqttc5::Packet::SubAck(new) = read5(&written(V5)) else { panic!() };
        let rumqttc3::Packet::SubAck(old) = read3(&written(V311)) else { panic!() };
        prop_assert_eq!((new.pkid, old.pkid), (packet_id, packet_id));
        prop_assert_eq!(new.return_codes.len(), codes.len());
        prop_assert_eq!(old.return_codes.len(), codes.len());
        for ((new, old), code) in new.return_codes.iter().zip(&old.return_codes).zip(&codes) {
            let refused = *code >= 0x80;
            prop_assert_eq!(*old == rumqttc3::SubscribeReasonCode::Failure, refused);
            prop_assert_eq!(!matches!(new, rumqttc5::SubscribeReasonCode::Success(_)), refused);
            if let rumqttc5::SubscribeReasonCode::Success(qos) = new {
                prop_assert_eq!(*qos as u8, *code);
            }
        }

        let codes: Vec<u8> = codes.iter().map(|code| if *code == 2 { 0x11 } else { code & 0x80 }).collect();
        let mut out = BytesMut::new();
        unsuback(&mut out, V5, packet_id, &codes);
        judged(&out);
        let rumqttc5::Packet::UnsubAck(seen) = read5(&out) else { panic!() };
        prop_assert_eq!((seen.pkid, seen.reasons.len()), (packet_id, codes.len()));
        let mut out = BytesMut::new();
        unsuback(&mut out, V311, packet_id, &codes);
        let rumqttc3::Packet::UnsubAck(seen) = read3(&out) else { panic!() };
        prop_assert_eq!(seen.pkid, packet_id);
    }
}

fn read3(bytes: &[u8]) -> rumqttc3::Packet {
    let mut stream = BytesMut::from(bytes);
    let packet = rumqttc3::Packet::read(&mut stream, MAX).unwrap();
    assert!(stream.is_empty());
    packet
}

fn read5(bytes: &[u8]) -> rumqttc5::Packet {
    let mut stream = BytesMut::from(bytes);
    let packet = rumqttc5::Packet::read(&mut stream, Some(MAX as u32)).unwrap();
    assert!(stream.is_empty());
    packet
}

/// `mqtt-proto` reads it, and nothing gets lost when it writes that again. It leaves out a
/// property length of 0 where it may.
fn judged(bytes: &[u8]) {
    let packet = v5::Packet::decode(bytes).unwrap().unwrap();
    let again = packet.encode().unwrap();
    assert!(again.as_ref().len() == bytes.len() || bytes[bytes.len() - 1] == 0);
    assert_eq!(v5::Packet::decode(again.as_ref()).unwrap(), Some(packet));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16384))]

    #[test]
    fn what_we_take_mqtt_proto_takes_too((protocol, bytes) in damaged()) {
        let Ok((ours, _)) = first(&bytes, protocol) else { return Ok(()) };
        if !topics_hold(&ours) || !payload_holds(&ours) || is_bridge(&ours) {
            return Ok(());
        }
        agree(&ours, &bytes, protocol)?;
    }
}

/// A server may look whether a payload is the text that it is said to be (MQTT 5.0, 3.3.2.3.2).
/// `mqtt-proto` does; we do not, for it costs a walk over each payload.
fn payload_holds(packet: &Packet<'_>) -> bool {
    let holds = |properties: Option<&Properties>, payload: &[u8]| {
        properties.and_then(|properties| properties.payload_is_utf8) != Some(true)
            || std::str::from_utf8(payload).is_ok()
    };
    match packet {
        Packet::Publish(publish) => holds(publish.properties.as_deref(), publish.payload),
        Packet::Connect(connect) => connect
            .will
            .as_ref()
            .is_none_or(|will| holds(will.properties.as_deref(), &will.payload)),
        _ => true,
    }
}

/// The level of `mosquitto`'s bridges is in no standard.
fn is_bridge(packet: &Packet<'_>) -> bool {
    matches!(packet, Packet::Connect(connect) if connect.bridge)
}

/// `mqtt-proto` takes the packet, and reads the same from it.
fn agree(ours: &Packet<'_>, bytes: &[u8], protocol: Protocol) -> Result<(), TestCaseError> {
    let qos = |qos: mqtt_proto::QoS| qos as u8;
    let protocol = if let Packet::Connect(connect) = ours { connect.protocol } else { protocol };
    let refused = |why: String| TestCaseError::fail(format!("{ours:?}: {why}"));
    let (old, new) = match protocol {
        V311 => (v3::Packet::decode(bytes).map_err(|e| refused(format!("{e:?}")))?, None),
        V5 => (None, v5::Packet::decode(bytes).map_err(|e| refused(format!("{e:?}")))?),
    };
    if old.is_none() && new.is_none() {
        return Err(refused("it waits for more".into()));
    }
    match (ours, old, new) {
        (Packet::Publish(_), ..) => {
            prop_assert_eq!(seen::by_us(bytes, protocol), seen::by_mqtt_proto(bytes, protocol));
        }
        (Packet::Connect(a), Some(v3::Packet::Connect(b)), _) => {
            prop_assert_eq!(&a.client_id, &*b.client_id);
            prop_assert_eq!((a.clean_start, a.keep_alive), (b.clean_session, b.keep_alive));
            prop_assert_eq!(a.username.as_deref(), b.username.as_deref());
            prop_assert_eq!(a.password.as_deref(), b.password.as_deref());
            let ours = a.will.as_ref().map(|w| (&*w.topic, &*w.payload, w.qos as u8, w.retain));
            let will = b.last_will.as_ref();
            let theirs = will.map(|w| (&*w.topic_name, &*w.message, qos(w.qos), w.retain));
            prop_assert_eq!(ours, theirs);
        }
        (Packet::Connect(a), _, Some(v5::Packet::Connect(b))) => {
            prop_assert_eq!(&a.client_id, &*b.client_id);
            prop_assert_eq!((a.clean_start, a.keep_alive), (b.clean_start, b.keep_alive));
            prop_assert_eq!(a.username.as_deref(), b.username.as_deref());
            prop_assert_eq!(a.password.as_deref(), b.password.as_deref());
            let p = &b.properties;
            prop_assert_eq!(a.session_expiry, p.session_expiry_interval.unwrap_or(0));
            prop_assert_eq!(a.receive_maximum, p.receive_max.unwrap_or(u16::MAX));
            prop_assert_eq!(a.maximum_packet_size, p.max_packet_size.unwrap_or(u32::MAX));
            prop_assert_eq!(a.topic_alias_maximum, p.topic_alias_max.unwrap_or(0));
            prop_assert_eq!(a.problem_information, p.request_problem_info.unwrap_or(true));
            prop_assert_eq!(a.enhanced_authentication, p.auth_method.is_some());
            prop_assert_eq!(a.user_properties.len(), p.user_properties.len());
            let ours = a.will.as_ref().map(|w| (&*w.topic, &*w.payload, w.qos as u8, w.retain));
            let will = b.last_will.as_ref();
            let theirs = will.map(|w| (&*w.topic_name, &*w.payload, qos(w.qos), w.retain));
            prop_assert_eq!(ours, theirs);
        }
        (Packet::Subscribe(a), Some(v3::Packet::Subscribe(b)), _) => {
            prop_assert_eq!(a.packet_id, b.pid.value());
            let ours: Vec<_> = a.filters.iter().map(|f| (&*f.filter, f.qos as u8)).collect();
            let theirs: Vec<_> = b.topics.iter().map(|(f, q)| (&**f, qos(*q))).collect();
            prop_assert_eq!(ours, theirs);
        }
        (Packet::Subscribe(a), _, Some(v5::Packet::Subscribe(b))) => {
            prop_assert_eq!(a.packet_id, b.pid.value());
            prop_assert_eq!(a.identifier, b.properties.subscription_id.map(|id| id.value()));
            let options = |f: &SubscribeFilter| {
                let kept = u8::from(f.retain_as_published) << 3 | (f.retain_handling as u8) << 4;
                f.qos as u8 | u8::from(f.no_local) << 2 | kept
            };
            let ours: Vec<_> = a.filters.iter().map(|f| (&*f.filter, options(f))).collect();
            let theirs: Vec<_> = b.topics.iter().map(|(f, o)| (&**f, o.to_u8())).collect();
            prop_assert_eq!(ours, theirs);
        }
        (Packet::Unsubscribe(a), Some(v3::Packet::Unsubscribe(b)), _) => {
            prop_assert_eq!(a.packet_id, b.pid.value());
            let theirs: Vec<_> = b.topics.iter().map(|f| f.to_string()).collect();
            prop_assert_eq!(&a.filters, &theirs);
        }
        (Packet::Unsubscribe(a), _, Some(v5::Packet::Unsubscribe(b))) => {
            prop_assert_eq!(a.packet_id, b.pid.value());
            let theirs: Vec<_> = b.topics.iter().map(|f| f.to_string()).collect();
            prop_assert_eq!(&a.filters, &theirs);
        }
        (Packet::Disconnect(a), _, Some(v5::Packet::Disconnect(b))) => {
            prop_assert_eq!(a.reason, b.reason_code as u8);
            prop_assert_eq!(a.session_expiry, b.properties.session_expiry_interval);
        }
        // The four acknowledgements, PINGREQ, AUTH: that both take them is all there is to compare.
        _ => {}
    }
    Ok(())
}
