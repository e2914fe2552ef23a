//! `fuota.limits.groups`: caps over the members of groups, a line for each group.

use std::collections::BTreeMap;

use fuota::Limits;

use super::read::{self, Reader};

const KEY: &str = "fuota.limits.groups";

/// Those lines that can be used; each of the others is a problem.
pub fn groups(reader: &mut Reader<'_>) -> BTreeMap<String, Limits> {
    let mut groups = BTreeMap::new();
    for line in reader.lines(KEY) {
        let read = match group(&line) {
            Ok((name, _)) if groups.contains_key(&name) => {
                Err(format!("{name} has a line already"))
            }
            other => other,
        };
        match read {
            Ok((name, limits)) => drop(groups.insert(name, limits)),
            Err(problem) => reader.problem(
                KEY,
                &format!(
                    "cannot use {line:?}: {problem}; write it as \"NAME transfers=10 bytes_per_second=512kB\""
                ),
            ),
        }
    }
    groups
}

/// `NAME transfers=N bytes_per_second=SIZE`, at least one of the two.
fn group(line: &str) -> Result<(String, Limits), String> {
    let mut words = line.split_whitespace();
    let name = words.next().ok_or("it is empty")?;
    let mut limits = Limits::default();
    for word in words {
        let (key, value) = word.split_once('=').ok_or(format!("{word:?} is no KEY=VALUE"))?;
        let wrong = || format!("{value:?} is no number for {key}");
        match key {
            "transfers" => {
                let number = value.parse().ok().filter(|number| *number > 0);
                limits.transfers = Some(number.ok_or_else(wrong)?);
            }
            "bytes_per_second" => {
                let size = read::size(value).filter(|size| *size > 0);
                limits.bytes_per_second = Some(size.ok_or_else(wrong)?);
            }
            _ => return Err(format!("{key:?} is neither transfers nor bytes_per_second")),
        }
    }
    if limits.is_none() {
        return Err("it caps nothing".into());
    }
    Ok((name.to_owned(), limits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_people_write_them() {
        let (name, limits) = group("hall-2 transfers=10 bytes_per_second=512kB").unwrap();
        assert_eq!((&*name, limits.transfers), ("hall-2", Some(10)));
        assert_eq!(limits.bytes_per_second, Some(512_000));
        for (line, why) in [
            ("hall-2", "caps nothing"),
            ("hall-2 transfers", "no KEY=VALUE"),
            ("hall-2 transfers=0", "no number"),
            ("hall-2 bytes_per_second=fast", "no number"),
            ("hall-2 starts_per_minute=3", "neither"),
        ] {
            assert!(group(line).unwrap_err().contains(why), "{line}");
        }
    }
}
