//! WebSocket as a stream of bytes, with no buffer of its own.
//!
//! MQTT packets and frames have nothing to do with each other: a packet may span frames and a
//! frame may hold several [MQTT-6.0.0-2]. So nothing collects a message here. What is read is
//! unmasked in the reader's buffer, frame headers are cut out there, and each write leaves as
//! one binary frame. An idle connection owns a few dozen bytes, and a client that sends a frame
//! of any length gets no memory for it.
//!
//! | module | subject |
//! | --- | --- |
//! | [`frame`] | from frames to payload, in place |
//! | [`upgrade`] | the HTTP request that every connection begins with |

mod frame;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod tests;
mod upgrade;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::frame::coding::{CloseCode, Control};

use frame::{Decoder, End, Head};
pub(crate) use upgrade::accept;

/// Slices of one vectored write: the frame's header and as many of the caller's.
const SLICES: usize = 64;

/// The server's side of an upgraded connection.
pub(crate) struct WebSocket<S> {
    io: S,
    decoder: Decoder,
    /// What came right behind the request, not yet decoded.
    early: Vec<u8>,
    /// The header of the frame that is being written.
    head: Head,
    /// Payload that this frame has promised and that is still to be written.
    promised: usize,
    /// A control frame that is being written; it goes between two frames.
    control: Vec<u8>,
    /// Control frames may wait in a buffer of the stream below.
    unflushed: bool,
    /// A Close frame was queued, after which nothing may be sent.
    closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    fn new(io: S, early: Vec<u8>) -> Self {
        WebSocket {
            io,
            decoder: Decoder::default(),
            early,
            head: Head::default(),
            promised: 0,
            control: Vec::new(),
            unflushed: false,
            closed: false,
        }
    }

    /// Writes the control frames that are due, unless a frame is half written.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.promised > 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if self.control.is_empty() && !self.queue_control() {
                break;
            }
            while !self.control.is_empty() {
                let n = ready!(Pin::new(&mut self.io).poll_write(cx, &self.control))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.control.drain(..n);
                self.unflushed = true;
            }
            self.control = Vec::new();
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Queues the next control frame that is due; `false` where there is none.
    fn queue_control(&mut self) -> bool {
        if self.closed {
            return false;
        }
        if let Some(said) = self.decoder.take_ping() {
            self.control = frame::control(Control::Pong, &said);
            return true;
        }
        match self.decoder.end() {
            Some(End::Closed) => self.queue_close(CloseCode::Normal),
            Some(End::Broken { code, .. }) => self.queue_close(code),
            None => return false,
        }
        true
    }

    fn queue_close(&mut self, code: CloseCode) {
        self.control = frame::control(Control::Close, &u16::from(code).to_be_bytes());
        self.closed = true;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    /// Reads payload. A Close frame is the end; a frame that no MQTT client sends is an error,
    /// after the payload before it.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            // Where it cannot be written now, the next read or flush goes on with it.
            if let Poll::Ready(Err(error)) = this.poll_control(cx) {
                return Poll::Ready(Err(error));
            }
            match this.decoder.end() {
                Some(End::Closed) => return Poll::Ready(Ok(())),
                Some(End::Broken { text, .. }) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
                }
                None => {}
            }
            let before = buf.filled().len();
            if this.early.is_empty() {
                ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
            } else {
                let n = this.early.len().min(buf.remaining());
                buf.put_slice(&this.early[..n]);
                this.early.drain(..n);
                this.early.shrink_to_fit();
            }
            let raw = &mut buf.filled_mut()[before..];
            if raw.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let payload = this.decoder.decode(raw);
            buf.set_filled(before + payload);
            if payload > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    /// Begins a frame for all of `bufs`, or goes on with the one that is half written: which
    /// bytes share a frame means nothing, so a caller may come back with others than before.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let bufs = &bufs[..bufs.len().min(SLICES - 1)];
        if this.promised == 0 {
            let total = bufs.iter().map(|slice| slice.len()).sum();
            if total == 0 {
                return Poll::Ready(Ok(0));
            }
            ready!(this.poll_control(cx))?;
            if this.closed {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            this.head = Head::binary(total);
            this.promised = total;
        }
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES];
            slices[0] = IoSlice::new(this.head.rest());
            let mut room = this.promised;
            let mut count = 1;
            for slice in bufs {
                let n = slice.len().min(room);
                slices[count] = IoSlice::new(&slice[..n]);
                count += 1;
                room -= n;
            }
            let n = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, &slices[..count]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let payload = this.head.advance(n);
            this.promised -= payload;
            if payload > 0 {
                return Poll::Ready(Ok(payload));
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_control(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Says goodbye with a Close frame, where no frame is half written, and does not wait for
    /// the client's.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.promised == 0 {
            ready!(self.poll_control(cx))?;
            if !self.closed {
                self.queue_close(CloseCode::Normal);
                ready!(self.poll_control(cx))?;
            }
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
