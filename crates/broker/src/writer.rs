//! Bytes waiting for the socket, and who is told when they are written.

use bytes::{Buf, Bytes, BytesMut};
use hook::{Payload, Receipt};
use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::io::AsyncWrite;

use crate::queue::Queue;

/// Payloads from this size on are written by reference; smaller ones are cheaper to copy.
const BY_REFERENCE: usize = 8 * 1024;
/// Slices in one vectored write.
const SLICES: usize = 40;
/// The write buffer that the connections of a worker thread share, one after the other: 16 blocks
/// of 4096 bytes in base64, and some to spare. It stays in the processor's cache.
const SHARED_BYTES: usize = 128 * 1024;
/// A shared buffer that grew beyond this is not kept.
const SHARED_MOST: usize = 1024 * 1024;

thread_local! {
    static SHARED: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// What one connection has to write, in order.
#[derive(Default)]
pub(crate) struct Writer {
    /// Complete pieces, before `tail`.
    pieces: Queue<Bytes>,
    /// Small packets, still growing. Empty, it has no memory: the thread's buffer is taken for it
    /// and given back when the socket has taken everything, or as much as it takes.
    tail: BytesMut,
    /// Bytes of `tail` that are written.
    sent: usize,
    /// Bytes ever queued and ever written.
    queued: u64,
    written: u64,
    /// TLS may hold bytes that it has taken.
    unflushed: bool,
    receipts: Queue<(u64, Arc<dyn Receipt>, u32)>,
}

impl Writer {
    /// Encodes a packet, or the head of a PUBLISH whose payload follows.
    pub fn encode(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        if self.tail.capacity() == 0 {
            self.tail = SHARED.take();
            self.tail.reserve(SHARED_BYTES);
        }
        let before = self.tail.len();
        encode(&mut self.tail);
        self.queued += (self.tail.len() - before) as u64;
    }

    /// The payload that follows the head just encoded.
    pub fn payload(&mut self, payload: &Bytes) {
        if payload.len() < BY_REFERENCE {
            return self.encode(|out| out.extend_from_slice(payload));
        }
        self.queued += payload.len() as u64;
        self.tail.advance(std::mem::take(&mut self.sent));
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
        self.pieces.push_back(payload.clone());
    }

    /// The same for a plugin's message, which is perhaps encoded only now.
    pub fn plugin_payload(&mut self, payload: &Payload) {
        match payload {
            Payload::Ready(bytes) => self.payload(bytes),
            Payload::Deferred(message) => self.encode(|out| message.encode(out)),
        }
    }

    /// The socket took what it could: what is left moves to memory of its own, and the thread's
    /// buffer goes back.
    fn give_back(&mut self) {
        let mut buffer = std::mem::take(&mut self.tail);
        let sent = std::mem::take(&mut self.sent);
        if buffer.len() > sent {
            self.tail = BytesMut::from(&buffer[sent..]);
        }
        if (SHARED_BYTES..=SHARED_MOST).contains(&buffer.capacity()) {
            buffer.clear();
            SHARED.set(buffer);
        }
    }

    /// Who is told when everything queued so far is written.
    pub fn receipt(&mut self, receipt: Arc<dyn Receipt>, tag: u32) {
        self.receipts.push_back((self.queued, receipt, tag));
    }

    /// Bytes that wait.
    pub fn len(&self) -> u64 {
        self.queued - self.written
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queued == self.written
    }

    /// Whether there is anything to do for [`Writer::poll_flush`].
    pub fn is_idle(&self) -> bool {
        self.is_empty() && !self.unflushed
    }

    /// Writes until nothing waits or the socket takes no more. Receipts are called as their
    /// bytes are gone.
    pub fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        mut io: Pin<&mut (impl AsyncWrite + ?Sized)>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let polled = if self.pieces.is_empty() {
                io.as_mut().poll_write(cx, &self.tail[self.sent..])
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let pieces = self.pieces.iter().map(|p| &p[..]).chain([&self.tail[self.sent..]]);
                let mut count = 0;
                for (slot, piece) in slices.iter_mut().zip(pieces) {
                    *slot = IoSlice::new(piece);
                    count += 1;
                }
                io.as_mut().poll_write_vectored(cx, &slices[..count])
            };
            match polled {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => self.advance(n),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if self.tail.capacity() >= SHARED_BYTES {
                        self.give_back();
                    }
                    return Poll::Pending;
                }
            }
            self.unflushed = true;
        }
        self.give_back();
        // A layer below MQTT (TLS, WebSocket) may hold bytes back until it is told to flush.
        ready!(io.poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut n: usize) {
        self.written += n as u64;
        while n > 0 {
            match self.pieces.front_mut() {
                Some(piece) if piece.len() <= n => {
                    n -= piece.len();
                    self.pieces.pop_front();
                }
                Some(piece) => {
                    piece.advance(n);
                    break;
                }
                None => {
                    self.sent += n;
                    break;
                }
            }
        }
        while let Some((_, receipt, tag)) =
            self.receipts.pop_front_if(|(end, ..)| *end <= self.written)
        {
            receipt.written(tag);
        }
    }

    /// The socket takes nothing any more: what waits is forgotten.
    pub fn discard(&mut self) {
        self.abandon();
        self.pieces.take();
        self.tail.clear();
        self.give_back();
        (self.written, self.unflushed) = (self.queued, false);
    }

    /// The connection has ended: the receipts that were not called hear that.
    pub fn abandon(&mut self) {
        for (_, receipt, tag) in self.receipts.take() {
            receipt.dropped(tag);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use proptest::prelude::*;

    /// A socket that takes a given number of bytes per write.
    struct Narrow(Vec<usize>, Vec<u8>);

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            match self.0.pop() {
                Some(0) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                width => {
                    let n = width.unwrap_or(usize::MAX).min(buf.len());
                    self.1.extend_from_slice(&buf[..n]);
                    Poll::Ready(Ok(n))
                }
            }
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Default)]
    struct Log(Mutex<Vec<u32>>);

    impl Receipt for Log {
        fn written(&self, tag: u32) {
            self.0.lock().push(tag);
        }
        fn dropped(&self, _: u32) {}
    }

    proptest! {
        /// Whatever the socket takes at a time, the bytes arrive in order and every receipt is
        /// called once, in order.
        #[test]
        fn order_is_kept(
            lengths in prop::collection::vec(0usize..12_000, 1..60),
            widths in prop::collection::vec(0usize..9000, 0..60),
        ) {
            let mut writer = Writer::default();
            let log = Arc::new(Log::default());
            let mut expected = Vec::new();
            for (i, len) in lengths.iter().enumerate() {
                let payload = Bytes::from(vec![i as u8; *len]);
                writer.encode(|out| out.extend_from_slice(&[0xff, i as u8]));
                writer.payload(&payload);
                writer.receipt(log.clone(), i as u32);
                expected.extend_from_slice(&[0xff, i as u8]);
                expected.extend_from_slice(&payload);
            }
            let mut io = Narrow(widths, Vec::new());
            let mut cx = Context::from_waker(std::task::Waker::noop());
            while writer.poll_flush(&mut cx, Pin::new(&mut io)).is_pending() {}
            prop_assert_eq!(io.1, expected);
            prop_assert_eq!(&*log.0.lock(), &(0..lengths.len() as u32).collect::<Vec<_>>());
        }
    }
}
