//! What no message of a device may break. Called by the target in `fuzz/`, and by the test below
//! with what is kept of it.

use crate::dialect::{Dialect, Message, Rest, Uplink, reference::Reference};

/// Any payload on the topic of the reference dialect: what goes on to subscribers holds nothing
/// that is for us or that only the server may say, and the quick way says the same as the other.
pub fn uplink(data: &[u8]) {
    let dialect = Reference::default();
    let read = dialect.read(data);
    if let Some(request) = dialect.read_request(data) {
        let message = Message { requests: vec![request], ..Message::default() };
        assert_eq!(read, Uplink::Message(message));
    }
    let rest = match &read {
        Uplink::Forged { .. } => return,
        Uplink::Ordinary => data,
        Uplink::Message(Message { requests, rest, .. }) => match rest {
            Rest::Nothing | Rest::Below(_) | Rest::Refused(_) => return,
            Rest::All => {
                assert!(requests.is_empty());
                data
            }
            Rest::Part(bytes) => bytes,
        },
    };
    assert_eq!(dialect.forgery(rest), None);
    match dialect.read(rest) {
        Uplink::Ordinary => {}
        Uplink::Message(again) => {
            assert!(again.requests.is_empty() && again.rest == Rest::All, "{again:?}");
        }
        Uplink::Forged { name } => panic!("{name} is forged in what is left of {read:?}"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_kept_of_fuzzing_holds() {
        let seeds =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/uplink");
        for seed in std::fs::read_dir(seeds).unwrap() {
            let bytes = std::fs::read(seed.unwrap().path()).unwrap();
            super::uplink(&bytes);
            for at in 0..bytes.len() {
                super::uplink(&bytes[..at]);
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << (at % 8);
                super::uplink(&damaged);
            }
        }
    }
}
