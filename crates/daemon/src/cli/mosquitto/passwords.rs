//! Mosquitto's password file.

use std::collections::BTreeMap;

/// One user.
#[derive(Debug, PartialEq)]
pub struct Entry {
    /// The first line is 1.
    pub line: usize,
    pub name: String,
    /// As mosquitto wrote it; the daemon says whether it can be used.
    pub hash: String,
}

/// The users of a file, and what is wrong with other lines.
pub fn read(text: &str) -> (Vec<Entry>, Vec<(usize, String)>) {
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    let mut lines = BTreeMap::new();
    for (line, content) in (1..).zip(text.lines()) {
        if content.trim().is_empty() || content.starts_with('#') {
            continue;
        }
        let (name, rest) = content.split_once(':').unwrap_or((content, ""));
        let name = name.trim();
        // What follows a third colon is nothing to mosquitto.
        let hash = rest.split(':').next().unwrap_or_default().trim();
        if name.is_empty() || hash.is_empty() {
            problems.push((line, "it is not NAME:HASH".to_owned()));
        } else if let Some(first) = lines.get(name) {
            problems.push((line, format!("line {first} is about the same user")));
        } else {
            lines.insert(name.to_owned(), line);
            entries.push(Entry { line, name: name.to_owned(), hash: hash.to_owned() });
        }
    }
    (entries, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_mosquitto_wrote() {
        let (entries, problems) =
            read(include_str!("../../../../../tests/fixtures/mosquitto/passwords"));
        assert!(problems.is_empty() && entries.len() == 7);
        assert_eq!((entries[1].line, entries[1].name.as_str()), (2, "node-red"));
        assert!(entries[1].hash.starts_with("$7$101$"));
    }

    #[test]
    fn names_lines_that_are_no_user_and_shows_no_secret() {
        let (entries, problems) =
            read("# users\n\n a : $6$x \r\nsecret\n:secret\nb:\na:secret\nc:$7$1$x$y:more\n");
        let names: Vec<_> =
            entries.iter().map(|entry| (entry.line, &*entry.name, &*entry.hash)).collect();
        assert_eq!(names, [(3, "a", "$6$x"), (8, "c", "$7$1$x$y")]);
        assert_eq!(problems.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4, 5, 6, 7]);
        assert!(problems.iter().all(|(_, text)| !text.contains("secret")));
    }
}
