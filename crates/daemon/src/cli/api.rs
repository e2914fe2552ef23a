//! The client of the admin interface.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde_json::Value;

use crate::{
    config::{Config, Secret},
    token,
};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The same for what takes as long as a disk needs.
const PATIENT: Duration = Duration::from_secs(6 * 3600);
/// The same for what goes on until somebody ends it.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// The longest line of an event that is read, in bytes.
const LONGEST_LINE: usize = 1024 * 1024;
/// Entries asked for at once.
const PAGE: &str = "1000";

/// Where the daemon is, and how to show who asks.
#[derive(Args, Debug)]
pub struct Remote {
    /// Address of the admin interface [default: from the configuration]
    #[arg(long, env = "FUOTAD_URL", value_name = "URL")]
    url: Option<String>,
    /// File with the admin token, or with a token of a user [default: from the configuration]
    #[arg(long, env = "FUOTAD_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Why the daemon did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address cannot be one.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers.
    #[error("cannot reach the daemon at {url}: {reason}; is it running, and is the address right?")]
    Unreachable {
        /// The address that was tried.
        url: String,
        /// What happened.
        reason: String,
    },
    /// No token, or the wrong one.
    #[error("{0}")]
    Unauthorized(String),
    /// The daemon says no, and why.
    #[error("{0}")]
    Refused(String),
    /// The daemon says no to an import, and which rows are to blame.
    #[error("{detail}")]
    Rows {
        /// How many, in a sentence.
        detail: String,
        /// The first of them.
        rows: Vec<Row>,
    },
    /// Something answers that is no fuotad.
    #[error("what answers at {url} is not the admin interface of a fuotad: {reason}")]
    Nonsense {
        /// The address that answered.
        url: String,
        /// What was odd.
        reason: String,
    },
}

/// A row of an import that cannot be added.
#[derive(Debug)]
pub struct Row {
    /// Its place, the first is 0.
    pub row: usize,
    /// Why.
    pub detail: String,
}

/// One daemon's admin interface.
pub struct Api {
    base: Url,
    token: Secret,
    http: reqwest::Client,
    timeout: Duration,
}

impl Api {
    /// From the options, and from the configuration where they say nothing.
    pub fn new(remote: &Remote, config: Option<&Path>) -> anyhow::Result<Self> {
        // With both options given, the configuration of this machine does not matter.
        let config = match (&remote.url, &remote.token_file) {
            (Some(_), Some(_)) => None,
            _ => Some(Config::load(config)?),
        };
        let base = match (&remote.url, &config) {
            (Some(url), _) => url.clone(),
            (None, Some(config)) => default_url(config)?,
            (None, None) => {
                return Err(ApiError::Usage("no address is known; give --url".into()).into());
            }
        };
        let token = match (&remote.token_file, &config) {
            (Some(path), _) => read_token(path)?,
            (None, Some(config)) => match &config.admin.token {
                Some(token) => token.clone(),
                None => read_token(&config.token_path())?,
            },
            (None, None) => {
                return Err(ApiError::Usage("no token is known; give --token-file".into()).into());
            }
        };
        // A certificate of the site's own making is trusted where the configuration names it.
        let trusted = config.and_then(|config| config.admin.tls).map(|files| files.cert);
        Self::with(&base, token, trusted.as_deref())
    }

