//! What a topic name and a topic filter may be (MQTT 5.0, 4.7).

/// The deepest topic that is taken, in levels: trees of topics and filters are as deep.
pub const MAX_LEVELS: usize = 128;

/// The prefix of a shared subscription: `$share/NAME/FILTER` [MQTT-4.8.2-1].
const SHARE: &str = "$share/";

/// Why a name or filter is refused; the text fits a reason string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// [MQTT-4.7.3-1]
    #[error("a topic has at least one character")]
    Empty,
    /// [MQTT-4.7.3-2]
    #[error("a topic has no null character")]
    Null,
    /// [MQTT-3.3.2-2], [MQTT-4.7.0-1]
    #[error("a topic name has no wildcards")]
    Wildcard,
    /// [MQTT-4.7.1-1], [MQTT-4.7.1-2]
    #[error("a wildcard stands alone in its level, and # in the last one")]
    MisplacedWildcard,
    /// Ours: [`MAX_LEVELS`].
    #[error("a topic has at most 128 levels")]
    TooDeep,
    /// [MQTT-4.8.2-1], [MQTT-4.8.2-2]
    #[error("a shared subscription is $share/NAME/FILTER, and its name has no wildcard")]
    BadShare,
}

/// Checks a topic name, as a PUBLISH or a will carries it.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_name(name: &str) -> Result<(), TopicError> {
    if name.is_empty() {
        return Err(TopicError::Empty);
    }
    let mut levels = 1;
    for byte in name.bytes() {
        match byte {
            0 => return Err(TopicError::Null),
            b'+' | b'#' => return Err(TopicError::Wildcard),
            b'/' => levels += 1,
            _ => {}
        }
    }
    if levels > MAX_LEVELS { Err(TopicError::TooDeep) } else { Ok(()) }
}

/// A checked filter, borrowed from what the client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter<'a> {
    /// The name of the shared subscription's group.
    pub share: Option<&'a str>,
    /// The filter itself, without the share prefix.
    pub levels: &'a str,
}

impl Filter<'_> {
    /// Whether it may match more than one topic.
    pub fn has_wildcards(&self) -> bool {
        self.levels.contains(['+', '#'])
    }
}

/// Checks a topic filter, as a SUBSCRIBE or UNSUBSCRIBE carries it.
///
/// # Errors
/// The first rule that it breaks.
pub fn check_filter(filter: &str) -> Result<Filter<'_>, TopicError> {
    let parsed = match filter.strip_prefix(SHARE) {
        Some(rest) => {
            let (share, levels) = rest.split_once('/').ok_or(TopicError::BadShare)?;
            if share.is_empty() || levels.is_empty() || share.contains(['+', '#']) {
                return Err(TopicError::BadShare);
            }
            Filter { share: Some(share), levels }
        }
        None if filter == "$share" => return Err(TopicError::BadShare),
        None => Filter { share: None, levels: filter },
    };
    if parsed.levels.is_empty() {
        return Err(TopicError::Empty);
    }
    if filter.contains('\0') {
        return Err(TopicError::Null);
    }
    let mut count = 0;
    let mut levels = parsed.levels.split('/').peekable();
    while let Some(level) = levels.next() {
        count += 1;
        let lone = level.len() == 1;
        if level.contains('+') && !lone || level.contains('#') && (!lone || levels.peek().is_some())
        {
            return Err(TopicError::MisplacedWildcard);
        }
    }
    if count > MAX_LEVELS { Err(TopicError::TooDeep) } else { Ok(parsed) }
}

/// Whether a filter (without share prefix) matches a topic name: the plain statement of
/// MQTT 5.0, 4.7, which the index is tested against.
pub fn matches(filter: &str, topic: &str) -> bool {
    // [MQTT-4.7.2-1]
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut filter = filter.split('/');
    let mut topic = topic.split('/');
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(f), Some(t)) if f == t => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        for good in ["a", "/", "a//b", "é/x", "$SYS/x", " ", "tago/data/post"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        assert_eq!(check_name(""), Err(TopicError::Empty));
        assert_eq!(check_name("a\0b"), Err(TopicError::Null));
        assert_eq!(check_name("a/+/b"), Err(TopicError::Wildcard));
        assert_eq!(check_name("a/#"), Err(TopicError::Wildcard));
        assert_eq!(check_name(&"/".repeat(127)), Ok(()));
        assert_eq!(check_name(&"/".repeat(128)), Err(TopicError::TooDeep));
    }

    #[test]
    fn filters() {
        for good in ["a", "#", "+", "+/+", "a/#", "+/a/#", "/", "a//+", "$SYS/#"] {
            assert_eq!(check_filter(good), Ok(Filter { share: None, levels: good }), "{good}");
        }
        for bad in ["a#", "a/#/b", "a+", "+a/b", "#/a", "a/b#"] {
            assert_eq!(check_filter(bad), Err(TopicError::MisplacedWildcard), "{bad}");
        }
        assert_eq!(check_filter("$share/g/a/+"), Ok(Filter { share: Some("g"), levels: "a/+" }));
        for bad in
            ["$share", "$share/", "$share/g", "$share/g/", "$share//a", "$share/g+/a", "$share/#/a"]
        {
            assert_eq!(check_filter(bad), Err(TopicError::BadShare), "{bad}");
        }
        assert_eq!(check_filter("a\0"), Err(TopicError::Null));
    }

    #[test]
    fn matching() {
        for (filter, topic, expected) in [
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/+", "a", false),
            ("a/+", "a/", true),
            ("+", "/a", false),
            ("/+", "/a", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/+", "$SYS/x", true),
            ("a/b", "a/b/c", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,40}|[+#/$a\\x00]{0,20}") {
            let _ = check_name(&text);
            let _ = check_filter(&text);
        }
    }
}
