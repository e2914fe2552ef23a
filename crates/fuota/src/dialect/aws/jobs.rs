//! Jobs, as far as an OTA client needs them: a device's offer is its one job.

use hook::clock::unix_now;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    streams,
    words::{TEXT_NUMBER, UNKNOWN_KEY},
};
use crate::dialect::{Offer, Question, Report, ReportedState, json};

/// A request without a payload.
pub const EMPTY_PAYLOAD: &str = "job_request_without_payload";
/// A member that is `null`.
pub const NULL_MEMBER: &str = "null_member";
/// The longest client token that is repeated, and the most that a status may say, in bytes.
const MAX_TOKEN: usize = 128;
const MAX_DETAILS: usize = 4096;
/// The longest name of a job, in bytes.
const MAX_JOB: usize = 128;

/// What is asked, until it is answered.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Asked {
    /// The request's topic.
    topic: String,
    verb: Verb,
    token: Option<String>,
    body: Body,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Verb {
    /// The list of jobs.
    List,
    /// One of them, or the next.
    Get(Option<String>),
    /// The next, and it begins.
    Start,
    Update(String),
}

/// The members of a request.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Body {
    client_token: Option<String>,
    status: Option<String>,
    status_details: Option<Map<String, Value>>,
    expected_version: Option<Number>,
    execution_number: Option<Number>,
    include_job_document: Option<bool>,
    include_job_execution_state: Option<bool>,
}

/// A number, also as a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Number {
    Number(u64),
    Text(String),
}

impl Number {
    fn is(&self, number: u64) -> bool {
        match self {
            Number::Number(given) => *given == number,
            Number::Text(given) => given.trim().parse() == Ok(number),
        }
    }
}

/// What a message below `jobs/` is.
pub enum Read {
    /// With what was tolerated.
    Question(Question, Vec<&'static str>),
    /// It cannot be read: the topic and payload of the answer.
    Wrong(String, String),
    /// Only the service says this.
    Forged,
    /// It is about something else.
    Other,
}

/// Reads a message on `topic`, which ends with `rest`.
pub fn read(topic: &str, rest: &str, payload: &[u8]) -> Read {
    let verb = match rest.split('/').collect::<Vec<_>>()[..] {
        ["get"] => Verb::List,
        ["start-next"] => Verb::Start,
        ["$next", "get"] => Verb::Get(None),
        [job, "get"] if is_job(job) => Verb::Get(Some(job.to_owned())),
        [job, "update"] if is_job(job) => Verb::Update(job.to_owned()),
        ["notify" | "notify-next"] | [.., "accepted" | "rejected"] => return Read::Forged,
        _ => return Read::Other,
    };
    let wrong =
        |code, text, token| Read::Wrong(format!("{topic}/rejected"), rejected(code, text, token));
    let body = match payload.trim_ascii_start() {
        [] => Body::default(),
        // A list would be taken for the members in their order.
        [b'[', ..] => return wrong("InvalidRequest", "the request is no object", None),
        _ => match serde_json::from_slice::<Body>(payload) {
            Ok(body) => body,
            Err(error) if error.is_data() => {
                return wrong("InvalidRequest", "a member is of a wrong type", None);
            }
            Err(_) => return wrong("InvalidJson", "the request is not JSON", None),
        },
    };
    let token = body.client_token.clone().filter(|token| token.len() <= MAX_TOKEN);
    let details =
        body.status_details.as_ref().map_or(0, |details| json!(details).to_string().len());
    if details > MAX_DETAILS {
        let text = format!("statusDetails has more than {MAX_DETAILS} bytes");
        return wrong("InvalidRequest", &text, token.as_deref());
    }
    let asked = Asked { topic: topic.to_owned(), verb, token, body };
    let quirks = quirks(payload, &asked.body);
    Read::Question(serde_json::to_vec(&asked).unwrap_or_default().into(), quirks)
}

/// What is odd about a request that is understood.
fn quirks(payload: &[u8], body: &Body) -> Vec<&'static str> {
    const KNOWN: [&str; 8] = [
        "clientToken",
        "status",
        "statusDetails",
        "expectedVersion",
        "executionNumber",
        "includeJobDocument",
        "includeJobExecutionState",
        "stepTimeoutInMinutes",
    ];
    let numbers = [&body.expected_version, &body.execution_number];
    let text = numbers.iter().any(|number| matches!(number, Some(Number::Text(_))));
    let members: Map<String, Value> = serde_json::from_slice(payload).unwrap_or_default();
    let unknown = members.keys().any(|key| !KNOWN.contains(&&**key));
    let null = members.values().any(Value::is_null);
    let empty = payload.trim_ascii_start().is_empty();
    let odd =
        [(text, TEXT_NUMBER), (unknown, UNKNOWN_KEY), (null, NULL_MEMBER), (empty, EMPTY_PAYLOAD)];
    odd.into_iter().filter(|(met, _)| *met).map(|(_, name)| name).collect()
}