    /// At that address, with that token; `trusted` is a PEM file with certificates that are
    /// trusted beside those of the system.
    pub fn with(base: &str, token: Secret, trusted: Option<&Path>) -> anyhow::Result<Self> {
        let wrong = |reason: &str| ApiError::Usage(format!("--url {base:?} {reason}"));
        let url: Url = base.parse().map_err(|error| wrong(&format!("is no address: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(wrong("must begin with http:// or https://").into());
        }
        if url.query().is_some() || !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("must not carry a query or a password").into());
        }
        // No proxy and no redirect may see the token.
        let mut http = reqwest::Client::builder();
        if let Some(path) = trusted.filter(|_| url.scheme() == "https") {
            let wrong = || format!("admin.tls.cert: {} holds no certificate", path.display());
            let pem = std::fs::read(path).with_context(wrong)?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).with_context(wrong)?;
            http = http.tls_certs_merge(certificates);
        }
        let http = http
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("no HTTP client can be made")?;
        Ok(Api { base: url, token, http, timeout: TIMEOUT })
    }

    /// The same, for what may take hours.
    pub fn patient(self) -> Self {
        Api { timeout: PATIENT, ..self }
    }

    /// GET of one thing.
    pub async fn get(&self, path: &[&str]) -> anyhow::Result<Value> {
        self.send(Method::GET, path, &[], None::<&()>).await
    }

    /// GET of a whole listing, page by page. `path` ends with the name of the list's field.
    pub async fn list(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> anyhow::Result<Vec<Value>> {
        let field = path.last().copied().unwrap_or_default();
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let mut query: Vec<(&str, String)> = query.to_vec();
            query.push(("limit", PAGE.to_owned()));
            query.extend(after.take().map(|after| ("after", after)));
            let mut page = self.send(Method::GET, path, &query, None::<&()>).await?;
            let Some(Value::Array(entries)) = page.get_mut(field).map(Value::take) else {
                return Err(self.nonsense(&format!("the answer has no list {field:?}")).into());
            };
            // An empty page that promises another would never end.
            let empty = entries.is_empty();
            all.extend(entries);
            match page.get("next") {
                Some(Value::String(next)) if !empty => after = Some(next.clone()),
                _ => return Ok(all),
            }
        }
    }

    /// Any request.
    pub async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&impl Serialize>,
    ) -> anyhow::Result<Value> {
        self.send_with(method, path, query, &[], body).await
    }

    /// Any request, with further headers.
    pub async fn send_with(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        headers: &[(&str, String)],
        body: Option<&impl Serialize>,
    ) -> anyhow::Result<Value> {
        let mut request = self.request(method, path, query);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        self.answer(request).await
    }

    /// POST of a form.
    pub async fn upload(
        &self,
        path: &[&str],
        headers: &[(&str, String)],
        form: reqwest::multipart::Form,
    ) -> anyhow::Result<Value> {
        let mut request = self.request(Method::POST, path, &[]);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        self.answer(request.multipart(form)).await
    }

    /// GET of server-sent events, each given to `heard` with its `id` and the JSON of its `data`,
    /// until that says `false` or the stream ends.
    pub async fn events(
        &self,
        query: &[(&str, String)],
        since: Option<&str>,
        mut heard: impl FnMut(&str, &str) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let mut request = self.request(Method::GET, &["events"], query).timeout(FOREVER);
        if let Some(since) = since {
            request = request.header("Last-Event-ID", since);
        }
        let mut response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if !response.status().is_success() {
            return self.read(response).await.map(drop);
        }
        let (mut rest, mut id, mut data) = (Vec::new(), String::new(), String::new());
        while let Some(piece) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            rest.extend_from_slice(&piece);
            if rest.len() > LONGEST_LINE {
                return Err(self.nonsense("an event has no end").into());
            }
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                match line.trim_end().split_once(':') {
                    Some(("id", value)) => id = value.trim().to_owned(),
                    Some(("data", value)) => data = value.trim().to_owned(),
                    // The empty line behind an event.
                    None if !data.is_empty() && !heard(&id, &std::mem::take(&mut data))? => {
                        return Ok(());
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
    ) -> reqwest::RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.http.request(method, url).timeout(self.timeout).bearer_auth(self.token.expose())
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        self.read(response).await
    }

    async fn read(&self, response: reqwest::Response) -> anyhow::Result<Value> {
        let status = response.status();
        let text = response.text().await.map_err(|error| self.unreachable(&error))?;
        if status == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        let answer: Value = serde_json::from_str(&text)
            .map_err(|_| self.nonsense(&format!("it answers {status} without JSON")))?;
        if status.is_success() {
            return Ok(answer);
        }
        let detail = answer
            .get("detail")
            .and_then(Value::as_str)
            .map_or_else(|| format!("the daemon answers {status}"), super::output::safe);
        Err(match status {
            StatusCode::UNAUTHORIZED => {
                ApiError::Unauthorized(format!("the daemon at {}: {detail}", self.base))
            }
            _ => match answer.get("rows").and_then(Value::as_array) {
                Some(rows) => {
                    let rows = rows.iter().filter_map(row).collect();
                    ApiError::Rows { detail, rows }
                }
                None => ApiError::Refused(detail),
            },
        }
        .into())
    }

    fn unreachable(&self, error: &reqwest::Error) -> ApiError {
        // The innermost cause says it: connection refused, no such host, no answer in time.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        let reason = if error.is_timeout() {
            format!("no answer within {} s", self.timeout.as_secs())
        } else {
            cause.to_string()
        };
        ApiError::Unreachable { url: self.base.to_string(), reason }
    }

    fn nonsense(&self, reason: &str) -> ApiError {
        ApiError::Nonsense { url: self.base.to_string(), reason: reason.to_owned() }
    }
}

fn row(value: &Value) -> Option<Row> {
    let row = value.get("row")?.as_u64()?.try_into().ok()?;
    Some(Row { row, detail: super::output::safe(value.get("detail")?.as_str()?) })
}

fn read_token(path: &Path) -> Result<Secret, ApiError> {
    token::read(path).map_err(|error| {
        let hint = if token::is_missing(&error) {
            "; has the daemon been started with this configuration?"
        } else {
            "; run the command as the daemon's user, or give --token-file"
        };
        ApiError::Unauthorized(format!("{error:#}{hint}"))
    })
}

/// The first address that the admin interface listens on, as seen from this machine.
fn default_url(config: &Config) -> Result<String, ApiError> {
    let mut address: SocketAddr = config
        .admin
        .listen
        .first()
        .copied()
        .ok_or_else(|| ApiError::Usage("admin.listen names no address; give --url".into()))?;
    if address.port() == 0 {
        return Err(ApiError::Usage(
            "admin.listen leaves the port to the system; give --url with the port that start-up printed".into(),
        ));
    }
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let scheme = if config.admin.tls.is_some() { "https" } else { "http" };
    Ok(format!("{scheme}://{address}"))
}
