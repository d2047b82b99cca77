//! Tokens: until when one holds, and a signature over who may do what until then.
//!
//! ```text
//! token     = EXPIRY "." SIGNATURE
//! EXPIRY    = seconds since 1970, digits
//! SIGNATURE = HMAC-SHA256(stream_token_secret, ACTION "\n" EXPIRY "\n" NAME), 64 hexadecimal digits
//! ACTION    = "publish" or "play"
//! NAME      = the stream's name without its query; a URL that is played by its address with all of it
//! ```
//!
//! A name has no control characters, so no two wishes have one text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::{Action, Refusal};

/// A token that holds until `expires`.
pub fn sign(secret: &str, action: Action, name: &str, expires: SystemTime) -> String {
    let expiry = expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
    let signature = signer(secret, action, &expiry, name).finalize().into_bytes();
    format!("{expiry}.{}", HEXLOWER.encode(&signature))
}

/// Whether a token lets its bearer do it at `now`.
///
/// # Errors
/// [`Refusal::Token`], or [`Refusal::Expired`] for one that was good.
pub fn check(secret: &str, action: Action, name: &str, token: &str, now: SystemTime) -> Result<(), Refusal> {
    let wrong = Refusal::Token(action);
    let (expiry, signature) = token.split_once('.').ok_or(wrong)?;
    let signature = HEXLOWER_PERMISSIVE.decode(signature.as_bytes()).map_err(|_| wrong)?;
    // In constant time.
    signer(secret, action, expiry, name).verify_slice(&signature).map_err(|_| wrong)?;
    let until: u64 = expiry.parse().map_err(|_| wrong)?;
    match now.duration_since(UNIX_EPOCH).unwrap_or_default() < Duration::from_secs(until) {
        true => Ok(()),
        false => Err(Refusal::Expired),
    }
}

fn signer(secret: &str, action: Action, expiry: &str, name: &str) -> Hmac<Sha256> {
    // HMAC takes a key of any length.
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret.as_bytes())
        .unwrap_or_else(|_| <Hmac<Sha256> as KeyInit>::new(&Default::default()));
    mac.update(format!("{}\n{expiry}\n{name}", action.word()).as_bytes());
    mac
}

/// Whether two texts are the same, in a time that tells nothing of either.
pub fn same(one: &str, other: &str) -> bool {
    let [one, other] = [one, other].map(|text| Sha256::digest(text.as_bytes()));
    one.iter().zip(other.iter()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: &str = "a secret of the operator";

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_token_is_what_openssl_makes_of_it() {
        // printf 'publish\n1764000000\ncam' | openssl dgst -sha256 -hmac 'a secret of the operator'
        let signature = "cbc3406ba64fc3cc3924b9d169065e99a40bf44b364623ffe4014523d0c9c9d5";
        assert_eq!(sign(SECRET, Action::Publish, "cam", at(1_764_000_000)), format!("1764000000.{signature}"));
    }

    #[test]
    fn a_token_holds_until_its_time() {
        let token = sign(SECRET, Action::Play, "cam", at(100));
        assert_eq!(check(SECRET, Action::Play, "cam", &token, at(99)), Ok(()));
        assert_eq!(check(SECRET, Action::Play, "cam", &token.to_uppercase(), at(99)), Ok(()));
        assert_eq!(check(SECRET, Action::Play, "cam", &token, at(100)), Err(Refusal::Expired));
        let later = token.replace("100.", "101.");
        for (secret, action, name, token) in [
            ("another", Action::Play, "cam", token.as_str()),
            (SECRET, Action::Publish, "cam", &token),
            (SECRET, Action::Play, "cam2", &token),
            (SECRET, Action::Play, "cam", &later),
            (SECRET, Action::Play, "cam", &token[..token.len() - 1]),
            (SECRET, Action::Play, "cam", &token[..token.len() - 2]),
            (SECRET, Action::Play, "cam", ""),
            (SECRET, Action::Play, "cam", "."),
            (SECRET, Action::Play, "cam", "99999999999999999999999."),
        ] {
            assert_eq!(check(secret, action, name, token, at(1)), Err(Refusal::Token(action)), "{name} {token}");
        }
    }

    #[test]
    fn texts_are_the_same_or_not() {
        for (one, other, are) in [("", "", true), ("a", "a", true), ("a", "b", false), ("a", "ab", false)] {
            assert_eq!(same(one, other), are);
        }
    }

    proptest! {
        #[test]
        fn any_change_is_found_out(name in "[^\\pC]{1,20}", byte in 0usize..75, flip in 1u8..127) {
            let token = sign(SECRET, Action::Play, &name, at(1_764_000_000));
            let mut bytes = token.clone().into_bytes();
            bytes[byte] ^= flip;
            if let Ok(changed) = String::from_utf8(bytes) {
                let same = changed.eq_ignore_ascii_case(&token);
                let verdict = check(SECRET, Action::Play, &name, &changed, at(0));
                prop_assert_eq!(verdict.is_ok(), same, "{}", changed);
            }
        }

        #[test]
        fn no_token_makes_it_panic(token in "\\PC{0,90}|[0-9]{0,30}\\.[0-9a-f]{0,80}") {
            prop_assert!(check(SECRET, Action::Play, "cam", &token, at(0)).is_err());
        }
    }
}
