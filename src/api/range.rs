//! Which part of a file a `Range` header asks for. Pure. Source: RFC 9110, section 14.

/// What a `Range` header means for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The whole file: no range, or one that is not understood, which a server is to overlook.
    Whole,
    /// From the first byte to the last, both included.
    Part(u64, u64),
    /// Nothing the file has.
    Nothing,
}

/// Reads a `Range` header for a file of `length` bytes. Several ranges at once are answered with the whole file, as a
/// server may.
pub fn wanted(header: Option<&str>, length: u64) -> Wanted {
    match header.and_then(one) {
        None => Wanted::Whole,
        Some((None, None)) => Wanted::Whole,
        Some((None, Some(0))) => Wanted::Nothing,
        Some((None, Some(_))) if length == 0 => Wanted::Nothing,
        Some((None, Some(last))) => Wanted::Part(length.saturating_sub(last), length - 1),
        Some((Some(first), _)) if first >= length => Wanted::Nothing,
        Some((Some(first), Some(last))) if last < first => Wanted::Whole,
        Some((Some(first), last)) => Wanted::Part(first, last.unwrap_or(u64::MAX).min(length - 1)),
    }
}

/// The two numbers of `bytes=A-B`; `None` for anything else.
fn one(header: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, range) = header.split_once('=')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| match text.trim() {
        "" => Some(None),
        // More digits than fit are more bytes than there are.
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => Some(Some(digits.parse().unwrap_or(u64::MAX))),
        _ => None,
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    Some((number(first)?, number(last)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges() {
        for (header, length, means) in [
            (None, 10, Wanted::Whole),
            (Some("bytes=0-"), 10, Wanted::Part(0, 9)),
            (Some("bytes=0-0"), 10, Wanted::Part(0, 0)),
            (Some("bytes=2-5"), 10, Wanted::Part(2, 5)),
            (Some("Bytes = 2 - 5"), 10, Wanted::Part(2, 5)),
            (Some("bytes=2-99"), 10, Wanted::Part(2, 9)),
            (Some("bytes=-3"), 10, Wanted::Part(7, 9)),
            (Some("bytes=-99"), 10, Wanted::Part(0, 9)),
            (Some("bytes=-99999999999999999999999"), 10, Wanted::Part(0, 9)),
            (Some("bytes=0-99999999999999999999999"), 10, Wanted::Part(0, 9)),
            (Some("bytes=10-"), 10, Wanted::Nothing),
            (Some("bytes=99999999999999999999999-"), 10, Wanted::Nothing),
            (Some("bytes=-0"), 10, Wanted::Nothing),
            (Some("bytes=0-"), 0, Wanted::Nothing),
            (Some("bytes=-1"), 0, Wanted::Nothing),
            (Some("bytes=5-2"), 10, Wanted::Whole),
            (Some("bytes=-"), 10, Wanted::Whole),
            (Some("bytes=a-b"), 10, Wanted::Whole),
            (Some("bytes=+1-2"), 10, Wanted::Whole),
            (Some("bytes=0-1,3-4"), 10, Wanted::Whole),
            (Some("lines=0-1"), 10, Wanted::Whole),
            (Some("bytes"), 10, Wanted::Whole),
        ] {
            assert_eq!(wanted(header, length), means, "{header:?} of {length}");
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_in_the_file(header in "(bytes=)?[0-9]{0,22}-?[0-9]{0,22}", length: u64) {
            if let Wanted::Part(first, last) = wanted(Some(&header), length) {
                prop_assert!(first <= last && last < length);
            }
        }

        #[test]
        fn no_header_panics(header in "\\PC*", length in 0_u64..3) {
            wanted(Some(&header), length);
        }
    }
}
