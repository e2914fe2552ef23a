//! The price of a promise: pairs at QoS 1 whose subscribers have sessions that last, so that each
//! message is in the broker's log before it is acknowledged, beside pairs whose sessions do not.

use crate::Plan;
use crate::peers::{Kind, Peers, Setting};
use crate::report::{Verdicts, digits, thousands};
use crate::rig::{MANY, Pattern, Rig, Round};
use crate::support::figures::median;
use crate::support::process::Process;

/// Messages of the first look at a server's speed.
const FIRST_LOOK: u64 = 1_000;

/// A way of keeping.
struct Way {
    name: &'static str,
    kind: Kind,
    sync: Option<&'static str>,
    lasting: bool,
}

const WAYS: [Way; 5] = [
    Way { name: "fuotad, not kept", kind: Kind::Fuotad, sync: None, lasting: false },
    Way { name: "fuotad, never", kind: Kind::Fuotad, sync: Some("never"), lasting: true },
    Way { name: "fuotad, os", kind: Kind::Fuotad, sync: Some("os"), lasting: true },
    Way { name: "fuotad, always", kind: Kind::Fuotad, sync: Some("always"), lasting: true },
    Way { name: "mosquitto", kind: Kind::Mosquitto, sync: None, lasting: true },
];

struct Candidate {
    way: &'static Way,
    process: Process,
    rig: Rig,
    messages: u64,
    rounds: Vec<Round>,
}

/// All ways that there are servers for.
pub async fn run(peers: &Peers, plan: &Plan, verdicts: &mut Verdicts) -> anyhow::Result<()> {
    println!(
        "\nKEPT: {MANY} pairs at QoS 1; `persistence.sync` of fuotad; mosquitto keeps in memory"
    );
    println!("server CPU in us per delivered message; messages delivered per second\n");
    let mut candidates = Vec::new();
    for way in &WAYS {
        if !peers.kinds().contains(&way.kind) {
            continue;
        }
        let setting = Setting { sync: way.sync, ..Setting::default() };
        let process = peers.start(way.kind, &setting).await?;
        let rig = Rig::connect(process.address, Pattern::Pairs, 1, way.lasting).await?;
        let mut one = Candidate { way, process, rig, messages: FIRST_LOOK, rounds: Vec::new() };
        let round = one.rig.round(&one.process, one.messages).await?;
        let planned = round.messages_per_second() * plan.round.as_secs_f64();
        one.messages = (planned as u64).max(FIRST_LOOK);
        candidates.push(one);
    }
    for number in 0..plan.rounds {
        // Who begins changes from round to round.
        for turn in 0..candidates.len() {
            let which = (turn + number) % candidates.len();
            let one = &mut candidates[which];
            let round = one.rig.round(&one.process, one.messages).await?;
            one.rounds.push(round);
        }
    }
    for one in &candidates {
        let of = |figure: fn(&Round) -> f64| median(one.rounds.iter().map(figure));
        println!(
            "{:>18} | {:>6} us | {:>9} /s",
            one.way.name,
            digits(of(Round::cpu_per_message)),
            thousands(of(Round::messages_per_second)),
        );
        let lost: u64 = one.rounds.iter().map(|round| round.lost).sum();
        if one.way.kind == Kind::Fuotad {
            verdicts.at_most(&format!("{}, lost", one.way.name), lost as f64, 0.0);
        }
    }
    Ok(())
}
