//! The rules as a piece of `broker.toml`.

/// What stands above, since it decides how a migrated site behaves.
const HEAD: &str = "\
# Rules out of mosquitto's ACL file. The first that applies decides. As with mosquitto, what no rule
# allows is denied: by `strict` to devices, but for the topics of firmware updates, and to clients
# without an account; by the last two rules to all others.
# Mosquitto takes every subscription and withholds single messages. Here a subscription is allowed
# as a whole or refused: a client that subscribes to more than it may read must subscribe to less.
";

/// `anonymous` is whether mosquitto let clients in without a user name, where that is known.
pub fn render(rules: &[(usize, String)], anonymous: Option<bool>) -> String {
    let mut text = format!("{HEAD}[auth]\n");
    text.push_str(match anonymous {
        Some(false) => "mode = \"token\"\n",
        Some(true) => "# mosquitto had allow_anonymous true\nmode = \"open\"\n",
        None => "# as mosquitto without allow_anonymous; \"open\" with it\nmode = \"token\"\n",
    });
    text.push_str("strict = true\nrules = [\n");
    for (line, rule) in rules {
        text.push_str(&format!("  {}, # line {line}\n", quoted(rule)));
    }
    text.push_str("  # A service that sends commands to devices needs a line such as\n");
    text.push_str("  # \"allow user:NAME publish fuota/devices/+/down\",\n");
    for closing in ["deny service,operator,admin all #", "deny service,operator,admin all $SYS/#"] {
        text.push_str(&format!("  {},\n", quoted(closing)));
    }
    text.push_str("]\n");
    text
}

/// A basic string of TOML. Rules hold no control characters.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_as_the_rules() {
        let rules = [(1, r#"allow any all a\"b/#"#.to_owned()), (7, "deny any all c".to_owned())];
        for (anonymous, mode) in [(Some(true), "open"), (Some(false), "token"), (None, "token")] {
            let table: toml::Table = render(&rules, anonymous).parse().unwrap();
            let read: Vec<_> = table["auth"]["rules"]
                .as_array()
                .unwrap()
                .iter()
                .map(|rule| rule.as_str())
                .collect();
            assert_eq!(read[..2], [Some(&*rules[0].1), Some(&*rules[1].1)]);
            assert_eq!(read.len(), 4);
            assert!(read.iter().all(|rule| rule.unwrap().parse::<fuota::Rule>().is_ok()));
            assert_eq!(table["auth"]["mode"].as_str(), Some(mode));
            assert_eq!(table["auth"]["strict"].as_bool(), Some(true));
        }
    }
}
