//! What the benchmarks share: servers as processes of their own with their CPU and memory, and
//! words of MQTT written by hand, so that the load shares no code with the server.
//!
//! | module | subject |
//! | --- | --- |
//! | [`process`] | a server that runs, and what it has used |
//! | [`frames`] | packets of MQTT 3.1.1 as bytes |
//! | [`firmware`] | an image, and what a device asks and hears of it |
//! | [`fuotad`] | the server that this is about
//! | [`figures`] | medians, and the machine that they were taken on |

// Each benchmark compiles this module and uses a part of it.
#![allow(dead_code)]

pub mod figures;
pub mod firmware;
pub mod frames;
pub mod fuotad;
pub mod process;
