//! Names of devices, groups and models (rule 4).

use crate::secret::Key;
use std::sync::Arc;

/// How long a name may be.
const MAX_LENGTH: usize = 128;

/// Whether a device id, group or model has the allowed form
/// `[A-Za-z0-9][A-Za-z0-9._:-]{0,127}`.
pub fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= MAX_LENGTH
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(byte))
}

/// The sentence for a name that [`is_name`] refuses; `what` is "device id", "group" or "model".
pub fn name_problem(what: &str, text: &str) -> String {
    let shown: String = text.chars().take(40).collect();
    format!(
        "the {what} {shown:?} is not a name: use 1 to {MAX_LENGTH} letters, digits, '.', '_', ':' or '-', \
         the first a letter or digit"
    )
}

/// Whether an id has the form that this program gives to clients that are known by a keyed
/// hash only: `t-` (a token) or `c-` (a client id that is no name) and 16 hex digits.
///
/// Nobody may claim such an id by calling himself so.
pub fn is_reserved(id: &str) -> bool {
    let Some(hash) = id.strip_prefix("t-").or_else(|| id.strip_prefix("c-")) else {
        return false;
    };
    hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What a token that no device was registered with is known as: `t-` and 16 hex digits.
pub fn token_id(key: &Key, token: &[u8]) -> Arc<str> {
    format!("t-{}", key.short("token", token)).into()
}

/// What a client is known as by its client id alone: the client id where it is a name, else a
/// fingerprint, `c-` and 16 hex digits.
pub fn client_device_id(key: &Key, client_id: &Arc<str>) -> Arc<str> {
    if is_name(client_id) && !is_reserved(client_id) {
        Arc::clone(client_id)
    } else {
        format!("c-{}", key.short("client", client_id.as_bytes())).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rule_4_names() {
        for good in ["a", "0", "sensor-1", "a.b_c:d-e", &"x".repeat(128)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "ä", "a\0", &"x".repeat(129)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn rule_4_other_client_ids_are_known_by_a_fingerprint() {
        let key = Key::random().expect("entropy");
        assert_eq!(&*client_device_id(&key, &"sensor-1".into()), "sensor-1");
        let odd = client_device_id(&key, &"a/b c".into());
        assert!(is_reserved(&odd) && odd.starts_with("c-"), "{odd}");
        assert_eq!(odd, client_device_id(&key, &"a/b c".into()));
        assert_ne!(odd, client_device_id(&key, &"a/b d".into()));
    }

    #[test]
    fn rule_2_nobody_claims_a_hash_by_calling_himself_so() {
        let key = Key::random().expect("entropy");
        let victim = token_id(&key, b"some token");
        assert!(is_reserved(&victim), "{victim}");
        assert_ne!(client_device_id(&key, &victim), victim);
    }

    proptest! {
        #[test]
        fn every_client_gets_a_name(client_id in "\\PC{0,200}") {
            let key = Key::from_bytes([7; 32]);
            prop_assert!(is_name(&client_device_id(&key, &client_id.into())));
        }
    }
}