fn is_job(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_JOB
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Whether a payload looks like what the service says about jobs.
pub fn is_notification(payload: &[u8]) -> bool {
    let ours = |key: &str| ["execution", "jobs"].iter().any(|one| key.eq_ignore_ascii_case(one));
    match serde_json::from_slice::<Map<String, Value>>(payload) {
        Ok(read) => read.keys().any(|key| ours(key)),
        Err(_) => json::hidden(payload, &["execution", "jobDocument", "jobId"]).is_some(),
    }
}

pub fn rejected(code: &str, text: &str, token: Option<&str>) -> String {
    let mut answer = json!({ "code": code, "message": text, "timestamp": unix_now() });
    if let Some(token) = token {
        answer["clientToken"] = token.into();
    }
    answer.to_string()
}

/// What is kept of a job with the offer: survives reboots and restarts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Execution {
    job: String,
    started: Option<u64>,
    queued: u64,
    updated: u64,
    version: u64,
    details: Map<String, Value>,
}

impl Execution {
    fn of(offer: &Offer<'_>) -> Execution {
        let job = format!("{}-{}", streams::name(offer.tag), offer.attempt);
        let kept = offer.note.as_deref().and_then(|note| serde_json::from_str(note).ok());
        kept.filter(|kept: &Execution| kept.job == job).unwrap_or_else(|| {
            let now = unix_now();
            let details = Map::new();
            Execution { job, started: None, queued: now, updated: now, version: 1, details }
        })
    }

    fn status(&self) -> &'static str {
        if self.started.is_some() { "IN_PROGRESS" } else { "QUEUED" }
    }

    fn change(&mut self, details: Option<Map<String, Value>>) {
        self.updated = unix_now();
        self.started.get_or_insert(self.updated);
        self.version += 1;
        if let Some(details) = details {
            self.details = details;
        }
    }

    fn summary(&self, offer: &Offer<'_>) -> Value {
        let mut summary = json!({
            "jobId": self.job, "queuedAt": self.queued, "lastUpdatedAt": self.updated,
            "versionNumber": self.version, "executionNumber": offer.attempt,
        });
        if let Some(started) = self.started {
            summary["startedAt"] = started.into();
        }
        summary
    }

    fn full(&self, thing: &str, offer: &Offer<'_>, with_document: bool) -> Value {
        let mut full = self.summary(offer);
        full["thingName"] = thing.into();
        full["status"] = self.status().into();
        full["statusDetails"] = self.details.clone().into();
        if with_document {
            full["jobDocument"] = document(offer);
        }
        full
    }

    fn state(&self, status: &str) -> Value {
        json!({ "status": status, "statusDetails": self.details, "versionNumber": self.version })
    }
}

/// The job document, as FreeRTOS-style agents read it.
fn document(offer: &Offer<'_>) -> Value {
    json!({ "afr_ota": {
        "protocols": ["MQTT"],
        "streamname": streams::name(offer.tag),
        "files": [{
            "filepath": offer.file, "filesize": offer.size, "fileid": 0, "fileType": 0,
            "certfile": "", "sig-sha256-ecdsa": "",
            "sha256": offer.sha256, "version": offer.version,
        }],
    } })
}

/// `notify-next`: the next job, or that there is none.
pub fn notify_next(thing: &str, offer: Option<&Offer<'_>>) -> String {
    let mut event = json!({ "timestamp": unix_now() });
    if let Some(offer) = offer {
        event["execution"] = Execution::of(offer).full(thing, offer, true);
    }
    event.to_string()
}

/// `notify`: the list of jobs, by their status.
pub fn notify(offer: Option<&Offer<'_>>) -> String {
    let mut jobs = Map::new();
    if let Some(offer) = offer {
        let execution = Execution::of(offer);
        jobs.insert(execution.status().into(), json!([execution.summary(offer)]));
    }
    json!({ "timestamp": unix_now(), "jobs": jobs }).to_string()
}

