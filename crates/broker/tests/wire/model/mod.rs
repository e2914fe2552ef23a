//! The session's state machine against a simple model: random sequences of what clients and
//! networks do, and after each step what the broker sent is what the model says, byte for byte
//! where it matters.
//!
//! What the model holds to be true, and so what is tested: at QoS 0 each copy once to who is
//! there; at QoS 1 and 2 each copy until its exchange has ended, under one packet id and, sent
//! again, with DUP; at QoS 2 no copy again once the client has it, in either direction; all copies
//! of a session in the order of publication; packet ids unique in flight; never more in flight
//! than the window, and no less where something waits; nothing that was not subscribed.
//!
//! | file | subject |
//! | --- | --- |
//! | this one | the steps, and how they are drawn |
//! | `world` | the broker's side as the model has it, and the client's |

mod world;

use crate::support::*;
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestRunner},
};
use world::World;

/// What happens next. A number that picks something is taken modulo what there is; a step that
/// makes no sense at the moment does nothing.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// CONNECT, which takes over where somebody is connected.
    Connect { version: u8, clean: bool, lasting: bool, window: u16 },
    /// The connection breaks.
    Vanish,
    /// DISCONNECT; MQTT 5 may let the session end with it.
    Leave { end: bool },
    /// SUBSCRIBE.
    Subscribe { filter: usize, qos: u8, no_local: bool },
    /// UNSUBSCRIBE.
    Unsubscribe { filter: usize },
    /// Another client publishes, and completes the exchange.
    Publish { topic: usize, qos: u8 },
    /// The client itself publishes.
    Own { topic: usize, qos: u8 },
    /// It does, and the connection breaks in the middle of the packet.
    OwnCut { topic: usize, qos: u8 },
    /// It does, and the connection breaks before it has the answer.
    OwnLost { topic: usize, at_qos_2: bool },
    /// It sends a QoS 2 publish again that it has not released.
    OwnAgain { pick: usize },
    /// It releases one.
    OwnRelease { pick: usize },
    /// It acknowledges the next step of something in flight, in any order, perhaps twice.
    Acknowledge { pick: usize, twice: bool },
    /// It does, and the connection breaks right behind it.
    AcknowledgeLost { pick: usize },
    /// It acknowledges with an error.
    Refuse { pick: usize },
    /// It acknowledges with a packet that does not fit, or something that is not in flight.
    Confuse { pick: usize },
}

fn version() -> impl Strategy<Value = u8> {
    prop_oneof![Just(V4), Just(V5)]
}

fn step() -> impl Strategy<Value = Step> {
    let qos = || 0u8..=2;
    let topic = || 0..world::TOPICS.len();
    let filter = || 0..world::FILTERS.len();
    let pick = || any::<u8>().prop_map(usize::from);
    let rarely = || prop::bool::weighted(0.15);
    prop_oneof![
        10 => (version(), rarely(), prop::bool::weighted(0.8), 1u16..7).prop_map(
            |(version, clean, lasting, window)| Step::Connect { version, clean, lasting, window }
        ),
        4 => Just(Step::Vanish),
        3 => rarely().prop_map(|end| Step::Leave { end }),
        12 => (filter(), qos(), rarely())
            .prop_map(|(filter, qos, no_local)| Step::Subscribe { filter, qos, no_local }),
        3 => filter().prop_map(|filter| Step::Unsubscribe { filter }),
        30 => (topic(), qos()).prop_map(|(topic, qos)| Step::Publish { topic, qos }),
        10 => (topic(), qos()).prop_map(|(topic, qos)| Step::Own { topic, qos }),
        1 => (topic(), qos()).prop_map(|(topic, qos)| Step::OwnCut { topic, qos }),
        2 => (topic(), any::<bool>())
            .prop_map(|(topic, at_qos_2)| Step::OwnLost { topic, at_qos_2 }),
        3 => pick().prop_map(|pick| Step::OwnAgain { pick }),
        5 => pick().prop_map(|pick| Step::OwnRelease { pick }),
        40 => (pick(), rarely())
            .prop_map(|(pick, twice)| Step::Acknowledge { pick, twice }),
        3 => pick().prop_map(|pick| Step::AcknowledgeLost { pick }),
        2 => pick().prop_map(|pick| Step::Refuse { pick }),
        3 => pick().prop_map(|pick| Step::Confuse { pick }),
    ]
}

/// A session that lasts and wants everything, so that few sequences are about nothing.
const OPENING: [Step; 2] = [
    Step::Connect { version: V5, clean: false, lasting: true, window: 3 },
    Step::Subscribe { filter: world::EVERYTHING, qos: 2, no_local: false },
];

/// Some thousand steps. The seed is the same in every run; `PROPTEST_RNG_SEED` sets another, and
/// `PROPTEST_CASES` how many sequences there are.
fn agree_with_the_model(site: &Site) {
    let set = |name| std::env::var_os(name).is_some();
    // Where the broker owes something, each attempt at a shorter sequence waits for it in vain.
    let max_shrink_time = 120_000;
    let mut config = Config { failure_persistence: None, max_shrink_time, ..Config::default() };
    if !set("PROPTEST_RNG_SEED") {
        config.rng_seed = RngSeed::Fixed(2026);
    }
    if !set("PROPTEST_CASES") {
        config.cases = 400;
    }
    let steps = prop::collection::vec(step(), 1..80);
    let result = TestRunner::new(config).run(&steps, |steps| {
        let mut world = World::new(site);
        for step in OPENING.iter().chain(&steps) {
            world.step(*step);
        }
        world.end();
        Ok(())
    });
    if let Err(why) = result {
        panic!("{why}");
    }
}

fn settings() -> broker::Settings {
    let mut settings = broker::Settings::default();
    settings.limits.inflight = world::INFLIGHT;
    settings
}

#[test]
fn sessions_in_memory_agree_with_the_model() {
    agree_with_the_model(&site_without_log(settings()));
}

#[test]
fn sessions_with_a_log_agree_with_the_model() {
    agree_with_the_model(&site_with(settings()));
}
