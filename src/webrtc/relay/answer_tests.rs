use super::*;

const PLAY: &str = include_str!("../offers/chromium156_play.sdp");
const SENDRECV: &str = include_str!("../offers/chromium156_sendrecv.sdp");
const PUBLISH: &str = include_str!("../offers/chromium156_publish.sdp");
const AUDIO: &str = include_str!("../offers/chromium156_audio.sdp");
const VIDEO: &str = include_str!("../offers/chromium156_video.sdp");
const DATA: &str = include_str!("../offers/chromium156_data.sdp");

const H264: Option<VideoCodec> = Some(VideoCodec::H264 { profile_level_id: None });
const HIGH: Option<VideoCodec> = Some(VideoCodec::H264 { profile_level_id: Some(0x64001f) });
const MAIN: Option<VideoCodec> = Some(VideoCodec::H264 { profile_level_id: Some(0x4d0028) });
const VP8: Option<VideoCodec> = Some(VideoCodec::Vp8);
const OPUS: Option<AudioCodec> = Some(AudioCodec::Opus);
const PCMA: Option<AudioCodec> = Some(AudioCodec::Pcma);
const PCMU: Option<AudioCodec> = Some(AudioCodec::Pcmu);

fn plan(offer: &str, video: Option<VideoCodec>, audio: Option<AudioCodec>) -> Result<Plan, SdpError> {
    negotiate(&Offer::parse(offer).unwrap(), &Tracks { video, audio })
}

fn answer(offer: &str, video: Option<VideoCodec>, audio: Option<AudioCodec>) -> String {
    let candidates = ["192.0.2.1:31000".parse().unwrap(), "[2001:db8::1]:31000".parse().unwrap()];
    let local = Local {
        session: 7,
        ufrag: "uf",
        pwd: "pw",
        fingerprint: "sha-256 AA",
        candidates: &candidates,
        ssrcs: [(11, 12), (21, 22)],
    };
    write(&plan(offer, video, audio).unwrap(), &local)
}

fn pts(plan: &Plan) -> [Option<(u8, Option<u8>)>; 2] {
    [Kind::Audio, Kind::Video].map(|kind| plan.sent(kind).map(|sent| (sent.pt, sent.rtx)))
}

#[test]
fn codecs_by_table() {
    let a = Some((111, None));
    type Row<'a> = (&'a str, &'a str, Option<VideoCodec>, Option<AudioCodec>, [Option<(u8, Option<u8>)>; 2]);
    let table: &[Row<'_>] = &[
        ("constrained baseline", PLAY, H264, OPUS, [a, Some((108, Some(109)))]),
        ("high falls back", PLAY, HIGH, OPUS, [a, Some((108, Some(109)))]),
        ("main is offered", PLAY, MAIN, OPUS, [a, Some((116, Some(117)))]),
        ("vp8", PLAY, VP8, OPUS, [a, Some((96, Some(97)))]),
        ("a-law", PLAY, H264, PCMA, [Some((8, None)), Some((108, Some(109)))]),
        ("µ-law alone", PLAY, None, PCMU, [Some((0, None)), None]),
        ("video only stream", PLAY, H264, None, [None, Some((108, Some(109)))]),
        ("audio only offer", AUDIO, H264, OPUS, [a, None]),
        ("video only offer", VIDEO, VP8, OPUS, [None, Some((96, Some(97)))]),
        ("sendrecv", SENDRECV, VP8, OPUS, [a, Some((96, Some(97)))]),
        ("data channel", DATA, VP8, OPUS, [a, Some((96, Some(97)))]),
    ];
    for (what, offer, video, audio, expected) in table {
        assert_eq!(&pts(&plan(offer, *video, *audio).unwrap()), expected, "{what}");
    }
}

