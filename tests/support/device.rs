//! A device that speaks the reference protocol: one topic, one request after each block.

use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    Client, TOPIC, sha256,
    wire::{Connect, Publish},
};

/// A connected device.
pub struct Device {
    pub client: Client,
}

/// A `firmware_manifest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub size: usize,
    pub chunks: usize,
    pub chunk_size: usize,
    pub version: String,
    /// SHA-256 of the image, lower-case hex.
    pub sha256: String,
}

/// What the server said.
#[derive(Clone, Debug)]
pub enum Message {
    Manifest(Manifest),
    Block { index: usize, bytes: Vec<u8>, whole: Value },
    Error(String),
    Other(Value),
}

impl Device {
    /// Connects and subscribes at QoS 0, as the reference device does.
    pub fn connect(address: SocketAddr, connect: &Connect) -> Self {
        Self::on(Client::connect(address, connect))
    }

    /// The same on a connection that stands.
    pub fn on(mut client: Client) -> Self {
        assert_eq!(client.subscribe(TOPIC, 0), 0, "the reference topic is granted");
        Device { client }
    }

    /// Asks for one chunk.
    pub fn request(&mut self, index: usize) {
        self.send(&request(json!(index)));
    }

    /// Publishes JSON on the topic at QoS 0.
    pub fn send(&mut self, message: &Value) {
        self.client.publish(&Publish::new(TOPIC, message.to_string()));
    }

    /// The next message on the topic.
    pub fn next(&mut self) -> Message {
        let publish = self.client.next_publish();
        assert_eq!(publish.topic, TOPIC, "a device hears the server on its topic");
        understand(publish.json())
    }

    /// The next message, which must be a manifest.
    pub fn manifest(&mut self) -> Manifest {
        match self.next() {
            Message::Manifest(manifest) => manifest,
            other => panic!("expected a manifest, got {other:?}"),
        }
    }

    /// The next message, which must be this block.
    pub fn block(&mut self, expected: usize) -> Vec<u8> {
        match self.next() {
            Message::Block { index, bytes, .. } if index == expected => bytes,
            other => panic!("expected block {expected}, got {other:?}"),
        }
    }

    /// The next message, which must be a `fuota_error`: its text.
    pub fn error(&mut self) -> String {
        match self.next() {
            Message::Error(text) => text,
            other => panic!("expected a fuota_error, got {other:?}"),
        }
    }

    /// Asks for one chunk and waits for it.
    pub fn fetch(&mut self, index: usize) -> Vec<u8> {
        self.request(index);
        self.block(index)
    }

    /// Waits for a manifest and downloads what it names.
    pub fn update(&mut self) -> (Manifest, Vec<u8>) {
        let manifest = self.manifest();
        self.download(manifest)
    }

    /// Downloads from chunk 0 on. Another manifest on the way starts it again with that one, as
    /// in the reference device: what was there is dropped.
    pub fn download(&mut self, mut manifest: Manifest) -> (Manifest, Vec<u8>) {
        let mut image = Vec::with_capacity(manifest.size);
        let mut next = 0;
        while next < manifest.chunks {
            self.request(next);
            match self.next() {
                Message::Block { index, bytes, .. } => {
                    assert_eq!(index, next, "the block that was asked for");
                    image.extend_from_slice(&bytes);
                    next += 1;
                }
                Message::Manifest(newer) => {
                    manifest = newer;
                    image.clear();
                    next = 0;
                }
                other => panic!("expected block {next}, got {other:?}"),
            }
        }
        (manifest, image)
    }

    /// Downloads what the next manifest names, and checks size and digest.
    pub fn expect_update(&mut self, image: &[u8]) -> Manifest {
        let (manifest, bytes) = self.update();
        assert_eq!(manifest.size, image.len());
        assert_eq!(manifest.sha256, sha256(image), "the manifest names this image");
        assert!(bytes == image, "byte for byte the dropped file");
        manifest
    }
}

/// A `firmware_request` with any index.
pub fn request(index: Value) -> Value {
    json!({"variable": "firmware_request", "value": index, "unit": "index"})
}

/// Reads a message of the server, which is one variable or an array of exactly one.
pub fn understand(message: Value) -> Message {
    let variable = match &message {
        Value::Array(variables) if variables.len() == 1 => &variables[0],
        other => other,
    };
    let metadata = &variable["metadata"];
    let number = |value: &Value| {
        usize::try_from(value.as_u64().unwrap_or_else(|| panic!("a number in {variable}")))
            .expect("fits")
    };
    match variable["variable"].as_str() {
        Some("firmware_manifest") => {
            assert_eq!(variable["value"], "pending");
            Message::Manifest(Manifest {
                size: number(&metadata["total_size"]),
                chunks: number(&metadata["total_chunks"]),
                chunk_size: number(&metadata["chunk_size"]),
                version: metadata["version"].as_str().expect("version").into(),
                sha256: metadata["sha256"].as_str().expect("sha256").into(),
            })
        }
        Some("firmware_block") => {
            let data = metadata["data"].as_str().expect("data");
            let bytes = STANDARD.decode(data).expect("standard base64");
            assert_eq!(number(&metadata["size"]), bytes.len(), "size counts the bytes");
            let index = number(&variable["value"]);
            Message::Block { index, bytes, whole: variable.clone() }
        }
        Some("fuota_error") => Message::Error(variable["value"].as_str().expect("a text").into()),
        _ => Message::Other(message),
    }
}
