//! Chooses what a viewer gets and writes the SDP answer: pure.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::packet::{AudioCodec, Kind, Tracks, VIDEO_CLOCK_RATE, VideoCodec};
use super::sdp::{ABS_SEND_TIME_URI, Codec, Media, MediaKind, Offer, SdpError, Setup, TWCC_URI};
use crate::media::CLOCK_LINES;

/// Profile of a stream without B-frames that every browser decodes, whatever the stream's own profile says.
const CONSTRAINED_BASELINE: u32 = 0x42e0;

/// What a viewer's offer and a stream agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// What becomes of every m-line of the offer, in its order.
    pub lines: Vec<Line>,
    pub remote_ufrag: String,
    pub remote_pwd: String,
    /// SHA-256 of the viewer's certificate.
    pub remote_fingerprint: Vec<u8>,
    /// Whether this side starts the DTLS handshake.
    pub dtls_active: bool,
    /// How the viewer tells its bandwidth.
    pub feedback: Feedback,
    /// All tracks' timestamps count from one zero, and the answer says so.
    pub one_clock: bool,
}

/// How bandwidth is estimated, with the id of the header extension it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feedback {
    /// Transport-wide congestion control: the sender estimates.
    Twcc(u8),
    /// REMB over absolute send time: the receiver estimates.
    Remb(u8),
    /// Not at all.
    None,
}

/// What becomes of one m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// A track is sent on it.
    Send(Sent),
    /// It is refused with port 0.
    Refused { media: String, proto: String, format: String, rtpmap: Option<String>, mid: String },
}

/// A track that is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub kind: Kind,
    pub mid: String,
    pub proto: String,
    pub pt: u8,
    /// Payload type of retransmissions; video only.
    pub rtx: Option<u8>,
    /// `opus/48000/2` and the like.
    pub rtpmap: &'static str,
    pub fmtp: Option<String>,
    pub feedback: Vec<String>,
}

impl Plan {
    /// The line that carries a track.
    pub fn sent(&self, kind: Kind) -> Option<&Sent> {
        self.lines.iter().find_map(|line| match line {
            Line::Send(sent) if sent.kind == kind => Some(sent),
            _ => None,
        })
    }
}

/// Decides what an offer gets of a stream's tracks.
///
/// Everything goes over one transport, so only m-lines of the offer's bundle (or the single one of an offer without
/// a bundle) are accepted.
///
/// # Errors
/// [`SdpError::NoCommonCodecs`] when no track fits, [`SdpError::Missing`] when ICE or DTLS lines are missing.
pub(super) fn negotiate(offer: &Offer<'_>, tracks: &Tracks) -> Result<Plan, SdpError> {
    let mut taken = [false; 2];
    let mut chosen: Vec<Option<(&Media<'_>, Kind, Choice<'_>)>> = vec![];
    for media in &offer.media {
        let choice = choose(offer, media, tracks).filter(|(kind, _)| !taken[super::packet::index(*kind)]);
        if let Some((kind, _)) = &choice {
            taken[super::packet::index(*kind)] = true;
        }
        chosen.push(choice.map(|(kind, choice)| (media, kind, choice)));
    }
    let sent: Vec<&Media<'_>> = chosen.iter().flatten().map(|(media, ..)| *media).collect();
    let first = *sent.first().ok_or(SdpError::NoCommonCodecs)?;
    let feedback = feedback_of(&sent);
    let lines = offer.media.iter().zip(&chosen).map(|(media, choice)| line(media, choice.as_ref(), feedback)).collect();
    let (own, session) = (&first.transport, &offer.transport);
    Ok(Plan {
        lines,
        remote_ufrag: own.ufrag.or(session.ufrag).ok_or(SdpError::Missing("a=ice-ufrag"))?.to_owned(),
        remote_pwd: own.pwd.or(session.pwd).ok_or(SdpError::Missing("a=ice-pwd"))?.to_owned(),
        remote_fingerprint: own
            .fingerprint
            .clone()
            .or_else(|| session.fingerprint.clone())
            .ok_or(SdpError::Missing("a=fingerprint:sha-256"))?,
        dtls_active: own.setup.or(session.setup) == Some(Setup::Passive),
        feedback,
        one_clock: false,
    })
}

