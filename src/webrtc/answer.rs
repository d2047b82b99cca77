//! webrtcbin's answer as the browsers' SDK wants it. Pure.
//!
//! webrtcbin 1.22 drops `profile-level-id`, so that the browser assumes another profile than it offered; it writes `OPUS`
//! where the SDK looks for `opus` to set stereo and bitrate; and its candidates may name an address of the host where
//! the operator's `ip` is to stand.

use std::net::IpAddr;

use super::sdp::Offer;
use crate::media::{Codec, Receive};

/// Rewrites an answer to `offer`. Every line ends in CRLF.
pub(super) fn finished(answer: &str, offer: &str, lines: &[Option<Receive>], ip: Option<IpAddr>) -> String {
    let mut text = String::with_capacity(answer.len() + 256);
    let mut media = 0;
    for line in answer.lines().filter(|line| !line.is_empty()) {
        if line.starts_with("m=") {
            media += 1;
        }
        let receive = lines.get(media.max(1) - 1).and_then(Option::as_ref);
        for line in rewritten(line, offer, media, receive, ip) {
            text.push_str(&line);
            text.push_str("\r\n");
        }
    }
    text
}

fn rewritten(line: &str, offer: &str, media: usize, receive: Option<&Receive>, ip: Option<IpAddr>) -> Vec<String> {
    let Some(receive) = receive.filter(|_| media > 0) else { return vec![line.to_owned()] };
    let payload = receive.payload;
    if let Some(map) = line.strip_prefix(&format!("a=rtpmap:{payload} ")) {
        let map = map.replacen("OPUS", "opus", 1);
        let mut lines = vec![format!("a=rtpmap:{payload} {map}")];
        // The parameters stand right after: the SDK adds a second fmtp line where it does not find one there.
        lines.extend(offered_parameters(offer, media - 1, receive).map(|fmtp| format!("a=fmtp:{payload} {fmtp}")));
        return lines;
    }
    if line.starts_with(&format!("a=fmtp:{payload} ")) && has_parameters(receive) {
        return vec![];
    }
    match ip.and_then(|ip| candidate(line, ip)) {
        Some(line) => vec![line],
        None => vec![line.to_owned()],
    }
}

/// H.264 and Opus are answered with the parameters they were offered with.
fn has_parameters(receive: &Receive) -> bool {
    matches!(receive.codec, Codec::H264 | Codec::Opus)
}

fn offered_parameters(offer: &str, media: usize, receive: &Receive) -> Option<String> {
    let offer = Offer::parse(offer).ok()?;
    let codec = offer.media.get(media)?.codecs.iter().find(|codec| codec.pt == receive.payload)?;
    codec.fmtp.filter(|_| has_parameters(receive)).map(str::to_owned)
}

/// A candidate line with another address. RFC 8839: the fifth word.
fn candidate(line: &str, ip: IpAddr) -> Option<String> {
    let mut words: Vec<&str> = line.strip_prefix("a=candidate:")?.split(' ').collect();
    let address = ip.to_string();
    *words.get_mut(4)? = &address;
    Some(format!("a=candidate:{}", words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Kind;

    #[test]
    fn profile_name_and_address_are_put_right() {
        let offer = "v=0\nm=audio 9 UDP/TLS/RTP/SAVPF 111\na=mid:0\na=rtpmap:111 opus/48000/2\n\
            a=fmtp:111 minptime=10;useinbandfec=1\nm=video 9 UDP/TLS/RTP/SAVPF 108\na=mid:1\na=rtpmap:108 H264/90000\n\
            a=fmtp:108 packetization-mode=1;profile-level-id=42e01f\n";
        let answer = "v=0\nm=audio 9 UDP/TLS/RTP/SAVPF 111\na=rtpmap:111 OPUS/48000/2\n\
            a=candidate:1 1 UDP 2015363327 10.0.0.5 31005 typ host\n\
            m=video 9 UDP/TLS/RTP/SAVPF 108\na=rtpmap:108 H264/90000\na=fmtp:108 packetization-mode=1\n";
        let line = |kind, codec, payload| Some(Receive { kind, codec, payload, clock_rate: 90000, twcc: None });
        let lines = [line(Kind::Audio, Codec::Opus, 111), line(Kind::Video, Codec::H264, 108)];
        let ip = "203.0.113.7".parse().ok();
        assert_eq!(
            finished(answer, offer, &lines, ip),
            "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\n\
             a=fmtp:111 minptime=10;useinbandfec=1\r\n\
             a=candidate:1 1 UDP 2015363327 203.0.113.7 31005 typ host\r\n\
             m=video 9 UDP/TLS/RTP/SAVPF 108\r\na=rtpmap:108 H264/90000\r\n\
             a=fmtp:108 packetization-mode=1;profile-level-id=42e01f\r\n"
        );
    }
}
