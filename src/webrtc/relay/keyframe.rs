//! Where a viewer can start: finds random access points in RTP payloads.

use super::packet::VideoCodec;

const NAL_IDR: u8 = 5;
const NAL_SPS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Whether an RTP payload belongs to the beginning of a random access point: an SPS or the start of an IDR slice
/// (RFC 6184), or the start of a VP8 keyframe (RFC 7741).
///
/// Several packets of one frame may say so (SPS, then IDR): the caller counts the first of an RTP timestamp.
pub(super) fn starts_keyframe(codec: VideoCodec, payload: &[u8]) -> bool {
    match codec {
        VideoCodec::H264 { .. } => h264(payload),
        VideoCodec::Vp8 => vp8(payload).unwrap_or(false),
    }
}

fn h264(payload: &[u8]) -> bool {
    let Some(&header) = payload.first() else { return false };
    match header & 0x1f {
        NAL_IDR | NAL_SPS => true,
        FU_A => payload.get(1).is_some_and(|fu| fu & 0x80 != 0 && fu & 0x1f == NAL_IDR),
        STAP_A => stap_a_types(payload).any(|t| t == NAL_IDR || t == NAL_SPS),
        _ => false,
    }
}

/// NAL unit types inside an aggregation packet, up to the first length that does not fit.
fn stap_a_types(payload: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = payload.get(1..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (size, after) = rest.split_first_chunk::<2>()?;
        let nal = after.get(..usize::from(u16::from_be_bytes(*size)))?;
        rest = &after[nal.len()..];
        nal.first().map(|header| header & 0x1f)
    })
}

fn vp8(payload: &[u8]) -> Option<bool> {
    let descriptor = *payload.first()?;
    let mut at = 1;
    if descriptor & 0x80 != 0 {
        let extension = *payload.get(at)?;
        at += 1;
        if extension & 0x80 != 0 {
            at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
        }
        at += usize::from(extension & 0x40 != 0);
        at += usize::from(extension & 0x30 != 0);
    }
    let starts_first_partition = descriptor & 0x10 != 0 && descriptor & 0x07 == 0;
    Some(starts_first_partition && payload.get(at)? & 0x01 == 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const H264: VideoCodec = VideoCodec::H264 { profile_level_id: None };

    #[test]
    fn h264_table() {
        let table: &[(&[u8], bool)] = &[
            (&[0x67, 0x42], true),
            (&[0x65, 0x88], true),
            (&[0x41, 0x9a], false),
            (&[0x09, 0xf0], false),
            (&[0x7c, 0x85, 0x88], true),
            (&[0x7c, 0x05, 0x88], false),
            (&[0x7c, 0x81, 0x88], false),
            (&[0x78, 0, 1, 0x09, 0, 2, 0x67, 0x42], true),
            (&[0x78, 0, 1, 0x41], false),
            (&[0x78, 0, 9, 0x67], false),
            (&[0x78, 0, 0, 0, 1, 0x65], false),
            (&[], false),
            (&[0x7c], false),
            (&[0x78, 0], false),
        ];
        for (payload, expected) in table {
            assert_eq!(starts_keyframe(H264, payload), *expected, "{payload:02x?}");
        }
    }

    #[test]
    fn vp8_table() {
        let table: &[(&[u8], bool)] = &[
            (&[0x10, 0x00], true),
            (&[0x10, 0x01], false),
            (&[0x00, 0x00], false),
            (&[0x11, 0x00], false),
            (&[0x90, 0x80, 0x7f, 0x00], true),
            (&[0x90, 0x80, 0xff, 0x01, 0x00], true),
            (&[0x90, 0xe0, 0xff, 0x01, 0x05, 0x20, 0x00], true),
            (&[0x90, 0xe0, 0xff, 0x01, 0x05, 0x20, 0x01], false),
            (&[], false),
            (&[0x90], false),
            (&[0x90, 0x80], false),
        ];
        for (payload, expected) in table {
            assert_eq!(starts_keyframe(VideoCodec::Vp8, payload), *expected, "{payload:02x?}");
        }
    }
}
