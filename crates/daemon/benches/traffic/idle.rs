//! What an idle device costs: resident memory per connection, over TCP and TLS.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::peers::{Kind, Peers, Setting};
use crate::report::{Verdicts, digits};
use crate::support::process::Process;
use crate::tls::Certificate;

/// Bytes per connection over TCP, and over TLS.
const TCP_BOUND: f64 = 4_000.0;
const TLS_BOUND: f64 = 14_000.0;
/// Devices that connect at the same time.
const CONNECTING: usize = 64;
/// Devices that come before memory is first looked at. Stock rumqttd takes 10,010 in all.
const EARLY: usize = 8;
/// How long a server has to come to rest.
const REST: Duration = Duration::from_secs(2);

pub async fn run(peers: &Peers, devices: usize, verdicts: &mut Verdicts) -> anyhow::Result<()> {
    println!(
        "\nIDLE: {devices} devices, each with a subscription of its own and one PINGREQ done\n"
    );
    for kind in peers.kinds() {
        let process = peers.start(kind, &Setting::default()).await?;
        let address = process.address;
        let open = move || async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            anyhow::Ok(stream)
        };
        let bytes = measure(&process, devices, open).await?;
        show("TCP", kind, &process, bytes, TCP_BOUND, verdicts);
    }
    let certificate = Certificate::make()?;
    for kind in peers.kinds() {
        if kind == Kind::Rumqttd {
            continue;
        }
        let setting = Setting { tls: Some(certificate.files()), ..Setting::default() };
        let process = peers.start(kind, &setting).await?;
        let address = process.address;
        let connector = Arc::new(certificate.connector()?);
        let open = move || {
            let connector = Arc::clone(&connector);
            async move { Certificate::connect(&connector, address).await }
        };
        let bytes = measure(&process, devices, open).await?;
        show("TLS", kind, &process, bytes, TLS_BOUND, verdicts);
    }
    Ok(())
}

fn show(
    over: &str,
    kind: Kind,
    process: &Process,
    bytes: f64,
    bound: f64,
    verdicts: &mut Verdicts,
) {
    println!("{over:>18} | {:<9} | {:>6} bytes a connection", process.name, digits(bytes));
    if kind == Kind::Fuotad {
        verdicts.at_most(&format!("idle over {over}, bytes a connection"), bytes, bound);
    }
}

/// Bytes of resident memory that each connection adds.
async fn measure<S, F>(
    process: &Process,
    devices: usize,
    open: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> anyhow::Result<f64>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = anyhow::Result<S>> + Send + 'static,
{
    // The first ones pay for what is made once.
    let early = gather(0..EARLY, &open).await;
    let early = early.with_context(|| format!("at {}", process.name))?;
    tokio::time::sleep(REST).await;
    let before = process.resident()?;
    let late = gather(EARLY..EARLY + devices, &open).await;
    let late = late.with_context(|| format!("at {}", process.name))?;
    tokio::time::sleep(REST).await;
    let after = process.resident()?;
    drop((early, late));
    Ok((after as f64 - before as f64) / devices as f64)
}

async fn gather<S, F>(
    numbers: std::ops::Range<usize>,
    open: &(impl Fn() -> F + Clone + Send + Sync + 'static),
) -> anyhow::Result<Vec<Client<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = anyhow::Result<S>> + Send + 'static,
{
    let mut clients = Vec::with_capacity(numbers.len());
    let mut connecting = JoinSet::new();
    for number in numbers {
        if connecting.len() == CONNECTING
            && let Some(client) = connecting.join_next().await
        {
            clients.push(client??);
        }
        let open = open.clone();
        connecting.spawn(async move {
            let id = format!("device-{number:05}");
            let mut client = Client::log_in(open().await?, &id, None).await?;
            client.subscribe(&format!("plant/{id}/commands"), 0).await?;
            client.ping().await?;
            anyhow::Ok(client)
        });
    }
    while let Some(client) = connecting.join_next().await {
        clients.push(client??);
    }
    Ok(clients)
}
