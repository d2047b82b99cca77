//! What a publisher's offer gets: which m-lines are taken, in which codec, in the order of the `codecs` setting. Pure.

use super::sdp::{Codec as Offered, Media, MediaKind, Offer, SdpError, TWCC_URI};
use crate::media::{Codec, Kind, Receive};

/// Profiles of H.264 an offer may name, by preference: constrained baseline, baseline, main, high.
const PROFILES: [&str; 4] = ["42e0", "4200", "4d00", "6400"];

/// The accepted m-lines of an offer, an entry each; the first of a kind is taken.
///
/// # Errors
/// [`SdpError::NoCommonCodecs`] when nothing of it is.
pub(super) fn accept(offer: &str, codecs: &[Codec]) -> Result<Vec<Option<Receive>>, SdpError> {
    let offer = Offer::parse(offer)?;
    let mut taken: Vec<Kind> = Vec::new();
    let mut lines = Vec::new();
    for media in &offer.media {
        let line = receive(media, codecs).filter(|receive| !taken.contains(&receive.kind));
        taken.extend(line.as_ref().map(|receive| receive.kind));
        lines.push(line);
    }
    if taken.is_empty() { Err(SdpError::NoCommonCodecs) } else { Ok(lines) }
}

/// SHA-256 of the certificate that an offer announces: the first m-line's own, else the session's.
///
/// # Errors
/// [`SdpError::Missing`] where there is none.
pub(super) fn fingerprint(offer: &str) -> Result<Vec<u8>, SdpError> {
    let offer = Offer::parse(offer)?;
    let own = offer.media.into_iter().find_map(|media| media.transport.fingerprint);
    own.or(offer.transport.fingerprint).ok_or(SdpError::Missing("a=fingerprint:sha-256"))
}

fn receive(media: &Media<'_>, codecs: &[Codec]) -> Option<Receive> {
    let kind = match media.kind {
        MediaKind::Video => Kind::Video,
        MediaKind::Audio => Kind::Audio,
        MediaKind::Other => return None,
    };
    if !media.direction.sends() || media.port == "0" {
        return None;
    }
    let (codec, offered) = codecs.iter().find_map(|codec| Some((codec, best(media, codec)?)))?;
    Some(Receive {
        kind,
        codec: codec.clone(),
        payload: offered.pt,
        clock_rate: offered.clock,
        twcc: media.extension(TWCC_URI),
    })
}

/// The offer's payload type for a codec: for H.264 the one with the simplest profile that carries whole pictures.
fn best<'m, 'a>(media: &'m Media<'a>, codec: &Codec) -> Option<&'m Offered<'a>> {
    let named = |offered: &&Offered<'_>| offered.name.eq_ignore_ascii_case(codec.encoding_name()) && offered.clock > 0;
    if *codec != Codec::H264 {
        return media.codecs.iter().find(named);
    }
    let usable = |offered: &&Offered<'_>| offered.param("packetization-mode") == Some("1");
    let rank = |offered: &&Offered<'_>| {
        let profile = offered.param("profile-level-id").unwrap_or("42001f").to_ascii_lowercase();
        PROFILES.iter().position(|known| profile.starts_with(known)).unwrap_or(PROFILES.len())
    };
    media.codecs.iter().filter(named).filter(usable).min_by_key(rank)
}

/// The codecs weir takes from browsers, in the order of the `codecs` setting. Names it does not carry are passed over.
pub(super) fn preferred(names: &[String]) -> Vec<Codec> {
    let known = |name: &String| match name.as_str() {
        "opus" => Some(Codec::Opus),
        "alaw" => Some(Codec::Pcma),
        "ulaw" => Some(Codec::Pcmu),
        "h264" => Some(Codec::H264),
        "vp8" => Some(Codec::Vp8),
        _ => None,
    };
    names.iter().filter_map(known).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\na=mid:0\r\na=sendonly\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 102 108 39\r\na=mid:1\r\na=sendonly\r\na=rtcp-mux\r\n\
        a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
        a=rtpmap:96 VP8/90000\r\na=rtpmap:102 H264/90000\r\na=fmtp:102 packetization-mode=1;profile-level-id=42001f\r\n\
        a=rtpmap:108 H264/90000\r\na=fmtp:108 packetization-mode=1;profile-level-id=42e01f\r\n\
        a=rtpmap:39 H264/90000\r\na=fmtp:39 packetization-mode=0;profile-level-id=42e01f\r\n";

    fn chosen(offer: &str, names: &str) -> Vec<Option<(Codec, u8)>> {
        let names: Vec<String> = names.split(',').map(str::to_owned).collect();
        let lines = accept(offer, &preferred(&names)).unwrap();
        lines.into_iter().map(|line| line.map(|receive| (receive.codec, receive.payload))).collect()
    }

    #[test]
    fn the_setting_orders_the_codecs() {
        let wcs = "opus,alaw,ulaw,g729,mpeg4-generic,h264,vp8,flv";
        assert_eq!(chosen(OFFER, wcs), [Some((Codec::Opus, 111)), Some((Codec::H264, 108))]);
        assert_eq!(chosen(OFFER, "vp8,h264,ulaw"), [Some((Codec::Pcmu, 0)), Some((Codec::Vp8, 96))]);
        assert_eq!(chosen(OFFER, "h264"), [None, Some((Codec::H264, 108))]);
        assert_eq!(accept(OFFER, &[Codec::Pcma]), Err(SdpError::NoCommonCodecs));
    }

    #[test]
    fn what_is_not_sent_is_not_taken() {
        let receiving = OFFER.replace("a=sendonly", "a=recvonly");
        assert_eq!(accept(&receiving, &[Codec::Opus, Codec::H264]), Err(SdpError::NoCommonCodecs));
        let refused = OFFER.replace("m=video 9", "m=video 0");
        assert_eq!(chosen(&refused, "opus,h264"), [Some((Codec::Opus, 111)), None]);
    }

    #[test]
    fn congestion_control_is_taken_over() {
        let lines = accept(OFFER, &[Codec::H264]).unwrap();
        assert_eq!(lines[1].as_ref().unwrap().twcc, Some(3));
    }
}
