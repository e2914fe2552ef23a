//! The body of a form, so that whoever reads it holds little of it.
//!
//! A parser of forms keeps what comes before the first part, and the headers of each part, until
//! it has seen their end. [`Meter`] counts what it has taken since it last gave something, and ends
//! the body where that is too much.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    body::{Body, BodyDataStream},
    extract::Request,
    http::StatusCode,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

use crate::problem::Problem;

/// The most bytes of a body that may bring neither a field nor a piece of one.
const MOST: usize = 256 * 1024;
/// After so many the parser gets to look at what it has, however fast more of it comes.
const BREATH: usize = 64 * 1024;

/// What was taken of a body since it last gave something.
#[derive(Clone, Default)]
pub struct Meter(Arc<AtomicUsize>);

impl Meter {
    /// The request with its body counted, and the meter.
    pub fn count(request: Request) -> (Request, Meter) {
        let meter = Meter::default();
        let counted = |body: Body| {
            let body = body.into_data_stream();
            Body::from_stream(Counted { body, meter: meter.clone(), unseen: 0 })
        };
        (request.map(counted), meter)
    }

    /// The body gave a field, or a piece of one.
    pub fn gave(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// The problem, where the body was ended for what it did not give.
    pub fn problem(&self) -> Option<Problem> {
        (self.0.load(Ordering::Relaxed) > MOST).then(|| {
            let text = format!("the form has {MOST} bytes and more that belong to no field");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text)
        })
    }
}

struct Counted {
    body: BodyDataStream,
    meter: Meter,
    /// Bytes that the parser took at a stretch.
    unseen: usize,
}

impl Stream for Counted {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.unseen >= BREATH {
            self.unseen = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = self.body.poll_next_unpin(context);
        match &next {
            Poll::Ready(Some(Ok(bytes))) => {
                self.unseen += bytes.len();
                let taken = self.meter.0.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len();
                if taken > MOST {
                    let error = io::Error::other("the form brings nothing");
                    return Poll::Ready(Some(Err(axum::Error::new(error))));
                }
            }
            _ => self.unseen = 0,
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::{FromRequest as _, Multipart};
    use futures_util::stream;

    use super::*;

    const HEAD: &str = "--b\r\nContent-Disposition: form-data; name=\"file\"\r\n";

    /// Reads a form of these parts of 16 KB, however fast: the bytes of its fields, or the problem.
    async fn read(body: Vec<u8>) -> Result<usize, Problem> {
        let parts: Vec<_> =
            body.chunks(16 * 1024).map(|part| Ok::<_, io::Error>(part.to_vec())).collect();
        let request = Request::builder()
            .header("content-type", "multipart/form-data; boundary=b")
            .body(Body::from_stream(stream::iter(parts)))
            .unwrap();
        let (request, meter) = Meter::count(request);
        let mut form = Multipart::from_request(request, &()).await.unwrap();
        let mut size = 0;
        let wrong = |_| meter.problem().expect("the meter ended it");
        while let Some(mut field) = form.next_field().await.map_err(wrong)? {
            meter.gave();
            while let Some(piece) = field.chunk().await.map_err(wrong)? {
                meter.gave();
                size += piece.len();
            }
        }
        Ok(size)
    }

    #[tokio::test]
    async fn a_form_that_brings_no_field_is_ended_and_a_large_field_is_not() {
        let filler = vec![b'x'; 1 << 20];
        let preamble = [&filler[..], b"\r\n", HEAD.as_bytes(), b"\r\nx\r\n--b--\r\n"].concat();
        let headers = [HEAD.as_bytes(), b"X-Filler: ", &filler, b"\r\n\r\nx\r\n--b--\r\n"].concat();
        for body in [preamble, headers] {
            let problem = read(body).await.unwrap_err();
            assert_eq!(problem.status(), StatusCode::PAYLOAD_TOO_LARGE);
        }
        let large = [HEAD.as_bytes(), b"\r\n", &[7; 1 << 20], b"\r\n--b--\r\n"].concat();
        assert_eq!(read(large).await.unwrap(), 1 << 20);
        let several = [HEAD.as_bytes(), b"\r\n", &[7; 200 << 10], b"\r\n"].concat().repeat(3);
        assert_eq!(read([&several[..], b"--b--\r\n"].concat()).await.unwrap(), 600 << 10);
    }
}
