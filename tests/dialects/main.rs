//! Devices of every dialect against the running daemon.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod away;
mod aws;
#[path = "../support/bucket.rs"]
mod fixture;
mod http;
mod native;
mod quirks;
#[path = "../support/s3.rs"]
mod s3;
#[path = "../support/mod.rs"]
mod support;
mod thingsboard;
mod together;
