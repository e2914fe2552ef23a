//! Mosquitto's ACL file as lines of `auth.rules`.
//!
//! Mosquitto asks the lines of the client's user first, then the patterns, in both the denying
//! lines before the others, and denies what none of them allows. The rules stand in that order,
//! so the first that applies decides as mosquitto does. What differs: mosquitto takes every
//! subscription and withholds single messages, here a subscription is allowed where one rule
//! covers it and no earlier denial shares a topic with it. So nobody hears what mosquitto
//! withheld, and who subscribes to more than it may read hears nothing. And mosquitto puts a client id
//! with `/` into a `%c` as it is. Clients choose their ids: who is called `pump-1/cmd` would have the
//! topics of pump-1, which has only `pump-1` to itself, so here such an id is allowed nothing by it.

use std::collections::HashMap;

use fuota::Rule;

/// What became of a file. Numbers are lines, the first is 1.
#[derive(Debug, Default, PartialEq)]
pub struct Translation {
    /// In the order in which they must stand.
    pub rules: Vec<(usize, String)>,
    /// What an operator should know.
    pub notes: Vec<(usize, String)>,
    /// Lines that cannot be a rule; mosquitto itself refuses most of them.
    pub problems: Vec<(usize, String)>,
}

/// Whom a line is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    /// Clients without a user name: lines before the first `user`.
    Anonymous,
    User(String),
    /// A `pattern`.
    Everybody,
}

#[derive(Debug)]
struct Line {
    number: usize,
    who: Who,
    deny: bool,
    rule: String,
}

/// Translates a whole file.
pub fn translate(text: &str) -> Translation {
    let mut translation = Translation::default();
    let mut lines = Vec::new();
    let mut who = Some(Who::Anonymous);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_ascii_end();
        if line.starts_with('#') {
            continue;
        }
        let line = line.trim_start_matches(' ');
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let problem = match (word, rest.trim_ascii()) {
            ("", _) => continue,
            ("topic" | "pattern", "") => Err("it names no topic".to_owned()),
            ("user", "") => Err("it names no user".to_owned()),
            ("user", name) => {
                who = is_account(name).then(|| Who::User(name.to_owned()));
                if who.is_none() {
                    let text = format!(
                        "no account here can have the name {name:?}; its lines are left out"
                    );
                    translation.notes.push((number, text));
                }
                continue;
            }
            ("topic", rest) => match &who {
                Some(who) => entry(number, who.clone(), rest, &mut translation.notes),
                None => continue,
            },
            ("pattern", rest) => entry(number, Who::Everybody, rest, &mut translation.notes),
            _ => Err("it begins with neither topic, pattern nor user".to_owned()),
        };
        match problem {
            Ok(line) => lines.extend(line),
            Err(problem) => translation.problems.push((number, problem)),
        }
    }
    translation.rules = in_order(lines);
    translation
}

/// The users in the order of the file, each with its denials first, and everybody at the end.
fn in_order(mut lines: Vec<Line>) -> Vec<(usize, String)> {
    let mut places = HashMap::new();
    for line in lines.iter().filter(|line| line.who != Who::Everybody) {
        let next = places.len();
        places.entry(line.who.clone()).or_insert(next);
    }
    let place = |who: &Who| places.get(who).copied().unwrap_or(usize::MAX);
    lines.sort_by_cached_key(|line| (place(&line.who), !line.deny, line.number));
    lines.into_iter().map(|line| (line.number, line.rule)).collect()
}

/// `[read|write|readwrite|deny] TOPIC`; `None` where it would allow nothing.
fn entry(
    number: usize,
    who: Who,
    rest: &str,
    notes: &mut Vec<(usize, String)>,
) -> Result<Option<Line>, String> {
    let (access, topic) = match rest.split_once(' ') {
        Some((access, topic)) => (access, topic.trim_ascii()),
        None => ("readwrite", rest),
    };
    let mut note = |text: &str| notes.push((number, text.to_owned()));
    let own = topic.starts_with('$');
    let (verdict, action) = match access {
        "read" => ("allow", "subscribe"),
        "write" if own => {
            note("no client publishes below $ here; it is left out");
            return Ok(None);
        }
        "write" => ("allow", "publish"),
        "readwrite" if own => {
            note("no client publishes below $ here; only the reading is kept");
            ("allow", "subscribe")
        }
        "readwrite" => ("allow", "all"),
        "deny" => {
            note("a subscription that would show a part of this is refused as a whole");
            ("deny", "all")
        }
        _ => {
            return Err(format!(
                "{access:?} is none of read, write, readwrite and deny, which must stand before a \
                 topic with spaces"
            ));
        }
    };
    if who == Who::Everybody && substitutions(topic).contains("%c") {
        note(match verdict {
            "allow" => "a client whose id holds / is allowed nothing by this",
            _ => "a client whose id holds / is denied all from the level with %c on",
        });
    }
    let (whom, pattern) = match &who {
        Who::Anonymous => ("anonymous".to_owned(), topic.replace('%', "%%")),
        Who::User(name) => (format!("user:{name}"), topic.replace('%', "%%")),
        Who::Everybody => ("any".to_owned(), substitutions(topic)),
    };
    let rule = format!("{verdict} {whom} {action} {pattern}");
    // Only what reads back as it was written is the same rule.
    if topic != topic.trim() {
        return Err("its topic begins or ends with a blank that is no space".to_owned());
    }
    match rule.parse::<Rule>() {
        Ok(_) => Ok(Some(Line { number, who, deny: verdict == "deny", rule })),
        Err(error) => Err(error.to_string()),
    }
}

