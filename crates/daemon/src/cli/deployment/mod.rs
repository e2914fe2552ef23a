//! `fuotad deployment …`.

pub mod show;

use std::path::Path;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{
    api::{Api, ApiError, Remote},
    firmware, output,
    repeat::Repeat,
    table::field,
    watch,
};

/// What to do with deployments.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List deployments, the newest first
    List {
        /// Only those in this state: held, running, paused, cancelled or ended
        #[arg(long, value_name = "NAME")]
        state: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show one deployment and its devices
    Show {
        /// Its number
        id: String,
        /// Follow it until it is complete; fails unless every device got the image
        #[arg(long, conflicts_with = "json")]
        watch: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Deploy firmware, and print the deployment's number
    Create {
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        repeat: Repeat,
        /// Follow it until it is complete; fails unless every device got the image
        #[arg(long, conflicts_with = "json")]
        watch: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Say who would get firmware, who not and why; fails where nobody would
    Plan {
        #[command(flatten)]
        what: What,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Change when and how fast a deployment goes on, at once; what is not named stays
    Set {
        /// Its number
        id: String,
        #[command(flatten)]
        change: Change,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Release a held deployment, or open the next wave of a running one
    Approve(Act),
    /// Stop new offers; what runs finishes
    Pause(Act),
    /// Go on; the failures until now are known
    Resume(Act),
    /// Stop it for good, with the transfers that run; or for one device
    Cancel {
        #[command(flatten)]
        act: Act,
        /// Only for this device: the others go on, and it is offered this no more until a retry
        /// names it
        #[arg(long, value_name = "ID")]
        device: Option<String>,
    },
    /// Offer it again to the devices that it failed for
    Retry {
        #[command(flatten)]
        act: Act,
        /// Only to this device, also where it was cancelled for it
        #[arg(long, value_name = "ID")]
        device: Option<String>,
    },
    /// Cancel it, and give the devices that it reached what they had before
    Rollback(Act),
}

/// Firmware for somebody.
#[derive(Args, Debug)]
pub struct What {
    /// Its id or its path, as `fuotad firmware list` shows them
    firmware: String,
    #[command(flatten)]
    target: Target,
    /// How: all, canary, or waves such as 1,10%,100% [default: as a dropped file]
    #[arg(long, value_name = "PLAN", value_parser = rollout)]
    rollout: Option<Value>,
    /// Pause when this share of a wave has failed, in percent; only with waves
    #[arg(long, value_name = "PERCENT", requires = "rollout")]
    pause_at: Option<u8>,
    /// It may go below the version that devices run
    #[arg(long)]
    downgrade: bool,
    /// Offer it only in this window, instead of in the site's: 'mon-fri 22:00-04:00 Europe/Berlin'
    #[arg(long, value_name = "WINDOW")]
    window: Vec<String>,
    /// Offer it at any time, whatever the site's windows say
    #[arg(long, conflicts_with = "window")]
    any_time: bool,
    /// So many of its transfers at once, at most
    #[arg(long, value_name = "NUMBER")]
    max_transfers: Option<u32>,
    /// So many of its transfers begin in a minute, at most
    #[arg(long, value_name = "NUMBER")]
    starts_per_minute: Option<u32>,
    /// So many firmware bytes a second for all of them, at most
    #[arg(long, value_name = "BYTES")]
    bytes_per_second: Option<u64>,
}

/// What becomes of a deployment.
#[derive(Args, Debug)]
pub struct Change {
    /// Offer it only in this window: 'mon-fri 22:00-04:00 Europe/Berlin'; repeatable
    #[arg(long, value_name = "WINDOW")]
    window: Vec<String>,
    /// Offer it at any time, whatever the site's windows say
    #[arg(long, conflicts_with = "window")]
    any_time: bool,
    /// Offer it in the site's windows
    #[arg(long, conflicts_with_all = ["window", "any_time"])]
    site_windows: bool,
    /// So many of its transfers at once, at most; those that run go on
    #[arg(long, value_name = "NUMBER|none", value_parser = number_or_none)]
    max_transfers: Option<Value>,
    /// So many of its transfers begin in a minute, at most
    #[arg(long, value_name = "NUMBER|none", value_parser = number_or_none)]
    starts_per_minute: Option<Value>,
    /// So many firmware bytes a second for all of them, at most
    #[arg(long, value_name = "BYTES|none", value_parser = number_or_none)]
    bytes_per_second: Option<Value>,
    /// Pause when this share of a wave has failed, in percent
    #[arg(long, value_name = "PERCENT|none", value_parser = number_or_none)]
    pause_at: Option<Value>,
}

impl Change {
    fn patch(self) -> Map<String, Value> {
        let mut patch = Map::new();
        if self.site_windows {
            patch.insert("windows".into(), Value::Null);
        } else if self.any_time || !self.window.is_empty() {
            patch.insert("windows".into(), self.window.into());
        }
        let limits: Map<_, _> = [
            ("transfers", self.max_transfers),
            ("starts_per_minute", self.starts_per_minute),
            ("bytes_per_second", self.bytes_per_second),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
        if !limits.is_empty() {
            patch.insert("limits".into(), limits.into());
        }
        patch.extend(self.pause_at.map(|percent| ("pause_at_percent".into(), percent)));
        patch
    }
}

fn number_or_none(text: &str) -> Result<Value, String> {
    match text {
        "none" => Ok(Value::Null),
        _ => text.parse::<u64>().map(Value::from).map_err(|_| "use a whole number, or none".into()),
    }
}

/// For whom.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Target {
    /// Every device
    #[arg(long)]
    all: bool,
    /// One device
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// The members of a group
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// The devices of a model
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The devices whose labels make this true, such as 'hall=2 and not spare'
    #[arg(long, value_name = "EXPRESSION")]
    labels: Option<String>,
}

/// One deployment to act on.
#[derive(Args, Debug)]
pub struct Act {
    /// Its number
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Does it.
pub async fn run(command: Command, config: Option<&Path>) -> anyhow::Result<()> {
    match command {
        Command::List { state, json, remote } => {
            let query: Vec<_> = state.map(|state| ("state", state)).into_iter().collect();
            let all = Api::new(&remote, config)?.list(&["deployments"], &query).await?;
            if json { output::json(&all) } else { output::text(&show::table(&all)) }
        }
        Command::Show { id, watch: true, remote, .. } => {
            watch::deployment(&Api::new(&remote, config)?, &id).await
        }
        Command::Show { id, json, remote, .. } => {
            let api = Api::new(&remote, config)?;
            let mut one = api.get(&["deployments", &id]).await?;
            let devices = api.list(&["deployments", &id, "devices"], &[]).await?;
            if json {
                one["devices"] = devices.into();
                return output::json(&one);
            }
            output::text(&format!(
                "{}\n{}",
                show::table(std::slice::from_ref(&one)),
                show::members(&devices)
            ))
        }
        Command::Create { what, repeat, watch, json, remote } => {
            let api = Api::new(&remote, config)?;
            let body = what.body(&api).await?;
            let headers = repeat.headers();
            let one =
                api.send_with(Method::POST, &["deployments"], &[], &headers, Some(&body)).await?;
            if json {
                return output::json(&one);
            }
            let id = field(&one, "id");
            output::text(&format!("{id}\n"))?;
            if watch { watch::deployment(&api, &id).await } else { Ok(()) }
        }
        Command::Plan { what, json, remote } => {
            let api = Api::new(&remote, config)?;
            let body = what.body(&api).await?;
            let query = [("dry_run", "true".to_owned())];
            let plan = api.send(Method::POST, &["deployments"], &query, Some(&body)).await?;
            if json {
                output::json(&plan)?
            } else {
                output::text(&show::report(&plan))?
            }
            let devices = plan["devices"].as_array().map_or(0, Vec::len);
            anyhow::ensure!(devices > 0, "nobody would get it");
            Ok(())
        }
        Command::Set { id, change, json, remote } => {
            let patch = change.patch();
            if patch.is_empty() {
                let nothing = "nothing to change is named; see `fuotad deployment set --help`";
                return Err(ApiError::Usage(nothing.into()).into());
            }
            let api = Api::new(&remote, config)?;
            let one = api.send(Method::PATCH, &["deployments", &id], &[], Some(&patch)).await?;
            if json {
                return output::json(&one);
            }
            output::text(&show::table(std::slice::from_ref(&one)))
        }
        Command::Approve(act) => act_on(act, "approve", None, config).await,
        Command::Pause(act) => act_on(act, "pause", None, config).await,
        Command::Resume(act) => act_on(act, "resume", None, config).await,
        Command::Cancel { act, device } => act_on(act, "cancel", device, config).await,
        Command::Retry { act, device } => act_on(act, "retry", device, config).await,
        Command::Rollback(act) => act_on(act, "rollback", None, config).await,
    }
}

async fn act_on(
    act: Act,
    name: &str,
    device: Option<String>,
    config: Option<&Path>,
) -> anyhow::Result<()> {
    let api = Api::new(&act.remote, config)?;
    let query: Vec<_> = device.map(|device| ("device", device)).into_iter().collect();
    let path = ["deployments", &act.id, name];
    let acted = api.send(Method::POST, &path, &query, None::<&()>).await?;
    if act.json {
        return output::json(&acted);
    }
    let mut text = show::table(std::slice::from_ref(&acted));
    if let Some(number) = acted.get("retried") {
        text += &format!("devices that are offered it again: {number}\n");
    }
    for made in acted["rollbacks"].as_array().into_iter().flatten() {
        text += &format!("rolled back by deployment {}\n", made.as_str().unwrap_or_default());
    }
    for left in acted["left"].as_array().into_iter().flatten() {
        text += &format!("left as it is: {}: {}\n", field(left, "device"), field(left, "reason"));
    }
    output::text(&show::lines(&text))
}

impl What {
    async fn body(self, api: &Api) -> anyhow::Result<Value> {
        let Target { all, device, group, model, labels } = self.target;
        let mut target = json!({});
        if all {
            target["all"] = true.into();
        }
        for (name, value) in
            [("device", device), ("group", group), ("model", model), ("labels", labels)]
        {
            if let Some(value) = value {
                target[name] = value.into();
            }
        }
        let firmware = firmware::find(api, &self.firmware).await?;
        let mut body = json!({"firmware": firmware, "target": target, "downgrade": self.downgrade});
        if let Some(mut rollout) = self.rollout {
            if let Some(percent) = self.pause_at {
                anyhow::ensure!(rollout.is_object(), "--pause-at needs a --rollout with waves");
                rollout["pause_at_percent"] = percent.into();
            }
            body["rollout"] = rollout;
        }
        if self.any_time || !self.window.is_empty() {
            body["windows"] = self.window.into();
        }
        for (name, value) in [
            ("transfers", self.max_transfers.map(u64::from)),
            ("starts_per_minute", self.starts_per_minute.map(u64::from)),
            ("bytes_per_second", self.bytes_per_second),
        ] {
            if let Some(value) = value {
                body["limits"][name] = value.into();
            }
        }
        Ok(body)
    }
}

/// `all`, `canary`, or sizes with commas between: `1,10%,100%`.
fn rollout(text: &str) -> Result<Value, String> {
    if matches!(text, "all" | "canary") {
        return Ok(text.into());
    }
    let wave = |part: &str| -> Result<Value, String> {
        let wrong = |_| format!("{part:?} is neither a number of devices nor a share such as 10%");
        Ok(match part.strip_suffix('%') {
            Some(percent) => json!({"percent": percent.parse::<u8>().map_err(wrong)?}),
            None => json!({"count": part.parse::<u32>().map_err(wrong)?}),
        })
    };
    let waves = text.split(',').map(wave).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({"waves": waves}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollouts_as_people_type_them() {
        assert_eq!(rollout("canary"), Ok("canary".into()));
        let waves = json!({"waves": [{"count": 1}, {"percent": 10}, {"percent": 100}]});
        assert_eq!(rollout("1,10%,100%"), Ok(waves));
        for text in ["", "some", "10 %", "1,,2", "300%"] {
            assert!(rollout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_is_named_is_changed() {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            change: Change,
        }
        let patch = |words: &str| {
            let line = Line::try_parse_from(format!("set {words}").split_whitespace());
            line.map(|line| Value::from(line.change.patch())).map_err(|error| error.to_string())
        };
        assert_eq!(patch(""), Ok(json!({})));
        assert_eq!(patch("--site-windows"), Ok(json!({"windows": null})));
        assert_eq!(
            patch("--any-time --pause-at none"),
            Ok(json!({"windows": [], "pause_at_percent": null}))
        );
        assert_eq!(
            patch("--window 22:00-04:00 --max-transfers 5 --bytes-per-second none"),
            Ok(
                json!({"windows": ["22:00-04:00"], "limits": {"transfers": 5, "bytes_per_second": null}})
            )
        );
        for wrong in ["--max-transfers -1", "--pause-at half", "--window a --any-time"] {
            assert!(patch(wrong).is_err(), "{wrong}");
        }
    }
}
