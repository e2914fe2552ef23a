//! Connects per second with tokens, and a thousand at once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::Plan;
use crate::client::Client;
use crate::peers::{Kind, Peers, Setting};
use crate::report::{Verdicts, digits, thousands};
use crate::support::figures::median;
use crate::support::frames;
use crate::support::process::Process;

/// Devices that are registered.
const DEVICES: usize = 2_000;
/// Devices that come and go at the same time.
const AT_A_TIME: usize = 50;
/// Devices that arrive at the same moment.
const CROWD: usize = 1_000;

pub async fn run(peers: &Peers, plan: &Plan, verdicts: &mut Verdicts) -> anyhow::Result<()> {
    println!(
        "\nCONNECTS: {AT_A_TIME} devices at a time connect, get their CONNACK and leave; {DEVICES} accounts\n"
    );
    let accounts = accounts()?;
    let logins = Setting { accounts: Some(&accounts), ..Setting::default() };
    let open = Setting::default();
    let mut candidates = vec![Candidate::start(peers, Kind::Fuotad, &logins, "tokens").await?];
    if peers.mosquitto.is_some() {
        candidates.push(Candidate::start(peers, Kind::Mosquitto, &logins, "passwords").await?);
        candidates.push(Candidate::start(peers, Kind::Mosquitto, &open, "anonymous").await?);
    }
    if peers.rumqttd.is_some() {
        candidates.push(Candidate::start(peers, Kind::Rumqttd, &open, "anonymous").await?);
    }
    for number in 0..=plan.rounds {
        for turn in 0..candidates.len() {
            let which = (turn + number) % candidates.len();
            // The first round counts nothing.
            let length = if number == 0 { plan.round / 4 } else { plan.round };
            candidates[which].round(&accounts, length, number > 0).await?;
        }
    }
    for one in &candidates {
        println!(
            "{:>18} | {:<9} | {:>7} /s | {:>6} us CPU a connect",
            one.with,
            one.process.name,
            thousands(one.rate()),
            digits(median(one.cpu.iter().copied())),
        );
    }
    let ours = candidates[0].rate();
    let theirs = candidates.iter().filter(|one| one.kind == Kind::Mosquitto);
    let theirs = theirs.map(|one| (one.with, one.rate())).collect::<Vec<_>>();
    for (with, rate) in &theirs {
        let what = format!("connects a second with tokens, of mosquitto's, {with}");
        verdicts.at_least(&what, ours / rate, 1.0);
    }
    if theirs.is_empty() {
        verdicts.not_judged("connects a second, against mosquitto");
    }

    let refused = crowd(&candidates[0].process, &accounts).await?;
    verdicts.at_most(&format!("refused of {CROWD} that arrive at once"), refused as f64, 0.0);
    Ok(())
}

/// Device ids and tokens.
fn accounts() -> anyhow::Result<Vec<(String, String)>> {
    (0..DEVICES)
        .map(|number| {
            let mut token = [0u8; 16];
            getrandom::fill(&mut token).map_err(|error| anyhow::anyhow!("{error}"))?;
            Ok((format!("device-{number:05}"), hex::encode(token)))
        })
        .collect()
}

/// A server, and how clients log in there.
struct Candidate {
    kind: Kind,
    with: &'static str,
    process: Process,
    /// Whether accounts are used.
    logins: bool,
    rates: Vec<f64>,
    cpu: Vec<f64>,
}

impl Candidate {
    async fn start(
        peers: &Peers,
        kind: Kind,
        setting: &Setting<'_>,
        with: &'static str,
    ) -> anyhow::Result<Self> {
        let process = peers.start(kind, setting).await?;
        let logins = setting.accounts.is_some();
        Ok(Self { kind, with, process, logins, rates: Vec::new(), cpu: Vec::new() })
    }

    fn rate(&self) -> f64 {
        median(self.rates.iter().copied())
    }

    async fn round(
        &mut self,
        accounts: &[(String, String)],
        length: Duration,
        count: bool,
    ) -> anyhow::Result<()> {
        let cpu = self.process.cpu()?;
        let begin = Instant::now();
        let mut coming = JoinSet::new();
        for share in accounts.chunks(accounts.len() / AT_A_TIME) {
            let (share, logins) = (share.to_vec(), self.logins);
            coming.spawn(come_and_go(self.process.address, share, logins, begin + length));
        }
        let mut connects = 0;
        while let Some(count) = coming.join_next().await {
            connects += count?.with_context(|| format!("at {}", self.process.name))?;
        }
        let seconds = begin.elapsed().as_secs_f64();
        let cpu = self.process.cpu()?.since(&cpu);
        if count {
            self.rates.push(connects as f64 / seconds);
            self.cpu.push(cpu * 1e6 / connects as f64);
        }
        Ok(())
    }
}

/// Connects one device after the other until `end`; how often.
async fn come_and_go(
    address: SocketAddr,
    accounts: Vec<(String, String)>,
    logins: bool,
    end: Instant,
) -> anyhow::Result<u64> {
    let mut count = 0;
    for (id, token) in accounts.iter().cycle() {
        let login = logins.then_some((id.as_str(), token.as_str()));
        let mut client = Client::connect(address, id, login).await?;
        client.stream.write_all(&frames::DISCONNECT).await?;
        // The server closes first, so that no port of this side is kept back for a minute.
        while client.stream.read_buf(&mut client.buffer).await.unwrap_or(0) > 0 {}
        count += 1;
        if Instant::now() >= end {
            break;
        }
    }
    Ok(count)
}

/// Lets many devices arrive at the same moment; how many of them are not let in.
async fn crowd(process: &Process, accounts: &[(String, String)]) -> anyhow::Result<usize> {
    let begin = Instant::now();
    let mut arriving = JoinSet::new();
    for account in accounts.iter().take(CROWD) {
        let (address, (id, token)) = (process.address, account.clone());
        arriving.spawn(async move { Client::connect(address, &id, Some((&id, &token))).await });
    }
    let mut inside = Vec::new();
    let mut refused = 0;
    while let Some(arrived) = arriving.join_next().await {
        match arrived? {
            Ok(client) => inside.push(client),
            Err(error) => {
                if refused == 0 {
                    println!("the first that was not let in: {error:#}");
                }
                refused += 1;
            }
        }
    }
    let took = begin.elapsed().as_secs_f64() * 1e3;
    println!(
        "{:>18} | {:<9} | {} ms until all {CROWD} were in",
        "at once",
        process.name,
        digits(took)
    );
    Ok(refused)
}
