//! A small server of the reference protocol, with an MQTT of its own, for one image.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const CHUNK: usize = 4096;

/// What is wrong with the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// A byte of the third block differs from the image.
    WrongByte,
    /// It refuses each login with this code.
    Refuse(u8),
    /// It answers requests with an error.
    Error,
}

pub struct Server {
    pub address: String,
    pub image: Vec<u8>,
    pub seen: Arc<Mutex<Seen>>,
}

/// What devices have said, by client id and token.
#[derive(Default)]
pub struct Seen {
    /// CONNECT packets: their body.
    pub connects: Vec<Vec<u8>>,
    pub requests: HashMap<u64, u32>,
    pub statuses: Vec<Value>,
}

impl Server {
    /// Serves an image of `size` bytes on a free port until the test's runtime ends.
    pub async fn start(size: usize, flaw: Flaw) -> Self {
        let image: Vec<u8> = (0..size).map(|at| (at * 31 + at / 251) as u8).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (served, shared) = (Arc::new(image.clone()), Arc::clone(&seen));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&served), Arc::clone(&shared), flaw));
            }
        });
        Self { address, image, seen }
    }

    pub fn sha256(&self) -> String {
        hex::encode(Sha256::digest(&self.image))
    }
}

async fn serve(
    mut stream: TcpStream,
    image: Arc<Vec<u8>>,
    seen: Arc<Mutex<Seen>>,
    flaw: Flaw,
) -> Option<()> {
    let (first, connect) = packet(&mut stream).await?;
    assert_eq!(first, 0x10, "CONNECT comes first");
    let v5 = connect[6] == 5;
    seen.lock().unwrap().connects.push(connect);
    let code = if let Flaw::Refuse(code) = flaw { code } else { 0 };
    let connack: &[u8] = if v5 { &[0x20, 3, 0, code, 0] } else { &[0x20, 2, 0, code] };
    stream.write_all(connack).await.ok()?;
    if code != 0 {
        return None;
    }
    let (first, subscribe) = packet(&mut stream).await?;
    assert_eq!(first, 0x82, "then SUBSCRIBE");
    assert!(subscribe.windows(14).any(|w| w == b"tago/data/post") && subscribe.ends_with(&[0]));
    let suback: &[u8] = if v5 { &[0x90, 4, 0, 1, 0, 0] } else { &[0x90, 3, 0, 1, 0] };
    stream.write_all(suback).await.ok()?;

    // A device with an unfinished transfer asks by itself; only silence gets the manifest.
    let grace = tokio::time::timeout(Duration::from_millis(50), packet(&mut stream)).await;
    let mut early = match grace {
        Ok(early) => Some(early?),
        Err(_silence) => {
            stream.write_all(&publish(v5, &manifest(&image))).await.ok()?;
            None
        }
    };
    loop {
        let (first, body) = match early.take() {
            Some(early) => early,
            None => packet(&mut stream).await?,
        };
        if first == 0xe0 {
            return None;
        }
        assert_eq!(first, 0x30, "PUBLISH at QoS 0");
        let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
        assert_eq!(&body[2..2 + topic], b"tago/data/post");
        let payload: Value = serde_json::from_slice(&body[2 + topic + usize::from(v5)..]).unwrap();
        let answer = match payload["variable"].as_str() {
            Some("firmware_request") => {
                let index = payload["value"].as_u64().unwrap();
                *seen.lock().unwrap().requests.entry(index).or_default() += 1;
                answer(&image, index as usize, flaw)
            }
            _ => {
                seen.lock().unwrap().statuses.push(payload);
                continue;
            }
        };
        stream.write_all(&publish(v5, &answer)).await.ok()?;
    }
}

fn manifest(image: &[u8]) -> Value {
    json!({"variable": "firmware_manifest", "value": "pending", "metadata": {
        "total_size": image.len(), "total_chunks": image.len().div_ceil(CHUNK),
        "chunk_size": CHUNK, "version": "2.1.0", "sha256": hex::encode(Sha256::digest(image)),
    }})
}

fn answer(image: &[u8], index: usize, flaw: Flaw) -> Value {
    if flaw == Flaw::Error {
        return json!({"variable": "fuota_error", "value": "no firmware is offered to this device"});
    }
    let mut data = image[index * CHUNK..((index + 1) * CHUNK).min(image.len())].to_vec();
    if flaw == Flaw::WrongByte && index == 2 {
        data[7] ^= 1;
    }
    json!({"variable": "firmware_block", "value": index,
        "metadata": {"data": STANDARD.encode(&data), "size": data.len()}})
}

fn publish(v5: bool, payload: &Value) -> Vec<u8> {
    let mut body = b"\0\x0etago/data/post".to_vec();
    if v5 {
        body.push(0);
    }
    body.extend(payload.to_string().bytes());
    let mut frame = vec![0x30];
    let mut length = body.len();
    while length >= 0x80 {
        frame.push(length as u8 | 0x80);
        length >>= 7;
    }
    frame.push(length as u8);
    frame.extend(body);
    frame
}

/// A packet's first byte and its body; `None` at the end of the stream.
async fn packet(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let first = stream.read_u8().await.ok()?;
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = stream.read_u8().await.ok()?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((first, body))
}
