//! Listings in pages: `limit` and `after` in the query, `next` in the answer.

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
    let read = after.map(|text| text.parse());
    read.transpose().map_err(|_| {
        Problem::bad_request("after must be a number, as the `next` of the page before")
    })
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
    fn limits() {
        assert_eq!(limit(None).unwrap(), 100);
        assert_eq!(limit(Some(1000)).unwrap(), 1000);
        assert!(limit(Some(0)).is_err() && limit(Some(1001)).is_err());
    }
}