/// The codec of an m-line that a track of the stream can use.
struct Choice<'a> {
    codec: Codec<'a>,
    rtpmap: &'static str,
}

fn choose<'a>(offer: &Offer<'a>, media: &Media<'a>, tracks: &Tracks) -> Option<(Kind, Choice<'a>)> {
    let bundled = offer.bundle.contains(&media.mid) || (offer.bundle.is_empty() && offer.media.len() == 1);
    let usable = bundled && media.port != "0" && media.rtcp_mux && media.proto.ends_with("RTP/SAVPF");
    if !usable || !media.direction.receives() {
        return None;
    }
    match media.kind {
        MediaKind::Audio => audio(media, tracks.audio?).map(|choice| (Kind::Audio, choice)),
        MediaKind::Video => video(media, tracks.video?).map(|choice| (Kind::Video, choice)),
        MediaKind::Other => None,
    }
}

fn audio<'a>(media: &Media<'a>, codec: AudioCodec) -> Option<Choice<'a>> {
    // the WebSDK looks for "opus" in lower case
    let (name, rtpmap) = match codec {
        AudioCodec::Opus => ("opus", "opus/48000/2"),
        AudioCodec::Pcma => ("PCMA", "PCMA/8000"),
        AudioCodec::Pcmu => ("PCMU", "PCMU/8000"),
    };
    find(media, name, codec.clock_rate(), |_| Some(0)).map(|codec| Choice { codec, rtpmap })
}

fn video<'a>(media: &Media<'a>, codec: VideoCodec) -> Option<Choice<'a>> {
    match codec {
        VideoCodec::Vp8 => {
            find(media, "VP8", VIDEO_CLOCK_RATE, |_| Some(0)).map(|codec| Choice { codec, rtpmap: "VP8/90000" })
        }
        VideoCodec::H264 { profile_level_id } => {
            let own = profile_level_id.map(|id| id >> 8);
            find(media, "H264", VIDEO_CLOCK_RATE, |codec| h264_rank(codec, own))
                .map(|codec| Choice { codec, rtpmap: "H264/90000" })
        }
    }
}

/// How well an offered H.264 fits a stream of profile `own`; lower is better, `None` not at all.
fn h264_rank(codec: &Codec<'_>, own: Option<u32>) -> Option<u32> {
    if codec.param("packetization-mode") != Some("1") {
        return None;
    }
    let profile = match codec.param("profile-level-id") {
        Some(id) => u32::from_str_radix(id, 16).ok()? >> 8,
        // RFC 6184, 8.1: baseline at level 1
        None => 0x4200,
    };
    Some(match profile {
        p if Some(p) == own => 0,
        CONSTRAINED_BASELINE => 1,
        p if p >> 8 == 0x42 => 2,
        _ => 3,
    })
}