/// `%c` and `%u` mean the same here; any other percent sign stands for itself.
fn substitutions(topic: &str) -> String {
    let mut pattern = String::with_capacity(topic.len());
    let mut rest = topic;
    while let Some((before, after)) = rest.split_once('%') {
        pattern.push_str(before);
        pattern.push_str(if after.starts_with(['c', 'u']) { "%" } else { "%%" });
        rest = after;
    }
    pattern + rest
}

/// Whether rules can name this account; that is decided where rules are read.
fn is_account(name: &str) -> bool {
    !name.contains([',', ' ']) && format!("deny user:{name} all x").parse::<Rule>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(text: &str) -> Translation {
        translate(text)
    }

    #[test]
    fn a_real_file_in_the_order_in_which_mosquitto_asks() {
        let translation = translated(include_str!("../../../../../tests/fixtures/mosquitto/acl"));
        let rules: Vec<_> =
            translation.rules.iter().map(|(line, rule)| (*line, rule.as_str())).collect();
        assert_eq!(
            rules,
            [
                (2, "allow anonymous subscribe public/#"),
                (6, "deny user:grafana all plant/+/secret"),
                (5, "allow user:grafana subscribe plant/#"),
                (22, "allow user:grafana publish notes/grafana"),
                (9, "allow user:node-red all plant/#"),
                (10, "allow user:node-red publish commands/pump 1/start"),
                (11, "allow user:node-red subscribe $SYS/broker/uptime"),
                (15, "deny user:historian all payroll/#"),
                (14, "allow user:historian subscribe #"),
                (16, "allow user:historian all 100%%/load"),
                (19, "deny user:pump-1 all pumps/pump-1/factory"),
                (27, "deny any all pumps/+/locked"),
                (25, "allow any all pumps/%u/#"),
                (26, "allow any publish clients/%c/state"),
                (28, "allow any subscribe news"),
            ]
        );
        let notes: Vec<_> = translation.notes.iter().map(|(line, _)| *line).collect();
        assert_eq!((notes, translation.problems), (vec![6, 15, 19, 26, 27, 29], vec![]));
        let (_, slash) = &translation.notes[3];
        assert!(slash.contains("holds / is allowed nothing"), "{slash}");
    }

    #[test]
    fn odd_lines_mean_what_they_mean_to_mosquitto() {
        let text =
            "  topic a\r\n\ntopic read  b c \ntopic %c/%u\npattern %%c/%x/%\nuser  x:y \ntopic a";
        let rules: Vec<_> = translated(text).rules.into_iter().map(|(_, rule)| rule).collect();
        assert_eq!(
            rules,
            [
                "allow anonymous all a",
                "allow anonymous subscribe b c",
                "allow anonymous all %%c/%%u",
                "allow user:x:y all a",
                "allow any all %%%c/%%x/%%",
            ]
        );
    }

    /// Both sides of what happens then are in the rules of accounts: `a_name_brings_no_level`.
    #[test]
    fn says_where_an_id_with_a_slash_is_another_thing() {
        let text = "pattern a/%c\npattern deny a/%c\npattern a/%u\ntopic a/%c\npattern 100%%c";
        let notes = translated(text).notes;
        let slashes: Vec<_> = notes.iter().filter(|(_, note)| note.contains("holds /")).collect();
        let lines: Vec<_> =
            slashes.iter().map(|(line, note)| (*line, note.contains("denied all"))).collect();
        assert_eq!(lines, [(1, false), (2, true), (5, false)]);
    }

    #[test]
    fn names_what_cannot_be_a_rule() {
        for (line, problem) in [
            ("topics a", "neither topic"),
            ("topic", "no topic"),
            ("user", "no user"),
            ("topic reed a", "none of read"),
            ("topic read a/#/b", "at the end"),
            ("topic read a\u{1}", "control characters"),
            ("topic read a\u{a0}", "blank"),
            ("  # indented", "neither topic"),
            ("topic read $share/g/a", "$share"),
        ] {
            let translation = translated(&format!("# a comment\n{line}\ntopic read a"));
            let [(2, text)] = &translation.problems[..] else { panic!("{line}: {translation:?}") };
            assert!(text.contains(problem), "{line}: {text}");
            assert_eq!(translation.rules.len(), 1, "{line}");
        }
    }

    #[test]
    fn a_name_that_no_account_can_have_is_left_out_with_its_lines() {
        let translation = translated("user a b\ntopic x\nuser a,admin\ntopic x\nuser c\ntopic y");
        assert_eq!(translation.rules, [(6, "allow user:c all y".to_owned())]);
        assert_eq!(translation.notes.len(), 2);
    }
}
