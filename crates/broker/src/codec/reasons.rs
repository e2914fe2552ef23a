//! Which packet may have which reason code (MQTT 5.0, 2.4): what clients send is checked, and
//! what the broker sends is made to fit, whatever a hook gave as its reason.

use crate::packet::reason::IMPLEMENTATION_SPECIFIC_ERROR;

/// PUBACK and PUBREC (3.4.2.1, 3.5.2.1).
pub(super) fn is_receipt(code: u8) -> bool {
    matches!(code, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
}

/// PUBREL and PUBCOMP (3.6.2.1, 3.7.2.1).
pub(super) fn is_release(code: u8) -> bool {
    matches!(code, 0x00 | 0x92)
}

/// CONNACK (3.2.2.2).
pub(super) fn is_connack(code: u8) -> bool {
    matches!(code, 0x00 | 0x80..=0x8a | 0x8c | 0x90 | 0x95 | 0x97 | 0x99..=0x9d | 0x9f)
}

/// SUBACK (3.9.3).
pub(super) fn is_suback(code: u8) -> bool {
    matches!(code, 0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8f | 0x91 | 0x97 | 0x9e | 0xa1 | 0xa2)
}

/// UNSUBACK (3.11.3).
pub(super) fn is_unsuback(code: u8) -> bool {
    matches!(code, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8f | 0x91)
}

/// DISCONNECT from a client (3.14.2.1).
pub(super) fn is_goodbye_of_client(code: u8) -> bool {
    matches!(code, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99)
}

/// DISCONNECT from the broker (3.14.2.1).
pub(super) fn is_goodbye(code: u8) -> bool {
    matches!(
        code,
        0x00 | 0x80..=0x83 | 0x87 | 0x89 | 0x8b | 0x8d..=0x90 | 0x93..=0xa2
    )
}

/// AUTH (3.15.2.1).
pub(super) fn is_auth(code: u8) -> bool {
    matches!(code, 0x00 | 0x18 | 0x19)
}

/// The code itself where the packet has it; all packets with refusals have 0x83, which says that
/// what was asked is valid and not wanted here.
pub(super) fn fitting(code: u8, known: fn(u8) -> bool) -> u8 {
    if known(code) { code } else { IMPLEMENTATION_SPECIFIC_ERROR }
}