/// The codec of that name with the lowest rank, the first of equals.
fn find<'a>(media: &Media<'a>, name: &str, clock: u32, rank: impl Fn(&Codec<'a>) -> Option<u32>) -> Option<Codec<'a>> {
    let same = |c: &&Codec<'a>| c.name.eq_ignore_ascii_case(name) && c.clock == clock;
    let ranked = media.codecs.iter().filter(same).filter_map(|c| rank(c).map(|rank| (rank, c)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, codec)| codec.clone())
}

/// Feedback that all sent m-lines can give. One without transport-wide feedback rules it out for all: its packets
/// would count as lost.
fn feedback_of(sent: &[&Media<'_>]) -> Feedback {
    let common = |uri, of: &[&Media<'_>]| {
        let id = of.first()?.extension(uri)?;
        of.iter().all(|media| media.extension(uri) == Some(id)).then_some(id)
    };
    if let Some(id) = common(TWCC_URI, sent) {
        return Feedback::Twcc(id);
    }
    let video: Vec<_> = sent.iter().copied().filter(|media| media.kind == MediaKind::Video).collect();
    match common(ABS_SEND_TIME_URI, &video) {
        Some(id) => Feedback::Remb(id),
        None => Feedback::None,
    }
}

fn line(media: &Media<'_>, choice: Option<&(&Media<'_>, Kind, Choice<'_>)>, feedback: Feedback) -> Line {
    let (mid, proto) = (media.mid.to_owned(), media.proto.to_owned());
    let Some((_, kind, Choice { codec, rtpmap })) = choice else {
        // some readers want to know every payload type, even of a refused line
        let format = media.formats.first().copied().unwrap_or("0").to_owned();
        let first = media.codecs.iter().find(|codec| codec.pt.to_string() == format && !codec.map.is_empty());
        let rtpmap = first.map(|codec| codec.map.to_owned());
        return Line::Refused { media: media.media.to_owned(), proto, format, rtpmap, mid };
    };
    let wanted = |kind: &&&str| match **kind {
        "transport-cc" => matches!(feedback, Feedback::Twcc(_)),
        "goog-remb" => matches!(feedback, Feedback::Remb(_)),
        "nack" | "nack pli" | "ccm fir" => true,
        _ => false,
    };
    Line::Send(Sent {
        kind: *kind,
        mid,
        proto,
        pt: codec.pt,
        rtx: if *kind == Kind::Video { media.rtx_of(codec.pt) } else { None },
        rtpmap,
        fmtp: codec.fmtp.map(str::to_owned),
        feedback: codec.feedback.iter().filter(wanted).map(|f| (*f).to_owned()).collect(),
    })
}

/// This side of the transport, and the identities of what is sent.
#[derive(Debug, Clone)]
pub(super) struct Local<'a> {
    pub session: u64,
    pub ufrag: &'a str,
    pub pwd: &'a str,
    /// `sha-256 AA:BB…`.
    pub fingerprint: &'a str,
    pub candidates: &'a [SocketAddr],
    /// SSRC and RTX SSRC by [`Kind::index`].
    pub ssrcs: [(u32, u32); 2],
}

/// Writes the answer.
///
/// Every m-line of the offer is answered in order, the chosen codec stands first and alone (with its retransmission),
/// both tracks belong to one media stream (the WebSDK shows the last stream it is given, so two would lose one), and
/// lines end in CRLF (the WebSDK cuts at them).
pub(super) fn write(plan: &Plan, local: &Local<'_>) -> String {
    let mut out = String::with_capacity(2048);
    let mids = plan.lines.iter().filter_map(|line| match line {
        Line::Send(sent) => Some(sent.mid.as_str()),
        Line::Refused { .. } => None,
    });
    let bundle = mids.filter(|mid| !mid.is_empty()).fold(String::new(), |all, mid| all + " " + mid);
    push(&mut out, format_args!("v=0"));
    push(&mut out, format_args!("o=- {} 1 IN IP4 127.0.0.1", local.session));
    push(&mut out, format_args!("s=-"));
    push(&mut out, format_args!("t=0 0"));
    if !bundle.is_empty() {
        push(&mut out, format_args!("a=group:BUNDLE{bundle}"));
    }
    push(&mut out, format_args!("a=ice-lite"));
    push(&mut out, format_args!("a=msid-semantic: WMS weir"));
    let mut candidates = local.candidates;
    for line in &plan.lines {
        match line {
            Line::Send(sent) => sent_lines(&mut out, plan, sent, local, std::mem::take(&mut candidates)),
            Line::Refused { media, proto, format, rtpmap, mid } => {
                push(&mut out, format_args!("m={media} 0 {proto} {format}"));
                push(&mut out, format_args!("c=IN IP4 0.0.0.0"));
                push(&mut out, format_args!("a=inactive"));
                if let Some(rtpmap) = rtpmap {
                    push(&mut out, format_args!("a=rtpmap:{format} {rtpmap}"));
                }
                if !mid.is_empty() {
                    push(&mut out, format_args!("a=mid:{mid}"));
                }
            }
        }
    }
    out
}

fn sent_lines(out: &mut String, plan: &Plan, sent: &Sent, local: &Local<'_>, candidates: &[SocketAddr]) {
    let media = if sent.kind == Kind::Video { "video" } else { "audio" };
    let rtx = sent.rtx.map(|pt| format!(" {pt}")).unwrap_or_default();
    push(out, format_args!("m={media} 9 {} {}{rtx}", sent.proto, sent.pt));
    push(out, format_args!("c=IN IP4 0.0.0.0"));
    push(out, format_args!("a=rtcp:9 IN IP4 0.0.0.0"));
    for (index, addr) in candidates.iter().enumerate() {
        push(out, format_args!("a=candidate:{}", candidate(index, addr)));
    }
    if !candidates.is_empty() {
        push(out, format_args!("a=end-of-candidates"));
    }
    push(out, format_args!("a=ice-ufrag:{}", local.ufrag));
    push(out, format_args!("a=ice-pwd:{}", local.pwd));
    push(out, format_args!("a=fingerprint:{}", local.fingerprint));
    push(out, format_args!("a=setup:{}", if plan.dtls_active { "active" } else { "passive" }));
    if !sent.mid.is_empty() {
        push(out, format_args!("a=mid:{}", sent.mid));
    }
    match plan.feedback {
        Feedback::Twcc(id) => push(out, format_args!("a=extmap:{id} {TWCC_URI}")),
        Feedback::Remb(id) if sent.kind == Kind::Video => push(out, format_args!("a=extmap:{id} {ABS_SEND_TIME_URI}")),
        Feedback::Remb(_) | Feedback::None => {}
    }
    if plan.one_clock {
        CLOCK_LINES.iter().for_each(|line| push(out, format_args!("{line}")));
    }
    push(out, format_args!("a=sendonly"));
    push(out, format_args!("a=rtcp-mux"));
    push(out, format_args!("a=rtcp-rsize"));
    codec_lines(out, sent);
    ssrc_lines(out, sent, media, local.ssrcs[super::packet::index(sent.kind)]);
}

fn codec_lines(out: &mut String, sent: &Sent) {
    let pt = sent.pt;
    push(out, format_args!("a=rtpmap:{pt} {}", sent.rtpmap));
    // directly after rtpmap: the WebSDK adds to the line that follows, or else writes a second one
    if let Some(fmtp) = &sent.fmtp {
        push(out, format_args!("a=fmtp:{pt} {fmtp}"));
    }
    for kind in &sent.feedback {
        push(out, format_args!("a=rtcp-fb:{pt} {kind}"));
    }
    if let Some(rtx) = sent.rtx {
        push(out, format_args!("a=rtpmap:{rtx} rtx/90000"));
        push(out, format_args!("a=fmtp:{rtx} apt={pt}"));
    }
}

fn ssrc_lines(out: &mut String, sent: &Sent, media: &str, (ssrc, rtx): (u32, u32)) {
    push(out, format_args!("a=msid:weir weir-{media}"));
    let mut ssrcs = vec![ssrc];
    if sent.rtx.is_some() {
        push(out, format_args!("a=ssrc-group:FID {ssrc} {rtx}"));
        ssrcs.push(rtx);
    }
    for ssrc in ssrcs {
        push(out, format_args!("a=ssrc:{ssrc} cname:weir"));
        push(out, format_args!("a=ssrc:{ssrc} msid:weir weir-{media}"));
    }
}

/// A host candidate line (RFC 8839, 5.1), earlier addresses preferred.
fn candidate(index: usize, addr: &SocketAddr) -> String {
    let local_preference = 65_535u32.saturating_sub(u32::try_from(index).unwrap_or(u32::MAX));
    let priority = (126 << 24) | (local_preference << 8) | 255;
    format!("{} 1 udp {priority} {} {} typ host", index + 1, addr.ip(), addr.port())
}

fn push(out: &mut String, line: std::fmt::Arguments<'_>) {
    // writing to a String cannot fail
    let _ = out.write_fmt(line);
    out.push_str("\r\n");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "answer_tests.rs"]
mod tests;
