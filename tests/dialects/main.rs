//! Devices of every dialect against the running daemon.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod aws;
mod http;
mod native;
mod quirks;
#[path = "../support/mod.rs"]
mod support;
mod thingsboard;
mod together;
