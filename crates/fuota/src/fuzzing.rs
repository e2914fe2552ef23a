//! What no message of a device may break. Called by the target in `fuzz/`, and by the test below
//! with what is kept of it.

use crate::dialect::{
    Dialect, Heard, Message, Rest, Uplink, aws::Aws, native::Native, reference::Reference,
    thingsboard::ThingsBoard,
};

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

/// Whatever is published on these topics: it is read, the quick way says the same as the other,
/// and what is sent back is sent to the device.
fn conversation(dialect: &dyn Dialect, topics: &[&str], data: &[u8]) {
    drop(dialect.forgery(data));
    for topic in topics {
        let heard = Heard { topic, payload: data, properties: None };
        let device = "dev-1".into();
        let quick = dialect.begin(Some(&device)).read_request(&heard);
        let read = dialect.begin(Some(&device)).read(&heard);
        let Uplink::Message(Message { requests, says, quirks, .. }) = read else { continue };
        if let Some(quick) = quick {
            assert_eq!(requests, [quick]);
        }
        assert!(quirks.iter().all(|quirk| dialect.quirks().contains(quirk)), "{quirks:?}");
        for said in says {
            assert!(!said.topic.contains(['+', '#', '\0']), "{said:?}");
        }
    }
}

/// Any payload on the topics of ThingsBoard's devices.
pub fn thingsboard(data: &[u8]) {
    let topics = [
        "v2/fw/request/1/chunk/0",
        "v1/devices/me/telemetry",
        "v1/devices/me/attributes/request/1",
        "v1/devices/me/rpc/request/1",
    ];
    conversation(&ThingsBoard::default(), &topics, data);
}

/// Any payload in the native dialect.
pub fn native(data: &[u8]) {
    conversation(&Native::default(), &["fuota/v1/up"], data);
}

/// Any payload of AWS's streams and jobs.
pub fn aws(data: &[u8]) {
    let topics = [
        "$aws/things/dev-1/streams/AFR_OTA-0102030405060708/get/json",
        "$aws/things/dev-1/streams/AFR_OTA-0102030405060708/get/cbor",
        "$aws/things/dev-1/streams/AFR_OTA-0102030405060708/describe/cbor",
        "$aws/things/dev-1/jobs/$next/get",
        "$aws/things/dev-1/jobs/a-1/update",
    ];
    conversation(&Aws, &topics, data);
}

#[cfg(test)]
mod tests {
    fn kept(target: &str, check: fn(&[u8])) {
        let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
        for seed in std::fs::read_dir(seeds.join(target)).unwrap() {
            let bytes = std::fs::read(seed.unwrap().path()).unwrap();
            check(&bytes);
            for at in 0..bytes.len() {
                check(&bytes[..at]);
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << (at % 8);
                check(&damaged);
            }
        }
    }

    #[test]
    fn what_is_kept_of_fuzzing_holds() {
        kept("uplink", super::uplink);
        kept("thingsboard", super::thingsboard);
        kept("native", super::native);
        kept("aws", super::aws);
    }
}
