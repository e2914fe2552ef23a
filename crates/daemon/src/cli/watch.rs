//! `--watch`: a deployment or a device is followed to its end, with bars that move.
//!
//! On a terminal there is a bar for the whole and one for each of the first transfers that run.
//! Elsewhere, as in a log of a script, a line says what changed.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::Value;

use super::{api::Api, deployment, output, table::field};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Bars for single devices.
const DEVICES: usize = 8;

/// Follows a deployment until it is complete or stands still for good.
pub async fn deployment(api: &Api, id: &str) -> anyhow::Result<()> {
    let mut screen = Screen::new()?;
    loop {
        let one = api.get(&["deployments", id]).await?;
        let counts = one["counts"].as_object().cloned().unwrap_or_default();
        let number = |name: &str| counts.get(name).and_then(Value::as_u64).unwrap_or(0);
        let offered: u64 = counts.values().filter_map(Value::as_u64).sum();
        let done = number("updated") + number("updated_unconfirmed");
        let all = offered + one["not_offered"].as_u64().unwrap_or(0);
        let busy = counts.iter().filter(|(_, number)| number.as_u64() > Some(0));
        let parts: Vec<_> = busy.map(|(name, number)| format!("{number} {name}")).collect();
        let state = field(&one, "state");
        let about = format!("{state}, wave {}: {}", field(&one, "wave"), parts.join(", "));
        screen.whole(done, all, &about);
        let is_over = one["complete"] == Value::Bool(true);
        screen.devices(if is_over { Vec::new() } else { running(api, &one).await? });
        if is_over {
            screen.end();
            output::text(&deployment::show::table(std::slice::from_ref(&one)))?;
            let lost = number("failed") + number("silent") + number("cancelled");
            ensure!(state == "running", "the deployment is {state}: {}", field(&one, "reason"));
            ensure!(lost == 0, "{lost} devices did not get it");
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Transfers of a deployment that run, the first of them.
async fn running(api: &Api, deployment: &Value) -> anyhow::Result<Vec<Value>> {
    let query = [("state", "downloading".to_owned()), ("limit", DEVICES.to_string())];
    let found = api.send(Method::GET, &["devices"], &query, None::<&()>).await?;
    let mut devices = found["devices"].as_array().cloned().unwrap_or_default();
    // Another deployment's may be among them.
    devices.retain(|device| device["firmware"]["digest"] == deployment["firmware"]["digest"]);
    Ok(devices)
}

/// Follows the newest offer of a device until it has an outcome.
pub async fn device(api: &Api, id: &str) -> anyhow::Result<()> {
    let mut screen = Screen::new()?;
    loop {
        let one = api.get(&["devices", id]).await?;
        let number = |name: &str| one["progress"][name].as_u64().unwrap_or(0);
        let state = field(&one, "state");
        let about = match state.as_str() {
            "" => "nothing is offered to it".to_owned(),
            state => {
                let stalled = field(&one, "stalled");
                let why = if stalled.is_empty() { stalled } else { format!(": {stalled}") };
                format!("{state} {}{why}", field(&one, "firmware/version"))
            }
        };
        screen.whole(number("chunks_sent"), number("chunks_total"), &about);
        match state.as_str() {
            "updated" | "updated_unconfirmed" => {
                screen.end();
                return output::text(&format!("{about}\n"));
            }
            "failed" | "silent" | "cancelled" => {
                screen.end();
                anyhow::bail!("{about}: {}", field(&one, "reason"));
            }
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Bars on a terminal, lines elsewhere.
struct Screen {
    bars: MultiProgress,
    whole: ProgressBar,
    devices: BTreeMap<String, ProgressBar>,
    style: ProgressStyle,
    /// `Some` where there is no terminal: what was said last.
    said: Option<String>,
}

impl Screen {
    fn new() -> anyhow::Result<Screen> {
        let style = |template| ProgressStyle::with_template(template).context("the progress bar");
        let (bars, whole) = (MultiProgress::new(), ProgressBar::new(0));
        let whole = bars.add(whole);
        whole.set_style(style("{bar:30} {pos}/{len} {msg}")?);
        let is_terminal = std::io::stderr().is_terminal();
        Ok(Screen {
            bars,
            whole,
            devices: BTreeMap::new(),
            style: style("  {bar:20} {pos}/{len} blocks {msg}")?,
            said: (!is_terminal).then(String::new),
        })
    }

    fn whole(&mut self, done: u64, all: u64, about: &str) {
        let about = output::safe(about);
        self.whole.set_length(all);
        self.whole.set_position(done);
        self.whole.set_message(about.clone());
        if let Some(said) = &mut self.said {
            let line = format!("{done}/{all} {about}");
            if *said != line {
                // That nobody reads it is no error.
                let _ = writeln!(std::io::stderr(), "{line}");
                *said = line;
            }
        }
    }

    /// One bar for each of these, and none for others.
    fn devices(&mut self, running: Vec<Value>) {
        let ids: Vec<_> = running.iter().map(|device| field(device, "id")).collect();
        let bars = &self.bars;
        self.devices.retain(|id, bar| {
            let stays = ids.contains(id);
            if !stays {
                bar.finish_and_clear();
                bars.remove(bar);
            }
            stays
        });
        for device in running {
            let number = |name: &str| device["progress"][name].as_u64().unwrap_or(0);
            let bar = self.devices.entry(field(&device, "id")).or_insert_with_key(|id| {
                let bar = bars.add(ProgressBar::new(0));
                bar.set_style(self.style.clone());
                bar.set_message(output::safe(id));
                bar
            });
            bar.set_length(number("chunks_total"));
            bar.set_position(number("chunks_sent"));
        }
    }

    fn end(&mut self) {
        self.devices(Vec::new());
        self.whole.abandon();
    }
}
