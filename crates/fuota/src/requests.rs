//! Requests that make something and may be repeated: each is known by its `Idempotency-Key`.
//!
//! What is remembered of one is a keyed hash of what it asked for, so that a second one with the
//! same key is either the same, and nothing is made twice, or refused. Secrets that a request had
//! made are not remembered: they are computed from the site's key and from a number that is drawn
//! for the request, so a repeated one shows them again, also after a restart.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;
use serde::Serialize;

use crate::{
    db::{Op, RequestRow},
    registration::invalid,
    secret::{Key, new_token, random_bytes},
    views::ServiceError,
};

/// The newest requests that are remembered; older ones are forgotten first.
pub const KEPT: usize = 10_000;
/// The longest Idempotency-Key, in bytes.
const LONGEST_KEY: usize = 255;

/// Checks an `Idempotency-Key`.
///
/// # Errors
/// It is empty, too long, or not printable ASCII.
pub fn check_key(key: &str) -> Result<(), ServiceError> {
    let printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if key.is_empty() || key.len() > LONGEST_KEY || !printable {
        return Err(invalid(
            "Idempotency-Key",
            format!("use 1 to {LONGEST_KEY} printable ASCII characters"),
        ));
    }
    Ok(())
}

/// What is known of earlier requests.
#[derive(Default)]
pub struct Requests(Mutex<Known>);

#[derive(Default)]
struct Known {
    by_key: HashMap<(String, String), i64>,
    rows: BTreeMap<i64, RequestRow>,
}

/// One request, as it is made.
pub struct Request {
    /// `None`: it has no key, and cannot be repeated.
    row: Option<RequestRow>,
    /// An earlier one did what this one asks for.
    pub is_done: bool,
}

impl Requests {
    pub fn load(rows: Vec<RequestRow>) -> Requests {
        let mut known = Known::default();
        for row in rows {
            known.add(row);
        }
        Requests(Mutex::new(known))
    }

    /// A request to make `kind`, out of `wanted`.
    ///
    /// # Errors
    /// [`ServiceError::Invalid`] where the key cannot be one; [`ServiceError::Conflict`] where it
    /// was used for something else; [`ServiceError::Unavailable`].
    pub fn open(
        &self,
        site: &Key,
        kind: &'static str,
        key: Option<&str>,
        wanted: &impl Serialize,
    ) -> Result<Request, ServiceError> {
        let Some(key) = key else { return Ok(Request { row: None, is_done: false }) };
        check_key(key)?;
        let unavailable =
            |error: &dyn std::fmt::Display| ServiceError::Unavailable(error.to_string());
        let wanted = serde_json::to_vec(wanted).map_err(|error| unavailable(&error))?;
        let fingerprint = site.request(&wanted);
        let known = self.0.lock();
        if let Some(earlier) = known.find(kind, key) {
            if !earlier.fingerprint.matches(&fingerprint) {
                return Err(ServiceError::Conflict(
                    "the Idempotency-Key was used for another request: use a new one".into(),
                ));
            }
            return Ok(Request { row: Some(earlier.clone()), is_done: true });
        }
        let row = RequestRow {
            id: known.rows.keys().next_back().unwrap_or(&0) + 1,
            kind: kind.into(),
            key: key.into(),
            fingerprint,
            nonce: random_bytes().map_err(|error| unavailable(&error))?,
        };
        Ok(Request { row: Some(row), is_done: false })
    }

    /// It is in the database.
    pub fn done(&self, request: Request) {
        if let Some(mut row) = request.row.filter(|_| !request.is_done) {
            let mut known = self.0.lock();
            // Two that were under way at once have the same number.
            row.id = row.id.max(known.rows.keys().next_back().unwrap_or(&0) + 1);
            known.add(row);
        }
    }
}

impl Known {
    fn find(&self, kind: &str, key: &str) -> Option<&RequestRow> {
        // A pair of texts cannot be looked up by a pair of borrowed ones.
        self.rows.get(self.by_key.get(&(kind.to_owned(), key.to_owned()))?)
    }

