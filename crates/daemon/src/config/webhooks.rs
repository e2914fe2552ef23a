//! `events.webhooks`: who is told over HTTP what happens to the updates.

use std::{collections::BTreeMap, path::Path};

use fuota::AlertKind;
use reqwest::Url;

use super::{read::Reader, secret::Secret, tree::Raw};

const KEY: &str = "events.webhooks";
/// Each has a task and a connection of its own.
const MOST: usize = 16;
const NAMES: [&str; 5] = ["url", "url_file", "secret", "secret_file", "events"];
/// Shorter secrets can be guessed.
const SHORTEST_SECRET: usize = 16;

/// One receiver.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where to. Its path may be what keeps others out, so no output shows it.
    pub url: Secret,
    /// What logs may show of it: scheme, host and port.
    pub shown: String,
    /// What the messages are signed with.
    pub secret: Option<Secret>,
    /// What it is told of; empty: all.
    pub events: Vec<AlertKind>,
}

/// All of them that are right; each of the others is a problem.
pub fn read(reader: &mut Reader<'_>) -> Vec<Webhook> {
    let tables = reader.tables(KEY);
    if tables.len() > MOST {
        reader.problem(KEY, &format!("has {} entries; {MOST} are possible", tables.len()));
    }
    let mut webhooks = Vec::new();
    for (number, table) in tables.iter().enumerate() {
        match webhook(table, reader.base_dir()) {
            Ok(webhook) => webhooks.push(webhook),
            Err(problem) => reader.problem(KEY, &format!("entry {}: {problem}", number + 1)),
        }
    }
    webhooks
}

fn webhook(table: &BTreeMap<String, Raw>, base_dir: &Path) -> Result<Webhook, String> {
    if let Some(unknown) = table.keys().find(|name| !NAMES.contains(&name.as_str())) {
        return Err(format!("{unknown:?} is not known; it takes {}", NAMES.join(", ")));
    }
    let url = secret(table, "url", base_dir)?.ok_or("url is missing")?;
    let shown = check(url.expose())?;
    let secret = secret(table, "secret", base_dir)?;
    if secret.as_ref().is_some_and(|secret| secret.expose().len() < SHORTEST_SECRET) {
        return Err(format!("secret has fewer than {SHORTEST_SECRET} bytes"));
    }
    let events = match table.get("events") {
        None => Vec::new(),
        Some(Raw::List(items)) if !items.is_empty() => {
            items.iter().map(event).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(format!("events must be a list of {}", kinds())),
    };
    Ok(Webhook { url, shown, secret, events })
}

fn event(item: &Raw) -> Result<AlertKind, String> {
    let found = match item {
        Raw::Text(text) => AlertKind::from_name(text),
        _ => None,
    };
    found.ok_or_else(|| format!("{item} is no event; there are {}", kinds()))
}

fn kinds() -> String {
    AlertKind::NAMES.map(|(_, name)| name).join(", ")
}

/// The value itself, or what is in the file that `NAME_file` names.
fn secret(
    table: &BTreeMap<String, Raw>,
    name: &str,
    base_dir: &Path,
) -> Result<Option<Secret>, String> {
    let file = format!("{name}_file");
    let text = |name: &str| match table.get(name) {
        None => Ok(None),
        Some(Raw::Text(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(_) => Err(format!("{name} must be a text")),
    };
    match (text(name)?, text(&file)?) {
        (Some(_), Some(_)) => Err(format!("{name} and {file} are both set; keep one of them")),
        (Some(text), None) => Ok(Some(Secret::new(text))),
        (None, Some(path)) => {
            let path = base_dir.join(path);
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("{file}: {} cannot be read: {error}", path.display()))?;
            match text.trim() {
                "" => Err(format!("{file}: {} is empty", path.display())),
                text => Ok(Some(Secret::new(text.to_owned()))),
            }
        }
        (None, None) => Ok(None),
    }
}

/// What may be shown of an address that may be used.
fn check(url: &str) -> Result<String, String> {
    let url: Url = url.parse().map_err(|error| format!("url is no address: {error}"))?;
    let Some(host) = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https")) else {
        return Err("url must begin with http:// or https://".into());
    };
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("url must not carry a password or a fragment; sign with secret".into());
    }
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Ok(format!("{}://{host}{port}", url.scheme()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, Raw)]) -> Result<Webhook, String> {
        let table = pairs.iter().map(|(name, raw)| ((*name).to_owned(), raw.clone())).collect();
        webhook(&table, Path::new("/nowhere"))
    }

    fn text(text: &str) -> Raw {
        Raw::Text(text.into())
    }

    #[test]
    fn what_is_wrong_is_said_and_no_secret_is_shown() {
        let good = read(&[
            ("url", text("https://chat.example:8443/hooks/T0KEN")),
            ("secret", text("0123456789abcdef")),
            ("events", Raw::List(vec![text("failed"), text("store_away")])),
        ]);
        let good = good.unwrap();
        assert_eq!(good.shown, "https://chat.example:8443");
        assert_eq!(good.events, [AlertKind::Failed, AlertKind::StoreAway]);
        assert!(!format!("{good:?}").contains("T0KEN"));
        let url = ("url", text("http://h/"));
        for (pairs, words) in [
            (vec![], "url is missing"),
            (vec![("url", text("h"))], "no address"),
            (vec![("url", text("ftp://h/"))], "http://"),
            (vec![("url", text("http://a:b@h/"))], "password"),
            (vec![url.clone(), ("secret", text("short"))], "16 bytes"),
            (vec![url.clone(), ("events", Raw::List(vec![]))], "a list of held"),
            (vec![url.clone(), ("events", Raw::List(vec![text("rain")]))], "rain"),
            (vec![url.clone(), ("colour", text("red"))], "colour"),
            (vec![url.clone(), ("url_file", text("f"))], "both set"),
            (vec![("url_file", text("f"))], "/nowhere/f"),
        ] {
            let problem = read(&pairs).unwrap_err();
            assert!(problem.contains(words), "{pairs:?}: {problem}");
        }
    }
}
