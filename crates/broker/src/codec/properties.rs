//! MQTT 5 properties (2.2.2): one reader for all packets, told which ones this packet may have.

use bytes::Bytes;
use hook::Properties;

use super::{CodecError, read};
use crate::{packet::reason, topic::check_name};

type Result<T> = std::result::Result<T, CodecError>;

/// Property identifiers, by the names of MQTT 5.0, 2.2.2.2.
pub(super) mod id {
    pub const PAYLOAD_FORMAT: u8 = 0x01;
    pub const MESSAGE_EXPIRY: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
    pub const SESSION_EXPIRY: u8 = 0x11;
    pub const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const AUTHENTICATION_METHOD: u8 = 0x15;
    pub const AUTHENTICATION_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM: u8 = 0x17;
    pub const WILL_DELAY: u8 = 0x18;
    pub const REQUEST_RESPONSE: u8 = 0x19;
    pub const REASON_STRING: u8 = 0x1f;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const USER_PROPERTY: u8 = 0x26;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
}

/// A set of property identifiers; all of them are below 64.
#[derive(Clone, Copy)]
pub(super) struct Set(u64);

impl Set {
    pub const fn of(ids: &[u8]) -> Self {
        let (mut bits, mut i) = (0, 0);
        while i < ids.len() {
            bits |= 1 << ids[i];
            i += 1;
        }
        Set(bits)
    }

    fn has(self, id: u8) -> bool {
        id < 64 && self.0 >> id & 1 == 1
    }
}

/// What a property block said. Numbers that were not there are `None`.
#[derive(Default)]
pub(super) struct Block {
    /// Those that travel with a message; `None` where there were none of them.
    pub message: Option<Box<Properties>>,
    pub user: Vec<(String, String)>,
    pub topic_alias: Option<u16>,
    pub subscription_identifier: Option<u32>,
    pub session_expiry: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub maximum_packet_size: Option<u32>,
    pub topic_alias_maximum: Option<u16>,
    pub will_delay: Option<u32>,
    pub request_problem: Option<bool>,
    pub authentication_method: bool,
    pub authentication_data: bool,
}

/// Reads a property length and that many bytes of properties.
pub(super) fn read(input: &mut &[u8], allowed: Set) -> Result<Block> {
    let len = read::variable(input)?;
    let mut rest = read::take(input, len as usize)?;
    let mut block = Block::default();
    let mut seen = 0u64;
    while let Some((&id, tail)) = rest.split_first() {
        rest = tail;
        if !allowed.has(id) {
            return Err(CodecError::malformed("a property that this packet does not have"));
        }
        if id != id::USER_PROPERTY && seen >> id & 1 == 1 {
            return Err(CodecError::protocol("a property stands twice"));
        }
        seen |= 1 << id;
        one(id, &mut rest, &mut block)?;
    }
    Ok(block)
}

fn one(id: u8, rest: &mut &[u8], block: &mut Block) -> Result<()> {
    match id {
        id::PAYLOAD_FORMAT => travelling(block).payload_is_utf8 = Some(flag(rest)?),
        id::MESSAGE_EXPIRY => travelling(block).expiry_seconds = Some(read::u32(rest)?),
        // [MQTT-3.3.2-19]
        id::CONTENT_TYPE => travelling(block).content_type = Some(read::text(rest)?.into()),
        id::RESPONSE_TOPIC => {
            // [MQTT-3.3.2-13]
            let topic = read::text(rest)?;
            // [MQTT-3.3.2-14]
            if check_name(topic).is_err() {
                return Err(CodecError::protocol("a response topic that is no topic name"));
            }
            travelling(block).response_topic = Some(topic.into());
        }
        id::CORRELATION_DATA => {
            travelling(block).correlation_data = Some(Bytes::copy_from_slice(read::binary(rest)?));
        }
        id::USER_PROPERTY => {
            // [MQTT-1.5.7-1]
            block.user.push((read::text(rest)?.into(), read::text(rest)?.into()));
        }
        id::TOPIC_ALIAS => match read::u16(rest)? {
            // [MQTT-3.3.2-8]
            0 => {
                let text = "topic alias 0";
                return Err(CodecError {
                    reason: reason::TOPIC_ALIAS_INVALID,
                    text,
                    protocol: None,
                });
            }
            alias => block.topic_alias = Some(alias),
        },
        id::SUBSCRIPTION_IDENTIFIER => match read::variable(rest)? {
            0 => return Err(CodecError::protocol("subscription identifier 0")),
            identifier => block.subscription_identifier = Some(identifier),
        },
        id::SESSION_EXPIRY => block.session_expiry = Some(read::u32(rest)?),
        id::RECEIVE_MAXIMUM => match read::u16(rest)? {
            0 => return Err(CodecError::protocol("Receive Maximum 0")),
            maximum => block.receive_maximum = Some(maximum),
        },
        id::MAXIMUM_PACKET_SIZE => match read::u32(rest)? {
            0 => return Err(CodecError::protocol("Maximum Packet Size 0")),
            size => block.maximum_packet_size = Some(size),
        },
        id::TOPIC_ALIAS_MAXIMUM => block.topic_alias_maximum = Some(read::u16(rest)?),
        id::WILL_DELAY => block.will_delay = Some(read::u32(rest)?),
        id::REQUEST_PROBLEM => block.request_problem = Some(flag(rest)?),
        id::REQUEST_RESPONSE => {
            flag(rest)?;
        }
        id::AUTHENTICATION_METHOD => {
            read::text(rest)?;
            block.authentication_method = true;
        }
        id::AUTHENTICATION_DATA => {
            read::binary(rest)?;
            block.authentication_data = true;
        }
        id::REASON_STRING => {
            read::text(rest)?;
        }
        _ => return Err(CodecError::malformed("a property that clients do not send")),
    }
    Ok(())
}

fn travelling(block: &mut Block) -> &mut Properties {
    block.message.get_or_insert_default()
}

fn flag(rest: &mut &[u8]) -> Result<bool> {
    match read::byte(rest)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(CodecError::protocol("a property is 0 or 1")),
    }
}

impl Block {
    /// The properties that travel on, user properties among them.
    pub fn into_message(mut self) -> Option<Box<Properties>> {
        if !self.user.is_empty() {
            let user = std::mem::take(&mut self.user);
            travelling(&mut self).user_properties = user;
        }
        self.message
    }
}
