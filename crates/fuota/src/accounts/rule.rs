//! One line of `auth.rules`, such as `allow device subscribe plant/%d/#`.

use std::{borrow::Cow, str::FromStr};

use hook::Role;

use crate::names::is_name;

/// Roles by the names that rules use.
const ROLES: [(&str, Role); 5] = [
    ("anonymous", Role::Anonymous),
    ("device", Role::Device),
    ("service", Role::Service),
    ("operator", Role::Operator),
    ("admin", Role::Admin),
];

/// Before the name of an account, where a role could stand.
const USER: &str = "user:";

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Publish,
    Subscribe,
}

/// `allow|deny WHO publish|subscribe|all PATTERN`.
///
/// WHO is `any`, or roles and `user:NAME` with commas between. PATTERN is a topic filter; in it
/// `%c` stands for the client id, `%u` for the name of the account, `%d` for the device id, and
/// `%%` for a percent sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub(super) allow: bool,
    pub(super) roles: Vec<Role>,
    /// Names of users and registered devices.
    pub(super) accounts: Vec<Box<str>>,
    /// `None` is both.
    action: Option<Action>,
    pattern: Vec<Piece>,
}

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Client,
    Account,
    Device,
}

/// Why a text is no rule.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a rule: {1}")]
pub struct RuleError(String, &'static str);

/// Who asks, as patterns know him.
pub struct Subject<'a> {
    pub client: &'a str,
    pub user: Option<&'a str>,
    pub device: Option<&'a str>,
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Rule, RuleError> {
        let wrong = |problem| RuleError(text.chars().take(200).collect(), problem);
        // A pattern may hold spaces, the words before it hold none.
        let mut words = text.trim().splitn(4, ' ').map(str::trim);
        let (Some(verdict), Some(who), Some(action), Some(pattern)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(wrong("write it as `allow ROLE publish PATTERN`"));
        };
        let allow = match verdict {
            "allow" => true,
            "deny" => false,
            _ => return Err(wrong("the first word must be allow or deny")),
        };
        let (mut roles, mut accounts) = (Vec::new(), Vec::new());
        if who == "any" {
            roles = ROLES.map(|(_, role)| role).into();
        } else {
            for word in who.split(',') {
                match (ROLES.iter().find(|(name, _)| *name == word), word.strip_prefix(USER)) {
                    (Some((_, role)), _) => roles.push(*role),
                    (None, Some(name)) if is_name(name) => accounts.push(name.into()),
                    _ => return Err(wrong(WHO)),
                }
            }
        }
        let action = match action {
            "publish" => Some(Action::Publish),
            "subscribe" => Some(Action::Subscribe),
            "all" => None,
            _ => return Err(wrong("the third word must be publish, subscribe or all")),
        };
        if let Some(problem) = pattern_problem(pattern) {
            return Err(wrong(problem));
        }
        let pattern = pieces(pattern).ok_or_else(|| {
            wrong("after % must come c (client id), u (account), d (device id) or %")
        })?;
        Ok(Rule { allow, roles, accounts, action, pattern })
    }
}

const WHO: &str = "the second word must be any, or of anonymous, device, service, operator, admin \
                   and user:NAME, with commas between";

impl Rule {
    /// Whether the rule is about this action.
    pub(super) fn is_about(&self, action: Action) -> bool {
        self.action.is_none_or(|about| about == action)
    }

    /// Whether the pattern knows the device id, which not everybody asks for.
    pub(super) fn names_device(&self) -> bool {
        self.pattern.contains(&Piece::Device)
    }

    /// The pattern for this client. `None` where it names what the client has not.
    ///
    /// A name that holds a separator or a wildcard would bring levels with it that nobody
    /// meant: an allowing rule is then about nothing, a denying one about all that begins as it
    /// does.
    pub(super) fn pattern(&self, subject: &Subject<'_>) -> Option<Cow<'_, str>> {
        if let [Piece::Text(text)] = &self.pattern[..] {
            return Some(Cow::Borrowed(text));
        }
        let mut pattern = String::new();
        for piece in &self.pattern {
            let value = match piece {
                Piece::Text(text) => {
                    pattern.push_str(text);
                    continue;
                }
                Piece::Client => subject.client,
                Piece::Account => subject.user?,
                Piece::Device => subject.device?,
            };
            if value.is_empty() || value.contains(['/', '+', '#']) {
                if self.allow {
                    return None;
                }
                pattern.truncate(pattern.rfind('/').map_or(0, |slash| slash + 1));
                pattern.push('#');
                return Some(Cow::Owned(pattern));
            }
            pattern.push_str(value);
        }
        Some(Cow::Owned(pattern))
    }
}

/// `None` where a percent sign stands before something else.
fn pieces(pattern: &str) -> Option<Vec<Piece>> {
    let (mut pieces, mut text) = (Vec::new(), String::new());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        let piece = match character {
            '%' => match characters.next()? {
                '%' => None,
                'c' => Some(Piece::Client),
                'u' => Some(Piece::Account),
                'd' => Some(Piece::Device),
                _ => return None,
            },
            _ => None,
        };
        match piece {
            None => text.push(character),
            Some(piece) => {
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text).into()));
                }
                pieces.push(piece);
            }
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.into()));
    }
    Some(pieces)
}

