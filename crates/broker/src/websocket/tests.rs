//! The stream against scripted sockets: whatever the frames and the reads look like, the bytes
//! are the same.

use proptest::prelude::*;
use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    WebSocket,
    frame::{Decoder, End, Head},
    upgrade::{Verdict, judge},
};

/// A socket that gives and takes so many bytes at a time; 0 is a moment without any.
#[derive(Default)]
struct Script {
    input: VecDeque<u8>,
    widths: VecDeque<usize>,
    output: Vec<u8>,
}

impl Script {
    fn width(&mut self, cx: &Context<'_>) -> Option<usize> {
        match self.widths.pop_front() {
            Some(0) => {
                cx.waker().wake_by_ref();
                None
            }
            width => Some(width.unwrap_or(usize::MAX)),
        }
    }
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(width) = self.width(cx) else { return Poll::Pending };
        let n = width.min(buf.remaining()).min(self.input.len());
        let bytes: Vec<u8> = self.input.drain(..n).collect();
        buf.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(width) = self.width(cx) else { return Poll::Pending };
        let n = width.min(buf.len());
        self.output.extend_from_slice(&buf[..n]);
        Poll::Ready(Ok(n))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A frame as a client sends it, written from RFC 6455.
fn frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        n @ 0..=125 => bytes.push(0x80 | n as u8),
        n @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Reads to the end or an error.
fn read_all(stream: &mut WebSocket<Script>, room: usize) -> (Vec<u8>, io::Result<()>) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut all = Vec::new();
    loop {
        let mut space = vec![0; room];
        let mut buf = ReadBuf::new(&mut space);
        match Pin::new(&mut *stream).poll_read(&mut cx, &mut buf) {
            Poll::Pending => {}
            Poll::Ready(Err(error)) => return (all, Err(error)),
            Poll::Ready(Ok(())) if buf.filled().is_empty() => return (all, Ok(())),
            Poll::Ready(Ok(())) => all.extend_from_slice(buf.filled()),
        }
    }
}

fn script(input: Vec<u8>, widths: Vec<usize>) -> Script {
    Script { input: input.into(), widths: widths.into(), output: Vec::new() }
}

proptest! {
    /// Payload arrives in order, however it is cut into frames, messages and reads, with pings
    /// between; and the last ping is answered.
    #[test]
    fn payload_is_a_stream(
        parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), any::<[u8; 4]>(), any::<bool>(), any::<bool>()), 1..20),
        large in prop::option::of(65_530usize..70_000),
        widths in prop::collection::vec(0usize..200, 0..100),
        early in 0usize..50,
        room in 1usize..500,
    ) {
        let (mut wire, mut expected) = (Vec::new(), Vec::new());
        let mut open = false;
        for (payload, mask, last, ping) in &parts {
            let first = u8::from(*last) << 7 | if open { 0 } else { 2 };
            wire.extend(frame(first, *mask, payload));
            expected.extend_from_slice(payload);
            open = !last;
            if *ping {
                wire.extend(frame(0x89, *mask, b"are you there"));
            }
        }
        if open {
            wire.extend(frame(0x80, [1, 2, 3, 4], b""));
        }
        if let Some(large) = large {
            let payload: Vec<u8> = (0..large).map(|i| i as u8).collect();
            wire.extend(frame(0x82, [9, 8, 7, 6], &payload));
            expected.extend(payload);
        }
        wire.extend(frame(0x88, [0; 4], &1000u16.to_be_bytes()));
        wire.extend(frame(0x82, [0; 4], b"nothing counts after a Close frame"));
        let early = early.min(wire.len());
        let rest = wire.split_off(early);
        let mut stream = WebSocket::new(script(rest, widths), wire);
        let (read, end) = read_all(&mut stream, room);
        prop_assert_eq!(read, expected);
        prop_assert!(end.is_ok());
        // What the socket did not take at once goes with the goodbye.
        let mut cx = Context::from_waker(Waker::noop());
        while Pin::new(&mut stream).poll_shutdown(&mut cx).is_pending() {}
        let output = &stream.io.output;
        if parts.iter().any(|(.., ping)| *ping) {
            prop_assert!(output.starts_with(b"\x8a\x0dare you there"), "{:?}", output);
        }
        prop_assert!(output.ends_with(&[0x88, 2, 0x03, 0xe8]), "{:?}", output);
    }

    /// Everything written arrives in binary frames, whatever the socket takes at a time and
    /// however the writer comes back.
    #[test]
    fn writes_are_frames(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..400), 1..20),
        large in prop::option::of(65_530usize..70_000),
        widths in prop::collection::vec(0usize..300, 0..100),
    ) {
        let mut expected: Vec<u8> = parts.concat();
        expected.extend((0..large.unwrap_or(0)).map(|i| i as u8));
        let mut stream = WebSocket::new(script(Vec::new(), widths), Vec::new());
        let mut cx = Context::from_waker(Waker::noop());
        let (mut at, mut turn) = (0, 0);
        while at < expected.len() {
            // Not always what was offered before.
            let end = (at + parts[turn % parts.len()].len() * 200).min(expected.len());
            turn += 1;
            let middle = at + (end - at) / 2;
            let slices = [io::IoSlice::new(&expected[at..middle]), io::IoSlice::new(&expected[middle..end])];
            if let Poll::Ready(n) = Pin::new(&mut stream).poll_write_vectored(&mut cx, &slices) {
                at += n.unwrap();
            }
        }
        let mut wire = &stream.io.output[..];
        let mut payload = Vec::new();
        while let [0x82, len, rest @ ..] = wire {
            let (len, rest) = match len {
                126 => (u16::from_be_bytes([rest[0], rest[1]]) as usize, &rest[2..]),
                127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize, &rest[8..]),
                len => (*len as usize, rest),
            };
            // The last frame may have promised more than there was in the end.
            let len = len.min(rest.len());
            payload.extend_from_slice(&rest[..len]);
            wire = &rest[len..];
        }
        prop_assert!(wire.is_empty());
        prop_assert_eq!(payload, expected);
    }

    /// Garbage never panics, never grows what it was given, and after the end nothing comes.
    #[test]
    fn garbage_ends_or_waits(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20)) {
        let mut decoder = Decoder::default();
        for mut piece in pieces {
            let ended = decoder.end().is_some();
            let payload = decoder.decode(&mut piece);
            prop_assert!(payload <= piece.len());
            prop_assert!(!ended || payload == 0);
        }
    }

    /// No request makes the judge panic.
    #[test]
    fn any_request_is_judged(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        judge(&bytes, "/mqtt");
    }
}

