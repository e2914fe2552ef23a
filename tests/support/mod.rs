//! What the tests of the running daemon share. Nothing here uses the server's code: frames,
//! devices and HTTP are written by hand, so that a mistake cannot stand on both sides.
//!
//! | module | subject |
//! | --- | --- |
//! | [`site`] | a temporary directory with `broker.toml`, a firmware folder and `data_dir` |
//! | [`daemon`] | the real `fuotad` as a child process: start, log, signals, exit |
//! | [`wire`] | MQTT 3.1.1 and 5 packets as bytes |
//! | [`client`] | a raw MQTT client on a blocking socket |
//! | [`device`] | a device that speaks the reference protocol |
//! | [`http`] | HTTP/1.1 requests for the admin interface |
//!
//! `s3.rs` beside them is an S3 server in the test's own process, and `bucket.rs` a site that
//! watches it; who needs them names them by path.
//!
//! No test sleeps: each waits for a packet, a log line, an answer or the end of a process, and
//! fails when [`PATIENCE`] is over.

// Every test binary compiles this module and uses a part of it.
#![allow(dead_code, unused_imports)]

use std::time::Duration;

pub mod client;
pub mod daemon;
pub mod device;
pub mod http;
pub mod site;
pub mod wire;

pub use client::Client;
pub use daemon::Daemon;
pub use device::{Device, Manifest};
pub use site::Site;
pub use wire::{Connect, Packet, Publish, Version};

/// How long anything may take before a test gives up. Long, because it only decides how soon a
/// failure shows on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// The topic of the reference protocol.
pub const TOPIC: &str = "tago/data/post";

/// A firmware image that no other seed has: `size` bytes of a xorshift sequence.
pub fn image(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// SHA-256 in lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(bytes))
}

/// Asks again until `probe` answers, giving other threads the processor in between. For
/// conditions that send no event, such as a row of the admin interface.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let started = std::time::Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
