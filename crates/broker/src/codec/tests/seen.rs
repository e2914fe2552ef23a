//! One PUBLISH, as three codecs see it.

use bytes::BytesMut;
use hook::{
    Properties,
    Protocol::{self, V5, V311},
};
use mqtt_proto::{QosPid, v3, v5};
use rumqttc::{mqttbytes::v4 as rumqttc3, v5::mqttbytes::v5 as rumqttc5};

use super::{MAX, first};
use crate::packet::Packet;

/// All that a PUBLISH says.
#[derive(Debug, PartialEq)]
pub struct Seen {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    pub topic: String,
    pub packet_id: u16,
    pub alias: Option<u16>,
    pub properties: Properties,
    pub subscriptions: Vec<usize>,
    pub payload: Vec<u8>,
}

pub fn by_rumqttc(bytes: &[u8], protocol: Protocol) -> Seen {
    let mut stream = BytesMut::from(bytes);
    let seen = match protocol {
        V311 => match rumqttc3::Packet::read(&mut stream, MAX).unwrap() {
            rumqttc3::Packet::Publish(p) => Seen {
                dup: p.dup,
                qos: p.qos as u8,
                retain: p.retain,
                topic: p.topic,
                packet_id: p.pkid,
                alias: None,
                properties: Properties::default(),
                subscriptions: Vec::new(),
                payload: p.payload.to_vec(),
            },
            other => panic!("{other:?}"),
        },
        V5 => match rumqttc5::Packet::read(&mut stream, Some(MAX as u32)).unwrap() {
            rumqttc5::Packet::Publish(p) => {
                let more = p.properties.unwrap_or_default();
                Seen {
                    dup: p.dup,
                    qos: p.qos as u8,
                    retain: p.retain,
                    topic: String::from_utf8(p.topic.to_vec()).unwrap(),
                    packet_id: p.pkid,
                    alias: more.topic_alias,
                    properties: Properties {
                        payload_is_utf8: more.payload_format_indicator.map(|utf8| utf8 == 1),
                        expiry_seconds: more.message_expiry_interval,
                        content_type: more.content_type,
                        response_topic: more.response_topic,
                        correlation_data: more.correlation_data,
                        user_properties: more.user_properties,
                    },
                    subscriptions: more.subscription_identifiers,
                    payload: p.payload.to_vec(),
                }
            }
            other => panic!("{other:?}"),
        },
    };
    assert!(stream.is_empty());
    seen
}

/// `mqtt-proto` keeps one subscription identifier only.
pub fn by_mqtt_proto(bytes: &[u8], protocol: Protocol) -> Seen {
    let of = |qos_pid: QosPid| (qos_pid.qos() as u8, qos_pid.pid().map_or(0, |pid| pid.value()));
    match protocol {
        V311 => match v3::Packet::decode(bytes) {
            Ok(Some(v3::Packet::Publish(p))) => Seen {
                dup: p.dup,
                qos: of(p.qos_pid).0,
                retain: p.retain,
                topic: p.topic_name.to_string(),
                packet_id: of(p.qos_pid).1,
                alias: None,
                properties: Properties::default(),
                subscriptions: Vec::new(),
                payload: p.payload.to_vec(),
            },
            other => panic!("{other:?}"),
        },
        V5 => match v5::Packet::decode(bytes) {
            Ok(Some(v5::Packet::Publish(p))) => Seen {
                dup: p.dup,
                qos: of(p.qos_pid).0,
                retain: p.retain,
                topic: p.topic_name.to_string(),
                packet_id: of(p.qos_pid).1,
                alias: p.properties.topic_alias,
                properties: Properties {
                    payload_is_utf8: p.properties.payload_is_utf8,
                    expiry_seconds: p.properties.message_expiry_interval,
                    content_type: p.properties.content_type.map(|text| text.to_string()),
                    response_topic: p.properties.response_topic.map(|topic| topic.to_string()),
                    correlation_data: p.properties.correlation_data,
                    user_properties: p
                        .properties
                        .user_properties
                        .iter()
                        .map(|pair| (pair.name.to_string(), pair.value.to_string()))
                        .collect(),
                },
                subscriptions: p
                    .properties
                    .subscription_id
                    .iter()
                    .map(|id| id.value() as usize)
                    .collect(),
                payload: p.payload.to_vec(),
            },
            other => panic!("{other:?}"),
        },
    }
}

pub fn by_us(bytes: &[u8], protocol: Protocol) -> Seen {
    match first(bytes, protocol) {
        Ok((Packet::Publish(p), _)) => Seen {
            dup: p.dup,
            qos: p.qos as u8,
            retain: p.retain,
            topic: p.topic.to_owned(),
            packet_id: p.packet_id,
            alias: p.alias,
            properties: p.properties.map(|properties| *properties).unwrap_or_default(),
            subscriptions: Vec::new(),
            payload: p.payload.to_vec(),
        },
        other => panic!("{other:?}"),
    }
}
