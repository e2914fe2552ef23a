//! Connections that speak nonsense at every door and behind it, while two others exchange messages.

// A part of both is used here.
#[allow(dead_code)]
#[path = "../wire/support/packets.rs"]
mod packets;
#[path = "../wire/support/nonsense.rs"]
mod random;

use super::support::*;
use broker::Settings;
use random::{Random, nonsense};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

const CONNECTIONS: u64 = 800;

/// Says this whatever becomes of it, and goes.
async fn throw<S: AsyncRead + AsyncWrite + Unpin>(mut io: S, bytes: &[u8]) {
    let _ = io.write_all(bytes).await;
    let _ = io.shutdown().await;
    Bytes(io).expect_end().await;
}

/// A binary frame of a client.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x82];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0xfe);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Frames with nonsense in them, cut anywhere, and now and then damaged themselves.
fn frames(random: &mut Random, n: u64) -> Vec<u8> {
    let bytes = nonsense(random, n);
    let mut all: Vec<u8> = bytes.chunks(1 + random.below(200)).flat_map(frame).collect();
    if random.below(3) == 0 {
        random.damage(&mut all);
    }
    all
}

/// An exchange at QoS 1 and one at QoS 2. The packet ids are those that the broker gives, one after
/// the other.
async fn exchange(publisher: &mut impl Wire, subscriber: &mut impl Wire, ids: [u16; 2]) {
    for (first, id) in [(0x32, ids[0]), (0x34, ids[1])] {
        let [high, low] = id.to_be_bytes();
        let publish = packet(first, &[b"\0\x04good", &[high, low][..], b"x"].concat());
        let ack = |kind| [kind, 2, high, low];
        publisher.send(&publish).await;
        subscriber.expect(&publish).await;
        if first == 0x32 {
            publisher.expect(&ack(0x40)).await;
            subscriber.send(&ack(0x40)).await;
            continue;
        }
        publisher.expect(&ack(0x50)).await;
        publisher.send(&ack(0x62)).await;
        publisher.expect(&ack(0x70)).await;
        subscriber.send(&ack(0x50)).await;
        subscriber.expect(&ack(0x62)).await;
        subscriber.send(&ack(0x70)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_behind_every_door_harms_nobody() {
    let site = Site::open(false, Settings::default());
    let tls = || async { site.tls(site.authority.client(None, &[])).await.unwrap() };
    let (mut publisher, mut subscriber) = (Bytes(tls().await), site.wss().await);
    publisher.connect("innocent-publisher").await;
    subscriber.connect("innocent-subscriber").await;
    subscriber.send(&packet(0x82, b"\0\x07\0\x04good\x02")).await;
    subscriber.expect(&[0x90, 3, 0, 7, 2]).await;
    let (mut random, mut id) = (Random(2026), 0);
    for n in 0..CONNECTIONS {
        match n % 6 {
            // In the place of a handshake, and behind it.
            door @ 1..=3 => {
                let io = TcpStream::connect(site.addresses[door as usize]).await.unwrap();
                throw(io, &nonsense(&mut random, n)).await;
            }
            0 => throw(tls().await, &nonsense(&mut random, n)).await,
            4 => throw(site.ws().await.0.into_inner(), &frames(&mut random, n)).await,
            _ => throw(site.wss().await.0.into_inner(), &frames(&mut random, n)).await,
        }
        if n % 10 == 0 {
            exchange(&mut publisher, &mut subscriber, [id + 1, id + 2]).await;
            id += 2;
        }
    }
    exchange(&mut publisher, &mut subscriber, [id + 1, id + 2]).await;
    site.close().await;
}
