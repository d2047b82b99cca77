//! Aggregate messages: FLV tags in one message (RTMP 1.0 section 7.1.6).

use super::Violation;
use super::message::{Kind, Message};
use super::wire::Reader;
#[cfg(test)]
use bytes::Bytes;

/// More tags than an encoder puts into one message by far, fewer than make a message cost many times its size.
const MAX_TAGS: usize = 4096;

/// The messages inside an aggregate. Their times count from the first one's, which is the aggregate's own.
///
/// # Errors
/// [`Violation::Aggregate`]: a tag reaches past the end, or there are more than 4096.
pub(crate) fn split(message: &Message) -> Result<Vec<Message>, Violation> {
    let mut reader = Reader::new(&message.payload);
    let mut first = None;
    let mut messages = Vec::new();
    while !reader.is_empty() {
        let (kind, time, body) = tag(&mut reader).ok_or(Violation::Aggregate)?;
        let offset = time.wrapping_sub(*first.get_or_insert(time));
        messages.push(Message {
            kind,
            timestamp: message.timestamp.wrapping_add(offset),
            payload: message.payload.slice_ref(body),
        });
        if messages.len() > MAX_TAGS {
            return Err(Violation::Aggregate);
        }
    }
    Ok(messages)
}

fn tag<'a>(reader: &mut Reader<'a>) -> Option<(Kind, u32, &'a [u8])> {
    let kind = Kind::from_id(reader.u8()?);
    let len = reader.u24()?;
    let low = reader.u24()?;
    let high = u32::from(reader.u8()?);
    let _stream = reader.u24()?;
    let body = reader.take(usize::try_from(len).ok()?)?;
    let _back_pointer = reader.u32()?;
    Some((kind, high << 24 | low, body))
}

/// An aggregate of the given tags, for tests.
#[cfg(test)]
pub(crate) fn join(tags: &[(u8, u32, &[u8])]) -> Bytes {
    let mut out = Vec::new();
    for (kind, time, body) in tags {
        let [_, len @ ..] = (body.len() as u32).to_be_bytes();
        let [high, low @ ..] = time.to_be_bytes();
        out.push(*kind);
        out.extend(len);
        out.extend(low);
        out.push(high);
        out.extend([0; 3]);
        out.extend(*body);
        out.extend((body.len() as u32 + 11).to_be_bytes());
    }
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message(payload: Bytes) -> Message {
        Message { kind: Kind::Aggregate, timestamp: 1000, payload }
    }

    #[test]
    fn times_count_from_the_first_tag() {
        let payload = join(&[(9, 0x0100_0000, b"v"), (8, 0x0100_0017, b"aa"), (18, 0x00ff_ffff, b"")]);
        let got = split(&message(payload)).unwrap();
        let times: Vec<_> = got.iter().map(|m| (m.kind, m.timestamp, m.payload.len())).collect();
        assert_eq!(times, [(Kind::Video, 1000, 1), (Kind::Audio, 1023, 2), (Kind::DataAmf0, 999, 0)]);
    }

    #[test]
    fn damage_is_refused() {
        let mut payload = join(&[(9, 0, b"video")]).to_vec();
        payload.pop();
        assert_eq!(split(&message(payload.into())), Err(Violation::Aggregate));
        let many = join(&vec![(9, 0, &b""[..]); MAX_TAGS + 1]);
        assert_eq!(split(&message(many)), Err(Violation::Aggregate));
    }
}
