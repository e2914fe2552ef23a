//! One line of `auth.rules`, such as `allow device subscribe plant/%d/#`.

use std::{borrow::Cow, str::FromStr};

use hook::Role;

/// Roles by the names that rules use.
const ROLES: [(&str, Role); 5] = [
    ("anonymous", Role::Anonymous),
    ("device", Role::Device),
    ("service", Role::Service),
    ("operator", Role::Operator),
    ("admin", Role::Admin),
];

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Publish,
    Subscribe,
}

/// `allow|deny ROLES publish|subscribe|all PATTERN`.
///
/// ROLES is `any`, or names with commas between. PATTERN is a topic filter; in it `%c` stands
/// for the client id, `%u` for the name of the account and `%d` for the device id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub(super) allow: bool,
    pub(super) roles: Vec<Role>,
    /// `None` is both.
    action: Option<Action>,
    pattern: String,
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
        let wrong = |problem| Err(RuleError(text.chars().take(200).collect(), problem));
        // A pattern may hold spaces, the words before it hold none.
        let mut words = text.trim().splitn(4, ' ').map(str::trim);
        let (Some(verdict), Some(roles), Some(action), Some(pattern)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return wrong("write it as `allow ROLE publish PATTERN`");
        };
        let allow = match verdict {
            "allow" => true,
            "deny" => false,
            _ => return wrong("the first word must be allow or deny"),
        };
        let roles: Option<Vec<Role>> = match roles {
            "any" => Some(ROLES.map(|(_, role)| role).into()),
            names => names
                .split(',')
                .map(|name| ROLES.iter().find(|(known, _)| *known == name).map(|(_, role)| *role))
                .collect(),
        };
        let Some(roles) = roles else {
            return wrong(
                "the second word must be any, or of anonymous, device, service, operator, admin, \
                 with commas between",
            );
        };
        let action = match action {
            "publish" => Some(Action::Publish),
            "subscribe" => Some(Action::Subscribe),
            "all" => None,
            _ => return wrong("the third word must be publish, subscribe or all"),
        };
        match pattern_problem(pattern) {
            Some(problem) => wrong(problem),
            None => Ok(Rule { allow, roles, action, pattern: pattern.to_owned() }),
        }
    }
}

impl Rule {
    /// Whether the rule is about this action.
    pub(super) fn is_about(&self, action: Action) -> bool {
        self.action.is_none_or(|about| about == action)
    }

    /// Whether the pattern knows the device id, which not everybody asks for.
    pub(super) fn names_device(&self) -> bool {
        self.pattern.contains("%d")
    }

    /// The pattern for this client. `None` where it names what the client has not, or where a
    /// name would bring a level or a wildcard with it.
    pub(super) fn pattern(&self, subject: &Subject<'_>) -> Option<Cow<'_, str>> {
        if !self.pattern.contains('%') {
            return Some(Cow::Borrowed(&self.pattern));
        }
        let mut pieces = self.pattern.split('%');
        let mut pattern = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let value = match piece.as_bytes().first()? {
                b'c' => subject.client,
                b'u' => subject.user?,
                _ => subject.device?,
            };
            if value.is_empty() || value.contains(['/', '+', '#']) {
                return None;
            }
            pattern.push_str(value);
            pattern.push_str(&piece[1..]);
        }
        Some(Cow::Owned(pattern))
    }
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
    let mut after = pattern.split('%').skip(1);
    if after.any(|rest| !rest.starts_with(['c', 'u', 'd'])) {
        return Some("after % must come c (client id), u (account) or d (device id)");
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
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, problem) in [
            ("", "write it as"),
            ("allow device publish", "write it as"),
            ("permit device publish a", "first word"),
            ("allow devices publish a", "second word"),
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
        for client in ["x/y", "+", "#", ""] {
            assert_eq!(rule.pattern(&Subject { client, ..SUBJECT }), None, "{client}");
        }
        assert_eq!(rule.pattern(&Subject { device: None, ..SUBJECT }), None);
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
