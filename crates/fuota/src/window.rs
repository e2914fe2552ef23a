//! Maintenance windows: when manifests may go out (rule 23).
//!
//! A window is open while the clocks of its place show a time in it. So one that falls into the
//! hour that is left out when summer time begins does not open that day, and one in the hour that
//! comes twice when it ends opens twice. Whether that is now is asked of the wall clock again and
//! again, since that clock may be set; nothing is computed ahead but what is shown to people.

use std::{fmt, str::FromStr};

use hook::clock;
use jiff::{Timestamp, ToSpan as _, civil, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// Windows of one deployment or of the site, at most.
const MAX_WINDOWS: usize = 32;
/// Minutes of a day.
const DAY: u16 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// One window. Its text is `DAYS FROM-TO ZONE`, such as `mon-fri 22:00-04:00 Europe/Berlin`;
/// without days it is every day's. Where TO is not later than FROM, it ends on the day after.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    text: String,
    /// A bit for each day on which it begins, the lowest for Monday.
    days: u8,
    /// Minutes of the day.
    from: u16,
    to: u16,
    zone: TimeZone,
}

/// Why a text is no window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no maintenance window: {problem}; write it as \"mon-fri 22:00-04:00 Europe/Berlin\""
)]
pub struct WindowError {
    text: String,
    problem: String,
}

/// Several windows: open while one of them is. None at all: always open.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Windows(Vec<Window>);

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let wrong = |problem: String| WindowError { text: text.into(), problem };
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let (Some(zone), Some(hours)) = (words.pop(), words.pop()) else {
            return Err(wrong("it has no hours and time zone".into()));
        };
        let days = match words.as_slice() {
            [] => 0x7f,
            [days] => self::days(days).ok_or_else(|| {
                wrong(format!("{days:?} names no days (mon, tue, wed, thu, fri, sat, sun)"))
            })?,
            _ => return Err(wrong("it has more than days, hours and time zone".into())),
        };
        let (from, to) = hours
            .split_once('-')
            .and_then(|(from, to)| Some((minutes(from)?, minutes(to)?)))
            .filter(|(from, _)| *from < DAY)
            .ok_or_else(|| wrong(format!("{hours:?} is not FROM-TO in hours and minutes")))?;
        if from == to {
            return Err(wrong("it ends when it begins; the whole day is 00:00-24:00".into()));
        }
        let zone = TimeZone::get(zone)
            .map_err(|_| wrong(format!("there is no time zone {zone:?} in the tz database")))?;
        Ok(Window {
            text: text.split_whitespace().collect::<Vec<_>>().join(" "),
            days,
            from,
            to,
            zone,
        })
    }
}

/// `mon,wed-fri` as bits.
fn days(text: &str) -> Option<u8> {
    let day = |name: &str| DAYS.iter().position(|day| *day == name.to_ascii_lowercase());
    let mut bits = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut at, last) = (day(first)?, day(last)?);
        loop {
            bits |= 1 << at;
            if at == last {
                break;
            }
            at = (at + 1) % DAYS.len();
        }
    }
    Some(bits)
}

/// `HH:MM`, up to `24:00`, as minutes of the day.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let of_day = hours * 60 + minutes;
    (minutes < 60 && of_day <= DAY).then_some(of_day)
}

impl Window {
    fn is_open(&self, at: Timestamp) -> bool {
        let local = at.to_zoned_datetime(self.zone.clone());
        let minute = local.hour() as u16 * 60 + local.minute() as u16;
        let day = local.weekday().to_monday_zero_offset() as u8;
        let begins = |day: u8| self.days & (1 << day) != 0;
        if self.from < self.to {
            return begins(day) && (self.from..self.to).contains(&minute);
        }
        (begins(day) && minute >= self.from) || (begins((day + 6) % 7) && minute < self.to)
    }

    /// When it opens next, within the next days, from a moment at which it is closed. It opens
    /// when the local clock comes to its beginning, or is set forward over that.
    fn opens(&self, now: Timestamp) -> Option<Timestamp> {
        let today = now.to_zoned_datetime(self.zone.clone()).date();
        let hour = civil::time((self.from / 60) as i8, (self.from % 60) as i8, 0, 0);
        // Two weeks: the one day of a week may be the one on which it is left out.
        let days = (0..15).filter_map(|days| today.checked_add(days.days()).ok());
        let begins = days.flat_map(|day| {
            let at = self.zone.to_ambiguous_timestamp(day.to_datetime(hour));
            [at.earlier().ok(), at.later().ok()]
        });
        let begins = begins.flatten();
        let set = self.zone.following(now).take(2).map(|change| change.timestamp());
        begins.chain(set).filter(|at| *at > now && self.is_open(*at)).min()
    }
}

impl Windows {
    /// From their texts.
    ///
    /// # Errors
    /// The first that is no window, or too many.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Windows, WindowError> {
        if texts.len() > MAX_WINDOWS {
            let problem = format!("there are more than {MAX_WINDOWS}");
            return Err(WindowError { text: texts[MAX_WINDOWS].as_ref().into(), problem });
        }
        Ok(Windows(texts.iter().map(|text| text.as_ref().parse()).collect::<Result<_, _>>()?))
    }

    /// Whether no window ever closes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether manifests may go out at this time, in seconds since 1970. A clock that shows a
    /// time from before this program was made was not set, and opens nothing.
    pub(crate) fn is_open(&self, unix: u64) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let Some(now) = timestamp(unix) else { return false };
        clock::is_set(unix) && self.0.iter().any(|window| window.is_open(now))
    }

    /// Why nothing goes out at this time; `None` where it may.
    pub(crate) fn closed(&self, unix: u64) -> Option<String> {
        if self.is_open(unix) {
            return None;
        }
        if !clock::is_set(unix) {
            return Some(not_set(unix));
        }
        let now = timestamp(unix)?;
        let next = self.0.iter().filter_map(|window| Some((window.opens(now)?, window)));
        Some(match next.min_by_key(|(at, _)| *at) {
            Some((at, window)) => format!(
                "its maintenance window ({self}) is closed until {}",
                at.to_zoned_datetime(window.zone.clone()).strftime("%a %Y-%m-%d %H:%M %Z"),
            ),
            None => format!("its maintenance window ({self}) is closed"),
        })
    }
}

/// Why windows are closed while the clock shows this.
pub(crate) fn not_set(unix: u64) -> String {
    let shows = timestamp(unix).map_or_else(|| "nothing".into(), |at| at.to_string());
    format!(
        "maintenance windows are closed: the server's clock shows {shows}, which is before this program was made"
    )
}

fn timestamp(unix: u64) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(unix).ok()?).ok()
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, window) in self.0.iter().enumerate() {
            let before = if number > 0 { ", " } else { "" };
            write!(f, "{before}{}", window.text)?;
        }
        Ok(())
    }
}

impl TryFrom<Vec<String>> for Windows {
    type Error = WindowError;

    fn try_from(texts: Vec<String>) -> Result<Self, WindowError> {
        Windows::parse(&texts)
    }
}

impl From<Windows> for Vec<String> {
    fn from(windows: Windows) -> Self {
        windows.0.into_iter().map(|window| window.text).collect()
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
