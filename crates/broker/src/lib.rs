//! Sockets to sessions to router, asking hooks on the way.
//!
//! The session layer is the broker; rumqttd's router is its bulk exchange for QoS 0 traffic
//! under load (`docs/decisions/0002-rumqttd-seam.md`). The way of a packet:
//!
//! ```text
//! listener ── accept ──> handshake ── CONNECT, hooks, takeover ──> connection
//! connection ── frame ──> codec ── packet ──> inbound ── hooks ──> exchange
//! exchange ── index ──> inbox of each session (directly, or through a lane of the router)
//! inbox ──> outbound (in-flight window) ──> writer ──> socket
//! ```
//!
//! | module | subject |
//! | --- | --- |
//! | [`settings`] | what the daemon decides: addresses and limits |
//! | `limits` | the limits in force, which change while the broker runs |
//! | `listener` | bound sockets and the accept loop; knows nothing of MQTT |
//! | `admission`, `pace` | how many may come in, at once and in a second |
//! | `tls` | certificates and keys, and their replacement |
//! | `websocket` | frames as a stream of bytes, and the request before them |
//! | [`packet`], [`codec`] | the words of MQTT, and the one file that turns them into bytes and back |
//! | [`topic`] | what a topic name and a filter may be |
//! | `index` | the one truth about filters: which sessions want a topic |
//! | `retained` | the retained message of each topic |
//! | `message` | a message on its way, shared by all who get it |
//! | `session`, `subscriptions`, `inbox` | what outlives a connection, and its bounded queues |
//! | `queue` | a queue that costs nothing while nothing is in it |
//! | `judge` | the subscriptions of a resumed session, asked about again |
//! | `registry` | all sessions; takeover, expiry, delayed wills |
//! | `keep_alive` | who was not heard in time |
//! | `handshake`, `begin` | from an accepted socket to a client that is let in, and to its session |
//! | `connection` | one socket's task: read, decide, write |
//! | `ending` | the end of a session: its will, and what it leaves to others |
//! | `leave` | the end of a connection, and what becomes of its session |
//! | `slow` | how long a client may take to read, and to send a packet |
//! | `inbound`, `subscribe` | what each packet of a client does |
//! | `submit` | one publish past the hooks and the rules of topics |
//! | `deliver` | what goes to the client, in which order and form |
//! | `backlog` | retained messages for new subscriptions, page by page |
//! | `owed` | the same where they were promised: what the log has of it |
//! | `outbound` | packet ids and the in-flight window of what is sent |
//! | `writer` | bytes waiting for the socket, with receipts |
//! | `exchange` | one publish to all its receivers |
//! | `pending`, `unsettled` | a publish that waits for room or for the log, and all that one connection has begun and not finished |
//! | [`journal`] | the durable log: what was promised survives the process |
//! | `crowd` | a publisher of QoS 0 lets a crowded queue drain |
//! | `lanes`, `blob` | QoS 0 in bulk: credit per lane, supervision of the router, and what a parcel says of itself |
//! | `router` | the one file that knows rumqttd |
//! | `hooks` | the plugins of one broker, asked in order |
//! | `sys` | statistics below `$SYS` |
//! | `server`, `handle` | all of it together, and the way back for plugins |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

#[cfg(all(feature = "faults", not(debug_assertions)))]
compile_error!("the feature `faults` lets a test kill the router: it has no place in a release");

mod admission;
mod backlog;
mod begin;
mod behind;
mod blob;
pub mod codec;
mod connection;
mod counters;
mod crowd;
mod deliver;
mod ending;
mod exchange;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod handle;
mod handshake;
mod hooks;
mod inbound;
mod inbox;
mod index;
pub mod journal;
mod judge;
mod keep_alive;
mod lanes;
mod leave;
mod left;
mod limits;
mod listener;
mod message;
mod outbound;
mod owed;
mod pace;
pub mod packet;
mod pending;
mod queue;
mod quota;
mod registry;
mod retained;
mod router;
mod server;
mod session;
pub mod settings;
mod slow;
mod submit;
mod subscribe;
mod subscriptions;
mod sys;
mod tls;
pub mod topic;
mod unsettled;
mod websocket;
mod writer;

pub use journal::Persistence;
pub use listener::{BindError, Door, Listeners, bind, bind_socket};
pub use server::{NOT_OPEN, Server, StartError};
pub use settings::{Limits, Settings};
pub use tls::{Tls, TlsError, TlsFiles, TlsPart};
