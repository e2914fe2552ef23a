//! Firmware bytes: where they are, when they appear, a range of them.
//!
//! Firmware is dropped into a directory or a bucket, the *origin*. [`FirmwareStore::watch`] tells
//! what settled there as [`Event`]s; by then the bytes were copied into the content-addressed
//! place under `data_dir`, and an [`Image`] reads them from that copy alone. So a file that is
//! overwritten, or an origin that goes away, touches no transfer under way.
//!
//! | module | subject |
//! | --- | --- |
//! | `store` | [`FirmwareStore`], the way in; [`Status`] |
//! | `settings` | [`Settings`], and why a store cannot be opened |
//! | `event` | what is told: [`Event`], [`Change`], [`Dropped`], [`Known`] |
//! | `origin` | the directory or bucket behind `object_store`; [`Fingerprint`] |
//! | `paths` | the folders of the contract: [`Target`] |
//! | `inventory` | a listing, sorted into firmware, companions and what is refused |
//! | `names` | title and version out of a file's name: [`NameParts`] |
//! | `sidecar` | `FILE.toml` and `FILE.sha256`: [`Sidecar`] |
//! | `listen` | notifications of the operating system |
//! | `settle` | when a file is complete |
//! | `watch` | the watcher, which ties these together |
//! | `record` | what was told of each path |
//! | `ingest` | copying while hashing; [`Facts`] |
//! | `format` | what the bytes say of themselves: [`Header`] |
//! | `signature` | `FILE.minisig`: [`Trust`], [`Verdict`] |
//! | `copy`, `sink` | a copy on its way there, written and hashed
//! | `objects` | the content-addressed place |
//! | `shelf` | which copies are needed, and which may go |
//! | `status_file` | what became of a file, beside it |
//! | `image` | ranges of verified bytes: [`Image`], [`ReadError`] |
//! | `reader` | the images in use |
//! | `cache` | segments in memory: [`Segment`] |
//! | `digest` | [`Digest`] |
//! | `checksum` | others, where a sidecar wants one: [`Checksum`] |
//!
//! A dropped file goes `listen` → `watch` (`origin`, `inventory`, `settle`) → `ingest` →
//! `objects` → [`Event::Batch`]. A block comes `image` → `cache`, or → `objects` → `cache`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod cache;
mod checksum;
mod copy;
mod digest;
mod event;
mod format;
mod found;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod image;
mod ingest;
mod inventory;
mod listen;
mod names;
mod objects;
mod origin;
mod paths;
mod reader;
mod record;
mod settings;
mod settle;
mod shelf;
mod sidecar;
mod signature;
mod sink;
mod status_file;
mod store;
mod watch;

pub use cache::Segment;
pub use checksum::{Algorithm, Checksum};
pub use digest::{Digest, ParseDigestError};
pub use event::{Batch, Change, Dropped, Event, Known};
pub use format::{Format, Header};
pub use image::{Image, ReadError, ReadErrorKind};
pub use ingest::{Facts, IngestError, Ingested};
pub use names::NameParts;
pub use origin::Fingerprint;
pub use paths::{Target, is_valid_name};
pub use settings::{S3Settings, Settings, StoreError};
pub use sidecar::Sidecar;
pub use signature::{Comment, KeyId, PublicKey, Signature, Trust, TrustError, Verdict};
pub use store::{FirmwareStore, Status, Tuning};