#[test]
fn what_no_client_may_send_is_answered_with_a_code_behind_the_payload_before_it() {
    let mask = [1, 2, 3, 4];
    let unmasked = vec![0x82, 1, b'x'];
    let long_ping = frame(0x89, mask, &[0; 126]);
    let mut impossible = vec![0x82, 0xff];
    impossible.extend_from_slice(&[0xff; 12]);
    for (wrong, code) in [
        (frame(0x81, mask, b"text"), 1003u16),
        (unmasked, 1002),
        (frame(0x80, mask, b"continues nothing"), 1002),
        ([frame(0x02, mask, b"a"), frame(0x82, mask, b"b")].concat(), 1002),
        (frame(0xc2, mask, b"reserved bit"), 1002),
        (frame(0x83, mask, b"reserved kind"), 1002),
        (frame(0x09, mask, b"ping in parts"), 1002),
        (long_ping, 1002),
        (impossible, 1002),
    ] {
        let wire =
            [frame(0x82, mask, b"before"), wrong.clone(), frame(0x82, mask, b"after")].concat();
        let mut stream = WebSocket::new(script(wire, Vec::new()), Vec::new());
        let (read, end) = read_all(&mut stream, 1000);
        assert!(read.starts_with(b"before") && !read.ends_with(b"after"), "{wrong:?}");
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::InvalidData, "{wrong:?}");
        let [high, low] = code.to_be_bytes();
        assert!(
            stream.io.output.ends_with(&[0x88, 2, high, low]),
            "{wrong:?}: {:?}",
            stream.io.output
        );
    }
}

#[test]
fn a_frame_of_any_length_takes_no_memory() {
    let mut decoder = Decoder::default();
    let mut header = vec![0x82, 0xff];
    header.extend_from_slice(&(i64::MAX as u64).to_be_bytes());
    header.extend_from_slice(&[0; 4]);
    assert_eq!(decoder.decode(&mut header), 0);
    let mut payload = [7; 1000];
    assert_eq!(decoder.decode(&mut payload), 1000);
    assert_eq!(decoder.end(), None);
    assert!(size_of::<WebSocket<()>>() < 300, "{}", size_of::<WebSocket<()>>());
}

#[test]
fn a_header_takes_the_shortest_form() {
    for (payload, len) in [(1, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
        assert_eq!(Head::binary(payload).rest().len(), len, "{payload}");
    }
    assert_eq!(Decoder::default().end(), None::<End>);
}

#[test]
fn requests() {
    let good = "GET /mqtt?x=1 HTTP/1.1\r\nHost: site\r\nupgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                Sec-WebSocket-Protocol: mqttv3.1, mqtt\r\n\r\n";
    // The example of RFC 6455, 1.3.
    let key = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned();
    assert_eq!(judge(good.as_bytes(), "/mqtt"), Verdict::Accept { len: good.len(), key });
    for end in 0..good.len() {
        assert_eq!(judge(&good.as_bytes()[..end], "/mqtt"), Verdict::Incomplete, "{end}");
    }
    for (from, to, status) in [
        ("/mqtt", "/other", "404"),
        ("/mqtt?x=1", "/", "404"),
        ("GET", "POST", "405"),
        ("HTTP/1.1", "HTTP/1.0", "405"),
        ("upgrade: WebSocket\r\n", "", "426"),
        ("keep-alive, Upgrade", "keep-alive", "426"),
        ("Version: 13", "Version: 8", "426"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "short", "400"),
        ("mqttv3.1, mqtt", "mqttv3.1", "400"),
        ("GET /mqtt", "\x10\x0c\0\x04MQTT\x04\x02", "400"),
    ] {
        let request = good.replace(from, to);
        assert_ne!(request, good);
        let verdict = format!("{:?}", judge(request.as_bytes(), "/mqtt"));
        assert!(verdict.contains(&format!("status: \"{status} ")), "{from} -> {to}: {verdict}");
    }
}
