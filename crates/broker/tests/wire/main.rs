//! The broker on the wire: bytes in, bytes out, and silence where silence is due.
//!
//! Each test speaks over a real socket to a broker, without plugins but for `plugins`, and names
//! the clause of MQTT 5.0 that it holds the broker to; 3.1.1 says the same under other numbers where a test
//! runs for both. That nothing was sent is proven by a PINGREQ, whose answer is the next packet.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod admission;
mod aliases;
mod bounds;
mod clauses;
mod connect;
mod crowd;
mod disconnect;
mod durability;
mod expiry;
mod fan_out;
mod flow_control;
mod full_disk;
mod keep_alive;
mod log_files;
mod malformed;
mod model;
mod mutations;
mod operator;
mod plugins;
mod promised;
mod publish;
mod qos;
mod recovery;
mod resumed;
mod retain;
mod retained_limits;
mod rows;
mod session;
mod session_expiry;
mod shared;
mod shared_durable;
mod slow;
mod slow_log;
mod statistics;
mod subscribe;
mod unsubscribe;
mod will;
mod will_durable;
