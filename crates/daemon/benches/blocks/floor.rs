//! The floor: the least that a server can do for a request.
//!
//! A bare TCP server on the same runtime with the same number of workers. It cuts what it reads by
//! MQTT's length and answers each PUBLISH with one ready frame of a real block's size; all answers
//! of one read go out in one write, by reference. It looks into nothing.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::firmware::TOPIC;
use crate::support::frames;

/// Bytes of a whole PUBLISH with a block of 4,096 bytes in the reference encoding, roughly: for
/// runs without a real server.
pub const TYPICAL_FRAME: usize = 5560;

/// Bytes read at once: a window of requests fits in.
const READ: usize = 8 * 1024;
/// Frames in one write: as many as a device may have in flight (rule 17).
const SLICES: usize = 64;

/// Serves until the process is killed.
pub async fn serve(address: SocketAddr, frame: usize) -> anyhow::Result<()> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let listener = socket.listen(4096)?;
    let frame: Arc<[u8]> = ready_frame(frame).into();
    loop {
        let (stream, _) = listener.accept().await?;
        let frame = Arc::clone(&frame);
        tokio::spawn(async move {
            // A connection that ends, ends; there is nobody to tell.
            let _: anyhow::Result<()> = answer(stream, &frame).await;
        });
    }
}

/// A PUBLISH of exactly `size` bytes on the wire, that looks like a block.
fn ready_frame(size: usize) -> Vec<u8> {
    let mut body = Vec::new();
    frames::put_string(&mut body, TOPIC);
    // 1 byte of type and 2 of length, as any frame of 128 to 16,383 bytes has.
    body.resize(size.clamp(200, 16_000) - 3, b'x');
    frames::packet(0x30, &body)
}

async fn answer(mut stream: TcpStream, frame: &[u8]) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; READ];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let mut done = 0;
        let mut blocks = 0;
        while let Some((kind, body)) = frames::cut(&buffer[done..filled])? {
            done += body.end;
            match kind {
                1 => stream.write_all(b"\x20\x02\0\0").await?,
                8 => stream.write_all(b"\x90\x03\0\x01\0").await?,
                frames::PUBLISH => blocks += 1,
                _ => {}
            }
        }
        buffer.copy_within(done..filled, 0);
        filled -= done;
        write_frames(&mut stream, frame, blocks).await?;
    }
}

/// Writes the frame `count` times without copying it.
async fn write_frames(stream: &mut TcpStream, frame: &[u8], count: usize) -> anyhow::Result<()> {
    let mut left = count * frame.len();
    while left > 0 {
        // The end of the one that the last write cut, then whole ones.
        let cut = left % frame.len();
        let whole = left / frame.len();
        let slices: [IoSlice<'_>; SLICES] = std::array::from_fn(|at| match (at, cut) {
            (0, 1..) => IoSlice::new(&frame[frame.len() - cut..]),
            _ if at < whole + usize::from(cut > 0) => IoSlice::new(frame),
            _ => IoSlice::new(&[]),
        });
        let used = (whole + usize::from(cut > 0)).min(SLICES);
        left -= stream.write_vectored(&slices[..used]).await?;
    }
    Ok(())
}
