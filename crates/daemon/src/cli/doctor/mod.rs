//! `fuotad doctor`: looks at everything that a daemon of this configuration needs, running or
//! not, and says what to do. It changes nothing.

mod machine;
mod network;
#[cfg(test)]
mod tests;

use std::{path::Path, process::ExitCode};

use serde::Serialize;

use super::{exit, output};
use crate::config::Config;

/// Options.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Address of the admin interface [default: from the configuration]
    #[arg(long, env = "FUOTAD_URL", value_name = "URL")]
    url: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// It works, and somebody should look at it.
    Warning,
    /// It does not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    /// What was seen.
    says: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    /// Nothing is a problem.
    healthy: bool,
    findings: Vec<Finding>,
}

fn ok(check: &'static str, says: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Ok, says: says.into(), advice: None }
}

fn warning(check: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Warning, says: says.into(), advice: Some(advice.into()) }
}

fn problem(check: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Problem, says: says.into(), advice: Some(advice.into()) }
}

/// Looks, prints, and fails where something is a problem.
pub async fn run(args: &Args, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let findings = look(config, args.url.as_deref()).await;
    let healthy = findings.iter().all(|finding| finding.verdict != Verdict::Problem);
    let report = Report { healthy, findings };
    if args.json {
        output::json(&report)?;
    } else {
        output::text(&shown(&report))?;
    }
    Ok(if report.healthy { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILURE) })
}

fn shown(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let word = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "PROBLEM",
        };
        text += &format!("{word:<8} {:<14} {}\n", finding.check, output::safe(&finding.says));
        if let Some(advice) = &finding.advice {
            text += &format!("{:<8} {:<14} → {}\n", "", "", output::safe(advice));
        }
    }
    let count = |verdict| report.findings.iter().filter(|one| one.verdict == verdict).count();
    let (problems, warnings) = (count(Verdict::Problem), count(Verdict::Warning));
    text + &match (problems, warnings) {
        (0, 0) => "all is well\n".to_owned(),
        (problems, warnings) => format!("{problems} problems, {warnings} warnings\n"),
    }
}

async fn look(file: Option<&Path>, url: Option<&str>) -> Vec<Finding> {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => {
            let fix = "correct it; docs/configuration.md describes every key";
            return error
                .problems()
                .iter()
                .map(|line| problem("configuration", line.to_string(), fix))
                .collect();
        }
    };
    let mut findings = vec![match &config.file {
        Some(file) => ok("configuration", format!("{} is fine", file.display())),
        None => ok("configuration", "there is no broker.toml here; the defaults apply"),
    }];
    let running = network::ask(&config, url).await;
    findings.extend(network::daemon(&config, &running));
    findings.extend(network::doors(&config));
    findings.extend(network::certificates(&config));
    findings.push(machine::clock());
    findings.push(machine::open_files(&config));
    findings.extend(machine::data_dir(&config, running.is_ok()));
    findings.push(machine::store(&config, running.is_ok()));
    findings
}