    fn add(&mut self, row: RequestRow) {
        self.by_key.insert((row.kind.clone(), row.key.clone()), row.id);
        self.rows.insert(row.id, row);
        while self.rows.len() > KEPT {
            let Some((_, oldest)) = self.rows.pop_first() else { break };
            self.by_key.remove(&(oldest.kind, oldest.key));
        }
    }
}

impl Request {
    /// What remembers it, for the job that makes what it asks for.
    pub fn op(&self) -> Option<Op> {
        self.row.clone().filter(|_| !self.is_done).map(Op::Request)
    }

    /// This number, or the one that the first of these requests gave. It takes the place of
    /// secrets: a request remembers either.
    pub fn number(&mut self, number: u64) -> u64 {
        let Some(row) = &mut self.row else { return number };
        let [first, _] = row.nonce.as_chunks_mut::<8>().0 else { return number };
        if !self.is_done {
            *first = number.to_be_bytes();
        }
        u64::from_be_bytes(*first)
    }

    /// A secret for `subject`: by chance, or the same for every repetition of this request.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn secret(&self, site: &Key, subject: &str) -> Result<String, ServiceError> {
        match &self.row {
            Some(row) => Ok(site.derived(&row.nonce, subject)),
            None => new_token().map_err(|error| ServiceError::Unavailable(error.to_string())),
        }
    }
}

/// What a request asked for is gone since.
pub fn gone(what: &str) -> ServiceError {
    ServiceError::Conflict(format!(
        "a request with this Idempotency-Key made {what}, which was removed since: use a new key"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_for_one_request_and_its_secrets_stay() {
        let (site, requests) = (Key::from_bytes([1; 32]), Requests::default());
        let open = |key, wanted| requests.open(&site, "device", Some(key), &wanted);
        let first = open("k", "pump-1").unwrap();
        assert!(!first.is_done && first.op().is_some());
        let secret = first.secret(&site, "pump-1").unwrap();
        assert!(secret.len() == 40 && secret != first.secret(&site, "pump-2").unwrap());
        requests.done(first);
        let again = open("k", "pump-1").unwrap();
        assert!(again.is_done && again.op().is_none());
        assert_eq!(again.secret(&site, "pump-1").unwrap(), secret);
        assert!(matches!(open("k", "pump-2"), Err(ServiceError::Conflict(_))));
        // Another kind of thing has keys of its own, and another request other secrets.
        let user = requests.open(&site, "user", Some("k"), &"pump-1").unwrap();
        assert!(!user.is_done);
        assert_ne!(user.secret(&site, "pump-1").unwrap(), secret);
        for key in ["", "a\nb", "ä", &"x".repeat(256)] {
            assert!(matches!(open(key, "pump-1"), Err(ServiceError::Invalid { .. })), "{key:?}");
        }
    }

    #[test]
    fn a_number_is_that_of_the_first() {
        let (site, requests) = (Key::from_bytes([1; 32]), Requests::default());
        let open = |key| requests.open(&site, "link", key, &"pump-1").unwrap();
        let mut first = open(Some("k"));
        assert_eq!(first.number(u64::MAX - 5), u64::MAX - 5);
        requests.done(first);
        assert_eq!(open(Some("k")).number(7), u64::MAX - 5);
        assert_eq!((open(Some("l")).number(7), open(None).number(8)), (7, 8));
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let (site, requests) = (Key::from_bytes([1; 32]), Requests::default());
        for number in 0..=KEPT {
            let request = requests.open(&site, "device", Some(&number.to_string()), &number);
            requests.done(request.unwrap());
        }
        let is_known = |number: usize| {
            let key = number.to_string();
            requests.open(&site, "device", Some(&key), &number).unwrap().is_done
        };
        assert!(!is_known(0) && is_known(1) && is_known(KEPT));
    }
}
