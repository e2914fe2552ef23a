use super::*;

/// Seconds since 1970 of a time in UTC.
fn at(text: &str) -> u64 {
    text.parse::<Timestamp>().unwrap().as_second() as u64
}

fn windows(texts: &[&str]) -> Windows {
    Windows::parse(texts).unwrap()
}

/// The minutes of this UTC day, and the five hours after it, in which it is open: each run as
/// its first minute and the first after it.
fn open(windows: &Windows, day: &str) -> Vec<(String, String)> {
    let start = at(&format!("{day}T00:00:00Z"));
    let shown = |unix: u64| timestamp(unix).unwrap().strftime("%H:%M").to_string();
    let (mut runs, mut since) = (Vec::new(), None);
    for unix in (start..start + 29 * 3600).step_by(60) {
        match (windows.is_open(unix), since) {
            (true, None) => since = Some(unix),
            (false, Some(from)) => {
                runs.push((shown(from), shown(unix)));
                since = None;
            }
            _ => {}
        }
    }
    runs
}

fn runs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect()
}

const BERLIN: &str = "02:10-02:40 Europe/Berlin";

#[test]
fn rule_23_a_window_in_the_hour_that_is_left_out_does_not_open_that_day() {
    // 2026-03-29: at 02:00 the clocks of Berlin are set to 03:00, which is 01:00 UTC.
    assert_eq!(open(&windows(&[BERLIN]), "2026-03-28"), runs(&[("01:10", "01:40")]));
    assert_eq!(open(&windows(&[BERLIN]), "2026-03-29"), runs(&[("00:10", "00:40")]));
    // That was the one of the 30th already: on the 29th there is none.
    let sunday = format!("sun {BERLIN}");
    assert_eq!(open(&windows(&[&sunday]), "2026-03-28"), runs(&[]));
    assert_eq!(open(&windows(&[&sunday]), "2026-03-29"), runs(&[]));
    // It says so: a week later.
    let why = windows(&[&sunday]).closed(at("2026-03-28T12:00:00Z")).unwrap();
    assert!(why.ends_with("closed until Sun 2026-04-05 02:10 CEST"), "{why}");
    // One that goes beyond the hour opens when the clocks are set.
    let longer = windows(&["sun 02:10-04:00 Europe/Berlin"]);
    assert_eq!(open(&longer, "2026-03-29"), runs(&[("01:00", "02:00")]));
    let why = longer.closed(at("2026-03-29T00:59:00Z")).unwrap();
    assert!(why.ends_with("closed until Sun 2026-03-29 03:00 CEST"), "{why}");
    // And one that reaches into it ends there.
    let before = windows(&["sun 01:30-02:30 Europe/Berlin"]);
    assert_eq!(open(&before, "2026-03-29"), runs(&[("00:30", "01:00")]));
}

#[test]
fn rule_23_a_window_in_the_hour_that_comes_twice_opens_twice() {
    // 2026-10-25: at 03:00 the clocks of Berlin are set to 02:00, which is 01:00 UTC.
    let sunday = format!("sun {BERLIN}");
    assert_eq!(
        open(&windows(&[&sunday]), "2026-10-25"),
        runs(&[("00:10", "00:40"), ("01:10", "01:40")])
    );
    let why = windows(&[&sunday]).closed(at("2026-10-25T00:50:00Z")).unwrap();
    assert!(why.ends_with("closed until Sun 2026-10-25 02:10 CET"), "{why}");
    // One over the whole of it is an hour longer than usual.
    let night = windows(&["sun 01:00-04:00 Europe/Berlin"]);
    assert_eq!(open(&night, "2026-10-24"), runs(&[("23:00", "03:00")]));
}

#[test]
fn rule_23_a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
    let night = windows(&["sat 22:00-04:00 Europe/Berlin"]);
    // Summer time begins in the night to Sunday: five hours instead of six.
    assert_eq!(open(&night, "2026-03-28"), runs(&[("21:00", "02:00")]));
    assert_eq!(open(&night, "2026-03-29"), runs(&[("00:00", "02:00")]));
    // It ends in the night to Sunday: seven.
    assert_eq!(open(&night, "2026-10-24"), runs(&[("20:00", "03:00")]));
    // Where the clocks change at midnight itself: Beirut, 2026-03-29, 00:00 is 01:00.
    let beirut = windows(&["sat 23:30-00:30 Asia/Beirut"]);
    assert_eq!(open(&beirut, "2026-03-28"), runs(&[("21:30", "22:00")]));
}

#[test]
fn rule_23_days_and_zones() {
    let weekdays = windows(&["mon-fri 20:00-22:00 America/New_York", "sat,sun 00:00-24:00 UTC"]);
    assert!(weekdays.is_open(at("2026-07-03T00:30:00Z")), "Thursday evening there");
    assert!(!weekdays.is_open(at("2026-07-03T12:00:00Z")));
    assert!(
        weekdays.is_open(at("2026-07-04T12:00:00Z"))
            && weekdays.is_open(at("2026-07-05T23:59:59Z"))
    );
    assert!(!weekdays.is_open(at("2026-07-06T00:00:00Z")));
    assert!(windows(&["sun-mon 00:00-24:00 UTC"]).is_open(at("2026-07-06T00:00:00Z")));
    assert!(Windows::default().is_open(0), "no window never closes");
    let why = weekdays.closed(at("2026-07-06T00:00:00Z")).unwrap();
    assert!(why.ends_with("is closed until Mon 2026-07-06 20:00 EDT"), "{why}");
}

#[test]
fn rule_23_a_clock_that_was_not_set_opens_nothing() {
    let always = windows(&["00:00-24:00 UTC"]);
    assert!(always.is_open(at("2026-07-06T00:00:00Z")));
    assert!(!always.is_open(60));
    let why = always.closed(60).unwrap();
    assert!(why.contains("clock shows 1970-01-01T00:01:00Z"), "{why}");
}

#[test]
fn what_is_no_window_says_why() {
    for (text, why) in [
        ("", "no hours and time zone"),
        ("22:00-04:00", "no hours and time zone"),
        ("22:00-04:00 Mars/Olympus", "no time zone \"Mars/Olympus\""),
        ("22-04 UTC", "not FROM-TO"),
        ("22:00-24:01 UTC", "not FROM-TO"),
        ("24:00-02:00 UTC", "not FROM-TO"),
        ("02:00-02:00 UTC", "ends when it begins"),
        ("monday 02:00-03:00 UTC", "names no days"),
        ("mon 02:00-03:00 Etc UTC", "more than days"),
        ("on mon 02:00-03:00 UTC", "more than days"),
    ] {
        let error = text.parse::<Window>().expect_err(text).to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
    let texts = vec!["02:00-03:00 UTC".to_owned(); MAX_WINDOWS + 1];
    assert!(Windows::parse(&texts).is_err());
}

#[test]
fn texts_round_trip() {
    let json = r#"["Mon-fri 22:00-04:00 Europe/Berlin","00:00-24:00 UTC"]"#;
    let windows: Windows = serde_json::from_str(json).unwrap();
    assert_eq!(serde_json::to_string(&windows).unwrap(), json);
    assert!(serde_json::from_str::<Windows>(r#"["nine to five"]"#).is_err());
}
