//! What topic filters have in common.
//!
//! Each function takes filters level by level. A wildcard in the first level never stands for a
//! level that begins with `$` [MQTT-4.7.2-1].

/// Whether every topic that `filter` matches is also matched by `pattern`; a topic without
/// wildcards is a filter that matches itself. In doubt `false`: `+/#` is not said to cover `#`.
pub fn covers(pattern: &str, filter: &str) -> bool {
    if wild_first(pattern) && filter.starts_with('$') {
        return false;
    }
    let (mut pattern, mut filter) = (pattern.split('/'), filter.split('/'));
    loop {
        match (pattern.next(), filter.next()) {
            (Some("#"), _) | (None, None) => return true,
            (None, _) | (_, None) => return false,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

/// Whether there is a topic that both filters match.
pub fn overlaps(one: &str, other: &str) -> bool {
    if (wild_first(one) && other.starts_with('$')) || (wild_first(other) && one.starts_with('$')) {
        return false;
    }
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (None, _) | (_, None) => return false,
            (Some("+"), _) | (_, Some("+")) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

fn wild_first(filter: &str) -> bool {
    filter.starts_with(['+', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_covers_what() {
        for (pattern, filter) in [
            ("a/b", "a/b"),
            ("a/+", "a/b"),
            ("a/+", "a/+"),
            ("a/#", "a"),
            ("a/#", "a/b/#"),
            ("#", "a/+/#"),
            ("$SYS/#", "$SYS/x"),
        ] {
            assert!(covers(pattern, filter), "{pattern} {filter}");
            assert!(overlaps(pattern, filter), "{pattern} {filter}");
        }
        for (pattern, filter) in [
            ("a/b", "a/+"),
            ("a/+", "a/#"),
            ("a", "a/#"),
            ("a/+", "a"),
            ("#", "$SYS/x"),
            ("a/b", "A/b"),
        ] {
            assert!(!covers(pattern, filter), "{pattern} {filter}");
        }
        assert!(overlaps("a/+/c", "a/b/#") && overlaps("#", "secret/x") && overlaps("a/#", "a"));
        assert!(!overlaps("a/b", "a/c") && !overlaps("#", "$SYS/x") && !overlaps("a/+", "a"));
    }

    /// Levels of a small alphabet, so that chance meets every case.
    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just("$c"), Just("+"), Just("")];
        (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(|(mut levels, rest)| {
            if rest {
                levels.push("#");
            }
            levels.join("/")
        })
    }

    /// All topics of up to four levels.
    fn topics() -> Vec<String> {
        let levels = ["a", "b", "$c", ""];
        let mut all: Vec<String> = levels.map(str::to_owned).into();
        let mut last = all.clone();
        for _ in 0..3 {
            last = last
                .iter()
                .flat_map(|head| levels.map(|level| format!("{head}/{level}")))
                .collect();
            all.extend(last.clone());
        }
        all
    }

    proptest! {
        #[test]
        fn they_agree_with_the_topics_one_by_one(one in filter(), other in filter()) {
            let mut both = false;
            let mut outside = false;
            for topic in topics() {
                let (in_one, in_other) = (covers(&one, &topic), covers(&other, &topic));
                both |= in_one && in_other;
                outside |= in_other && !in_one;
            }
            prop_assert!(!covers(&one, &other) || !outside, "{one} covers {other}");
            prop_assert_eq!(overlaps(&one, &other), both, "{} overlaps {}", one, other);
        }
    }
}