fn pattern_problem(pattern: &str) -> Option<&'static str> {
    if pattern.is_empty() || pattern.len() > 1024 || pattern.chars().any(char::is_control) {
        return Some("the pattern must have 1 to 1024 bytes and no control characters");
    }
    if pattern.starts_with("$share/") {
        return Some("name the filter itself: a rule holds for it with and without $share");
    }
    let mut levels = pattern.split('/').peekable();
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        if (level.contains('+') && level != "+") || (level.contains('#') && (level != "#" || !last))
        {
            return Some("+ stands for one whole level, # for all levels at the end");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SUBJECT: Subject<'_> = Subject { client: "cl", user: Some("us"), device: Some("de") };

    #[test]
    fn reads_what_is_documented() {
        let rule: Rule = "allow device,anonymous subscribe plant/%d/a b/#".parse().unwrap();
        assert!(rule.allow && rule.names_device());
        assert_eq!(rule.roles, [Role::Device, Role::Anonymous]);
        assert!(rule.is_about(Action::Subscribe) && !rule.is_about(Action::Publish));
        assert_eq!(rule.pattern(&SUBJECT).unwrap(), "plant/de/a b/#");
        let rule: Rule = "deny any all x-%c-%u/+".parse().unwrap();
        assert!(!rule.allow && rule.roles.len() == 5 && rule.is_about(Action::Publish));
        assert_eq!(rule.pattern(&SUBJECT).unwrap(), "x-cl-us/+");
        let rule: Rule = "allow user:a:b,device,user:c all 100%%/%%c%u".parse().unwrap();
        assert_eq!((&rule.roles[..], rule.accounts.len()), (&[Role::Device][..], 2));
        assert_eq!((&*rule.accounts[0], &*rule.accounts[1]), ("a:b", "c"));
        assert_eq!(rule.pattern(&SUBJECT).unwrap(), "100%/%cus");
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, problem) in [
            ("", "write it as"),
            ("allow device publish", "write it as"),
            ("permit device publish a", "first word"),
            ("allow devices publish a", "second word"),
            ("allow device,any publish a", "second word"),
            ("allow user: publish a", "second word"),
            ("allow user:a/b publish a", "second word"),
            ("allow device, publish a", "second word"),
            ("allow device read a", "third word"),
            ("allow device publish a/#/b", "at the end"),
            ("allow device publish a+", "whole level"),
            ("allow device publish a/%x", "after %"),
            ("allow device publish a/%", "after %"),
            ("allow device subscribe $share/g/a", "$share"),
        ] {
            let error = text.parse::<Rule>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_brings_no_level_and_no_wildcard() {
        let rule: Rule = "allow any all a/%c/%d".parse().unwrap();
        let deny: Rule = "deny any all a/x%c/%d".parse().unwrap();
        for client in ["x/y", "+", "#", ""] {
            let subject = Subject { client, ..SUBJECT };
            assert_eq!(rule.pattern(&subject), None, "{client}");
            assert_eq!(deny.pattern(&subject).unwrap(), "a/#", "{client}");
        }
        for rule in [rule, deny] {
            assert_eq!(rule.pattern(&Subject { device: None, ..SUBJECT }), None);
        }
        let deny: Rule = "deny any all %c".parse().unwrap();
        assert_eq!(deny.pattern(&Subject { client: "x/y", ..SUBJECT }).unwrap(), "#");
    }

    proptest! {
        #[test]
        fn any_text_is_a_rule_or_an_error(text in "\\PC{0,80}", pattern in "[a%cud/+#$é ]{0,12}") {
            drop(text.parse::<Rule>());
            if let Ok(rule) = format!("allow any all {pattern}").parse::<Rule>() {
                prop_assert!(rule.pattern(&SUBJECT).is_some());
            }
        }
    }
}
