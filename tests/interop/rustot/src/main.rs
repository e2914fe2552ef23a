//! A device on `rustot`, an OTA agent for AWS IoT, unchanged: its jobs, its streams in CBOR, its
//! self-test after the restart. Around it is what a board brings: a socket, a clock, and a flash.
//!
//! Usage: rustot-device PORT THING BLOCK_SIZE. Prints `waiting` when it is connected, `block N`
//! now and then, `complete SHA256` when the image is whole, and `updated` when the agent has tried
//! it after a restart of the device.

mod board;
mod wire;

use std::{error::Error, time::Duration};

use rustot::{
    jobs::{
        self, StatusDetails,
        data_types::{DescribeJobExecutionResponse, JobExecution, NextJobExecutionChanged},
    },
    ota::{self, agent::OtaAgent, encoding::json::OtaJob, pal::Version},
};
use serde::Deserialize;

use board::{Clock, Flash};
use wire::Wire;

/// What this device can do with a job.
#[derive(Debug, Deserialize)]
enum Document<'a> {
    #[serde(rename = "afr_ota", borrow)]
    Ota(OtaJob<'a>),
}

type Job<'a> = (&'a str, OtaJob<'a>, Option<StatusDetails<'a>>);

/// The job in a message on one of the topics of jobs.
fn job<'a>(topic: &str, payload: &'a [u8]) -> Option<Job<'a>> {
    let execution: JobExecution<'a, Document<'a>> = match jobs::Topic::from_str(topic)? {
        jobs::Topic::NotifyNext => {
            let said = serde_json_core::from_slice::<NextJobExecutionChanged<_>>(payload);
            said.expect("a notification as rustot reads it").0.execution?
        }
        jobs::Topic::DescribeAccepted(_) => {
            let said = serde_json_core::from_slice::<DescribeJobExecutionResponse<_>>(payload);
            said.expect("a description as rustot reads it").0.execution?
        }
        _ => return None,
    };
    let Document::Ota(document) = execution.job_document?;
    Some((execution.job_id, document, execution.status_details))
}

/// Runs the agent until the flash says that it is done; connects again whenever the connection is
/// lost.
fn run(port: u16, thing: &str, block_size: usize, flash: &Flash) -> Result<(), Box<dyn Error>> {
    let wire = Wire::new(thing);
    let mut agent = OtaAgent::builder(&wire, &wire, Clock::default(), flash)
        .block_size(block_size)
        .request_wait_ms(1000)
        // Requests that are not answered: as many as a restart of the server may take.
        .max_request_momentum(60)
        .with_self_test_timeout(Clock::default(), 60_000)
        .build();
    loop {
        if wire.connect(port).is_err() {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        agent.init();
        println!("waiting");
        while let Ok(heard) = wire.next() {
            // What the agent finds wrong with a message it answers by itself.
            if let Some((topic, mut payload)) = heard {
                if let Some((name, document, details)) = job(&topic, &payload) {
                    let _ = agent.job_update(name, &document, details.as_ref());
                } else if let Some(ota::Topic::Data(..)) = ota::Topic::from_str(&topic) {
                    let _ = agent.handle_message(&mut payload);
                }
            }
            agent.timer_callback().map_err(|_| "the agent's timer")?;
            // Its queue has three places.
            for _ in 0..3 {
                let _ = agent.process_event();
            }
            if flash.is_done() {
                return Ok(());
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, thing, block_size] = &arguments[..] else {
        return Err("usage: rustot-device PORT THING BLOCK_SIZE".into());
    };
    let (port, block_size) = (port.parse()?, block_size.parse()?);
    run(port, thing, block_size, &Flash::running(Version::new(0, 1, 0)))?;
    // The new image runs, and is to be tried.
    run(port, thing, block_size, &Flash::on_trial(Version::new(1, 4, 2)))?;
    println!("updated");
    Ok(())
}
