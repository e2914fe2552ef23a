//! As many messages as the server takes: fan-in, fan-out and pairs, at QoS 0 and 1.

use crate::peers::{Kind, Peers, Setting};
use crate::report::{Verdicts, digits, thousands};
use crate::rig::{MANY, Pattern, Rig, Round};
use crate::support::figures::median;
use crate::support::process::Process;
use crate::{Plan, message::PAYLOAD};

/// Of mosquitto's CPU and rate: fuotad is ahead.
const AHEAD: f64 = 1.0;
/// Of stock rumqttd's CPU per delivered message.
const OF_RUMQTTD: f64 = 1.1;
/// Messages of the first look at a server's speed.
const FIRST_LOOK: u64 = 5_000;

/// Cells whose name holds `only`.
pub async fn run(
    peers: &Peers,
    plan: &Plan,
    only: Option<&str>,
    verdicts: &mut Verdicts,
) -> anyhow::Result<()> {
    println!(
        "\nSATURATION: payloads of {PAYLOAD} bytes, {} rounds of about {:?} per server and row",
        plan.rounds, plan.round
    );
    println!(
        "server CPU in us per delivered message; messages delivered per second; lost of those sent\n"
    );
    for pattern in [Pattern::FanIn, Pattern::FanOut, Pattern::Pairs] {
        for qos in [0, 1] {
            let name = format!("{} QoS {qos}", name(pattern));
            if only.is_none_or(|only| name.contains(only)) {
                cell(peers, plan, pattern, qos, &name, verdicts).await?;
            }
        }
    }
    Ok(())
}

fn name(pattern: Pattern) -> String {
    match pattern {
        Pattern::FanIn => format!("fan-in {MANY}->1"),
        Pattern::FanOut => format!("fan-out 1->{MANY}"),
        Pattern::Pairs => format!("{MANY} pairs"),
    }
}

/// A server in a cell.
struct Candidate {
    kind: Kind,
    process: Process,
    rig: Rig,
    /// Messages of a round, so that it lasts about as long as planned.
    messages: u64,
    rounds: Vec<Round>,
}

impl Candidate {
    async fn start(peers: &Peers, kind: Kind, pattern: Pattern, qos: u8) -> anyhow::Result<Self> {
        let process = peers.start(kind, &Setting::default()).await?;
        let rig = Rig::connect(process.address, pattern, qos, false).await?;
        Ok(Self { kind, process, rig, messages: FIRST_LOOK, rounds: Vec::new() })
    }

    async fn round(&mut self) -> anyhow::Result<Round> {
        self.rig.round(&self.process, self.messages).await
    }

    /// Finds out how many messages last as long as a round should.
    async fn calibrate(&mut self, plan: &Plan) -> anyhow::Result<()> {
        for share in [0.25, 1.0] {
            let round = self.round().await?;
            let per_second = self.messages as f64 / round.seconds;
            self.messages = (per_second * plan.round.as_secs_f64() * share) as u64;
        }
        Ok(())
    }

    fn cpu(&self) -> f64 {
        median(self.rounds.iter().map(Round::cpu_per_message))
    }

    fn rate(&self) -> f64 {
        median(self.rounds.iter().map(Round::messages_per_second))
    }

    fn lost(&self) -> u64 {
        self.rounds.iter().map(|round| round.lost).sum()
    }

    fn lost_share(&self) -> f64 {
        let delivered: u64 = self.rounds.iter().map(|round| round.delivered).sum();
        self.lost() as f64 / (self.lost() + delivered) as f64
    }

    fn again(&self) -> u64 {
        self.rounds.iter().map(|round| round.again).sum()
    }
}

async fn cell(
    peers: &Peers,
    plan: &Plan,
    pattern: Pattern,
    qos: u8,
    name: &str,
    verdicts: &mut Verdicts,
) -> anyhow::Result<()> {
    let mut candidates = Vec::new();
    for kind in peers.kinds() {
        let mut candidate = Candidate::start(peers, kind, pattern, qos).await?;
        candidate.calibrate(plan).await?;
        candidates.push(candidate);
    }
    for number in 0..plan.rounds {
        // Who begins changes from round to round.
        for turn in 0..candidates.len() {
            let which = (turn + number) % candidates.len();
            let round = candidates[which].round().await?;
            candidates[which].rounds.push(round);
        }
    }
    for one in &candidates {
        println!(
            "{name:>18} | {:<9} | {:>6} us | {:>9} /s | lost {} ({:.3} %){}",
            one.process.name,
            digits(one.cpu()),
            thousands(one.rate()),
            one.lost(),
            one.lost_share() * 100.0,
            if one.again() > 0 { format!(", again {}", one.again()) } else { String::new() },
        );
    }
    judge(&candidates, qos, name, verdicts);
    Ok(())
}

fn judge(candidates: &[Candidate], qos: u8, name: &str, verdicts: &mut Verdicts) {
    let find = |kind| candidates.iter().find(|one| one.kind == kind);
    let Some(ours) = find(Kind::Fuotad) else { return };
    verdicts.at_most(&format!("{name}, came twice or out of order"), ours.again() as f64, 0.0);
    if qos == 1 {
        verdicts.at_most(&format!("{name}, lost"), ours.lost() as f64, 0.0);
    }
    match find(Kind::Mosquitto) {
        Some(other) => {
            let cpu = ours.cpu() / other.cpu();
            verdicts.at_most(&format!("{name}, CPU of mosquitto's"), cpu, AHEAD);
            let rate = ours.rate() / other.rate();
            verdicts.at_least(&format!("{name}, rate of mosquitto's"), rate, AHEAD);
        }
        None => verdicts.not_judged(&format!("{name}, against mosquitto")),
    }
    match find(Kind::Rumqttd) {
        Some(other) => {
            let cpu = ours.cpu() / other.cpu();
            verdicts.at_most(&format!("{name}, CPU of stock rumqttd's"), cpu, OF_RUMQTTD);
            if qos == 0 {
                let (ours, other) = (ours.lost_share() * 100.0, other.lost_share() * 100.0);
                verdicts.at_most(&format!("{name}, % lost, beside stock rumqttd's"), ours, other);
            }
        }
        None => verdicts.not_judged(&format!("{name}, against stock rumqttd")),
    }
}