#[test]
fn nothing_in_common() {
    let no_h264 = PLAY.replace("H264", "H266");
    for (offer, video, audio) in [
        (PLAY, None, None),
        (AUDIO, H264, None),
        (PUBLISH, H264, OPUS),
        (no_h264.as_str(), H264, None),
        (&PLAY.replace("a=rtcp-mux\r\n", ""), H264, OPUS),
        (&PLAY.replace("a=group:BUNDLE 0 1\r\n", ""), H264, OPUS),
        (&PLAY.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"), H264, OPUS),
        (&PLAY.replace("packetization-mode=1", "packetization-mode=0"), H264, None),
    ] {
        assert_eq!(plan(offer, video, audio), Err(SdpError::NoCommonCodecs));
    }
}

#[test]
fn missing_lines_are_named() {
    for (line, name) in
        [("a=ice-ufrag", "a=ice-ufrag"), ("a=ice-pwd", "a=ice-pwd"), ("a=fingerprint", "a=fingerprint:sha-256")]
    {
        let without: String = PLAY.lines().filter(|l| !l.starts_with(line)).map(|l| format!("{l}\r\n")).collect();
        assert_eq!(plan(&without, H264, OPUS), Err(SdpError::Missing(name)));
    }
}

#[test]
fn the_transport_may_stand_at_session_level() {
    let is_transport = |l: &&str| l.starts_with("a=ice-") || l.starts_with("a=fingerprint") || l.starts_with("a=setup");
    let transport: Vec<&str> = PLAY.lines().filter(is_transport).take(5).collect();
    let media: Vec<&str> = PLAY.lines().filter(|l| !is_transport(l)).collect();
    let at = media.iter().position(|l| l.starts_with("m=")).unwrap();
    let moved = [&media[..at], &transport[..], &media[at..]].concat().join("\r\n");
    assert_eq!(plan(&moved, H264, OPUS), plan(PLAY, H264, OPUS));
}

#[test]
fn feedback_needs_every_line() {
    assert_eq!(plan(PLAY, H264, OPUS).unwrap().feedback, Feedback::Twcc(3));
    let at = PLAY.find("m=video").unwrap();
    let audio_without = PLAY[..at].replace(TWCC_URI, "urn:x") + &PLAY[at..];
    let plan = plan(&audio_without, H264, OPUS).unwrap();
    assert_eq!(plan.feedback, Feedback::Remb(2));
    assert!(plan.sent(Kind::Video).unwrap().feedback.contains(&"goog-remb".to_owned()));
}

#[test]
fn an_offer_that_waits_for_dtls_gets_an_active_answer() {
    assert!(!plan(PLAY, H264, OPUS).unwrap().dtls_active);
    assert!(plan(&PLAY.replace("setup:actpass", "setup:passive"), H264, OPUS).unwrap().dtls_active);
    assert!(!plan(&PLAY.replace("setup:actpass", "setup:active"), H264, OPUS).unwrap().dtls_active);
}

#[test]
fn the_whole_answer() {
    let expected = "\
v=0
o=- 7 1 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=ice-lite
a=msid-semantic: WMS weir
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=candidate:1 1 udp 2130706431 192.0.2.1 31000 typ host
a=candidate:2 1 udp 2130706175 2001:db8::1 31000 typ host
a=end-of-candidates
a=ice-ufrag:uf
a=ice-pwd:pw
a=fingerprint:sha-256 AA
a=setup:passive
a=mid:0
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=sendonly
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
a=rtcp-fb:111 transport-cc
a=msid:weir weir-audio
a=ssrc:11 cname:weir
a=ssrc:11 msid:weir weir-audio
m=video 9 UDP/TLS/RTP/SAVPF 108 109
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:uf
a=ice-pwd:pw
a=fingerprint:sha-256 AA
a=setup:passive
a=mid:1
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=sendonly
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:108 H264/90000
a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
a=rtcp-fb:108 transport-cc
a=rtcp-fb:108 ccm fir
a=rtcp-fb:108 nack
a=rtcp-fb:108 nack pli
a=rtpmap:109 rtx/90000
a=fmtp:109 apt=108
a=msid:weir weir-video
a=ssrc-group:FID 21 22
a=ssrc:21 cname:weir
a=ssrc:21 msid:weir weir-video
a=ssrc:22 cname:weir
a=ssrc:22 msid:weir weir-video
";
    assert_eq!(answer(PLAY, H264, OPUS), expected.replace('\n', "\r\n"));
}

#[test]
fn refused_lines_stay_in_their_place() {
    let text = answer(DATA, None, OPUS);
    let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("m=") || l.starts_with("a=group")).collect();
    assert_eq!(lines[0], "a=group:BUNDLE 1");
    assert_eq!(lines[1], "m=video 0 UDP/TLS/RTP/SAVPF 96");
    assert!(lines[2].starts_with("m=audio 9 "));
    assert_eq!(lines[3], "m=application 0 UDP/DTLS/SCTP webrtc-datachannel");
    assert!(text.contains("a=rtpmap:96 VP8/90000\r\n"));
    assert_eq!(text.matches("a=candidate").count(), 2);
    assert_eq!(text.replace("\r\n", "").matches(['\r', '\n']).count(), 0);
}
