//! Which of the dialects a device speaks.

use crate::options::{Dialect, Options, Protocol};
use crate::wire::Message;
use crate::{native, wire};

/// The dialect, with what it needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    Reference,
    Native {
        /// Bytes of the blocks that are asked for.
        block_size: u16,
    },
}

impl Words {
    pub(crate) fn new(options: &Options) -> Self {
        match options.dialect {
            Dialect::Reference => Self::Reference,
            Dialect::Native => Self::Native { block_size: options.block_size },
        }
    }

    /// Where the device speaks.
    pub(crate) fn uplink(self) -> &'static str {
        match self {
            Self::Reference => wire::TOPIC,
            Self::Native { .. } => native::UP,
        }
    }

    /// Where it hears the server.
    pub(crate) fn downlink(self) -> &'static str {
        match self {
            Self::Reference => wire::TOPIC,
            Self::Native { .. } => native::DOWN,
        }
    }

    /// What it says on a new connection, if anything.
    pub(crate) fn greeting(self, protocol: Protocol, model: Option<&str>) -> Option<Vec<u8>> {
        match (self, protocol, model) {
            (Self::Native { .. }, ..) => Some(native::hello(model)),
            // With MQTT 5 the CONNECT says it.
            (Self::Reference, Protocol::V5, _) | (Self::Reference, _, None) => None,
            (Self::Reference, Protocol::V311, Some(model)) => {
                Some(wire::status(None, Some(model)).into_bytes())
            }
        }
    }

    /// Requests for these chunks of an image.
    pub(crate) fn requests(self, indices: &[u32], image: Option<[u8; 8]>) -> Vec<Vec<u8>> {
        match self {
            Self::Reference => {
                indices.iter().map(|index| wire::request(*index).into_bytes()).collect()
            }
            Self::Native { block_size } => {
                native::get(image.unwrap_or_default(), block_size, indices)
            }
        }
    }

    /// The report that the device runs `version`.
    pub(crate) fn updated(self, version: &str, model: Option<&str>) -> Vec<u8> {
        match self {
            Self::Reference => wire::status(Some(version), model).into_bytes(),
            Self::Native { .. } => native::updated(version),
        }
    }

    /// What the server says in a payload; `image` is that which is being downloaded.
    pub(crate) fn decode(self, payload: &[u8], image: Option<[u8; 8]>) -> Vec<Message> {
        match self {
            Self::Reference => wire::decode(payload),
            Self::Native { block_size } => native::decode(payload, block_size, image),
        }
    }
}
