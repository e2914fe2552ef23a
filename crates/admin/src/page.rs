//! Listings in pages: `limit` and `after` in the query, `next` in the answer.

use axum::http::StatusCode;

use crate::problem::Problem;

/// Entries of a page when the query does not say.
const DEFAULT_LIMIT: usize = 100;
/// The most entries of one page.
const MAX_LIMIT: usize = 1000;

/// How many entries this page may have.
pub fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked {
        None => Ok(DEFAULT_LIMIT),
        Some(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
        Some(_) => {
            Err(Problem::bad_request(format!("limit must be a number from 1 to {MAX_LIMIT}")))
        }
    }
}

/// The `after` of a listing whose keys are numbers.
pub fn number(after: Option<&str>) -> Result<Option<i64>, Problem> {
    let read = after.map(|text| read_number(text).ok_or(()));
    read.transpose().map_err(|()| {
        Problem::bad_request("after must be a number, as the `next` of the page before")
    })
}

/// A number as answers write it: no sign, no zeros in front.
pub fn read_number(text: &str) -> Option<i64> {
    let written =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| written(text))
}

/// A value out of a few.
pub fn one_of<'a>(
    name: &str,
    value: Option<&'a str>,
    values: &[&str],
) -> Result<Option<&'a str>, Problem> {
    match value {
        Some(value) if !values.contains(&value) => Err(Problem::bad_request(format!(
            "{name} must be one of {}, not {value:?}",
            values.join(", ")
        ))),
        value => Ok(value),
    }
}

/// The status of an answer to a request to make something.
pub fn made(is_new: bool) -> StatusCode {
    if is_new { StatusCode::CREATED } else { StatusCode::OK }
}

/// Cuts a list that was asked for with one entry more than the page holds. The second value is
/// the key to ask for the next page with, where there is one.
pub fn cut<T>(
    mut entries: Vec<T>,
    limit: usize,
    key: impl Fn(&T) -> &str,
) -> (Vec<T>, Option<String>) {
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = if more { entries.last().map(|entry| key(entry).to_owned()) } else { None };
    (entries, next)
}

/// The page of a complete list: sorted by key, what stands after `after`, cut.
pub fn of<T>(
    mut entries: Vec<T>,
    after: Option<&str>,
    limit: usize,
    key: impl Fn(&T) -> &str,
) -> (Vec<T>, Option<String>) {
    entries.retain(|entry| after.is_none_or(|after| key(entry) > after));
    entries.sort_by(|a, b| key(a).cmp(key(b)));
    cut(entries, limit, key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_join_to_the_whole() {
        let all = || vec!["d", "a", "c", "b", "e"];
        let (mut seen, mut after, mut pages) = (Vec::new(), None::<String>, 0);
        loop {
            let (page, next) = of(all(), after.as_deref(), 2, |entry| entry);
            seen.extend(page);
            pages += 1;
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!((seen, pages), (vec!["a", "b", "c", "d", "e"], 3));
        assert_eq!(
            of(vec!["a", "b"], None, 2, |entry| entry),
            (vec!["a", "b"], None),
            "a full last page"
        );
    }

    #[test]
    fn numbers_are_as_answers_write_them() {
        assert_eq!(number(Some("17")).unwrap(), Some(17));
        for text in ["", "0", "-1", "+1", "01", "x", "99999999999999999999"] {
            assert!(number(Some(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn limits() {
        assert_eq!(limit(None).unwrap(), 100);
        assert_eq!(limit(Some(1000)).unwrap(), 1000);
        assert!(limit(Some(0)).is_err() && limit(Some(1001)).is_err());
    }
}