/// The answer to a question.
#[derive(Default)]
pub struct Answered {
    pub topic: String,
    pub payload: String,
    pub note: Option<String>,
    pub report: Option<Report>,
    /// The job is over.
    pub ends: bool,
    /// The device saw its job.
    pub shows: bool,
}

pub fn answer(thing: &str, question: &Question, offer: Option<&Offer<'_>>) -> Answered {
    let Ok(Asked { topic, verb, token, body }) = serde_json::from_slice(question) else {
        return Answered::default(); // it was written above
    };
    let mut answer = json!({ "timestamp": unix_now() });
    if let Some(token) = &token {
        answer["clientToken"] = token.as_str().into();
    }
    let mut answered = Answered { shows: true, ..Answered::default() };
    let with_document = body.include_job_document;
    let mut execution = offer.map(|offer| (Execution::of(offer), offer));
    let refuse = |code: &str, text: &str, state: Option<Value>| {
        let mut refusal: Value =
            serde_json::from_str(&rejected(code, text, token.as_deref())).unwrap_or_default();
        if let Some(state) = state {
            refusal["executionState"] = state;
        }
        Answered {
            topic: format!("{topic}/rejected"),
            payload: refusal.to_string(),
            ..Answered::default()
        }
    };
    if let Verb::Get(Some(job)) | Verb::Update(job) = &verb
        && execution.as_ref().is_none_or(|(execution, _)| execution.job != *job)
    {
        return refuse("ResourceNotFound", "this thing has no such job, or it is over", None);
    }
    match (verb, &mut execution) {
        (Verb::List, execution) => {
            answer["inProgressJobs"] = json!([]);
            answer["queuedJobs"] = json!([]);
            if let Some((execution, offer)) = execution {
                let list = match execution.started {
                    Some(_) => "inProgressJobs",
                    None => "queuedJobs",
                };
                answer[list] = json!([execution.summary(offer)]);
            }
        }
        (Verb::Get(_), Some((execution, offer))) => {
            answer["execution"] = execution.full(thing, offer, with_document.unwrap_or(true));
        }
        (Verb::Start, Some((execution, offer))) => {
            if execution.started.is_none() {
                execution.change(body.status_details);
                answered.note = serde_json::to_string(execution).ok();
            }
            answer["execution"] = execution.full(thing, offer, true);
        }
        (Verb::Get(_) | Verb::Start, None) => {}
        (Verb::Update(_), None) => {}
        (Verb::Update(_), Some((execution, offer))) => {
            let given = body.expected_version;
            if given.is_some_and(|given| !given.is(execution.version)) {
                let state = execution.state(execution.status());
                return refuse("VersionMismatch", "the job has another version", Some(state));
            }
            let status = body.status.unwrap_or_default();
            let details = body.status_details.as_ref();
            let report = match &*status {
                "IN_PROGRESS" => {
                    // The image is there and checked, and the device tries it, or is about to.
                    // Agents say other words there while they fetch.
                    let test = details.and_then(|details| details.get("self_test")?.as_str());
                    matches!(test, Some("ready" | "active")).then_some(ReportedState::Updating)
                }
                "SUCCEEDED" => Some(ReportedState::Updated),
                "FAILED" | "REJECTED" => {
                    let reason = details.and_then(|details| details.get("reason")?.as_str());
                    Some(ReportedState::Failed(match reason {
                        Some(reason) => format!("{}: {reason}", status.to_lowercase()),
                        None => format!("the device says {}", status.to_lowercase()),
                    }))
                }
                "QUEUED" | "CANCELED" | "TIMED_OUT" | "REMOVED" => {
                    let text = "a device cannot give its job this status";
                    let state = execution.state(execution.status());
                    return refuse("InvalidStateTransition", text, Some(state));
                }
                _ => return refuse("InvalidRequest", "status is missing or not known", None),
            };
            answered.ends = status != "IN_PROGRESS";
            execution.change(body.status_details);
            answered.note = serde_json::to_string(execution).ok();
            answered.report =
                report.map(|state| Report { state: Some(state), ..Report::default() });
            if body.include_job_execution_state == Some(true) {
                answer["executionState"] = execution.state(&status);
            }
            if with_document == Some(true) {
                answer["jobDocument"] = document(offer);
            }
        }
    }
    Answered { topic: format!("{topic}/accepted"), payload: answer.to_string(), ..answered }
}
