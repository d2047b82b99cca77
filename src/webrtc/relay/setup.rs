//! Makes a viewer's session out of what its offer and the stream agree on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::bwe::Bitrate;
use str0m::change::DirectApi;
use str0m::config::{DtlsCert, Fingerprint};
use str0m::format::{Codec, FormatParams};
use str0m::media::{Frequency, MediaKind, Mid};
use str0m::rtp::{Extension, ExtensionMap};
use str0m::{Candidate, IceCreds, Rtc, RtcConfig};

use super::answer::{self, Feedback, Local, Plan, Sent};
use super::clock::OneClock;
use super::outgoing::{Outgoing, Track};
use super::packet::Kind;

/// Least and most the bandwidth estimate starts with, in bits per second. It starts above the stream's rate: an
/// estimator that starts below would call every viewer slow for its first seconds.
const INITIAL_ESTIMATE: (u64, u64) = (1_000_000, 20_000_000);
/// How often str0m sends sender reports and gathers its numbers. The browser needs two reports of each track before
/// it can sync them.
const REPORTS: Duration = Duration::from_secs(1);

/// A session before anything was received.
#[derive(Debug)]
pub(super) struct Prepared {
    pub rtc: Rtc,
    pub outgoing: Outgoing,
    pub ufrag: String,
    pub answer: String,
}

/// Makes the session and its answer. `None` when the WebRTC stack refuses an address or the handshake's start, which
/// a plan and a configuration that were checked do not bring about.
pub(super) fn prepare(
    plan: &Plan,
    cert: &DtlsCert,
    candidates: &[SocketAddr],
    stream_bps: u64,
    now: Instant,
) -> Option<Prepared> {
    let creds = IceCreds::new();
    let mut rtc =
        config(plan, stream_bps).set_dtls_cert(cert.clone()).set_local_ice_credentials(creds.clone()).build(now);
    for address in candidates {
        rtc.add_local_candidate(Candidate::host(*address, "udp").ok()?);
    }
    let mut api = rtc.direct_api();
    api.set_remote_ice_credentials(IceCreds { ufrag: plan.remote_ufrag.clone(), pass: plan.remote_pwd.clone() });
    let bytes = plan.remote_fingerprint.clone();
    api.set_remote_fingerprint(Fingerprint { hash_func: "sha-256".to_owned(), bytes });
    api.start_dtls(plan.dtls_active).ok()?;
    let tracks = [Kind::Audio, Kind::Video].map(|kind| plan.sent(kind).map(|sent| track(&mut api, sent)));
    let clock = plan.one_clock.then(OneClock::default);
    let numbers = |kind: Kind| {
        let track = tracks[super::packet::index(kind)].as_ref();
        track.map_or((0, 0), |track| (*track.ssrc, track.rtx.map_or(0, |rtx| *rtx)))
    };
    let fingerprint = api.local_dtls_fingerprint().to_string();
    let local = Local {
        session: u64::from(*api.new_ssrc()),
        ufrag: &creds.ufrag,
        pwd: &creds.pass,
        fingerprint: &fingerprint,
        candidates,
        ssrcs: [numbers(Kind::Audio), numbers(Kind::Video)],
    };
    let answer = answer::write(plan, &local);
    Some(Prepared { outgoing: Outgoing::new(tracks, clock, now), rtc, ufrag: creds.ufrag, answer })
}

fn config(plan: &Plan, stream_bps: u64) -> RtcConfig {
    let mut config = RtcConfig::new()
        .clear_codecs()
        .set_extension_map(ExtensionMap::empty())
        .set_rtp_mode(true)
        .set_ice_lite(true)
        .set_stats_interval(Some(REPORTS))
        .set_rtcp_report_interval_audio(REPORTS)
        .set_rtcp_report_interval_video(REPORTS);
    match plan.feedback {
        Feedback::Twcc(id) => {
            let start = stream_bps.saturating_mul(2).clamp(INITIAL_ESTIMATE.0, INITIAL_ESTIMATE.1);
            config =
                config.set_extension(id, Extension::TransportSequenceNumber).enable_bwe(Some(Bitrate::from(start)));
        }
        Feedback::Remb(id) => config = config.set_extension(id, Extension::AbsoluteSendTime),
        Feedback::None => {}
    }
    for sent in [Kind::Audio, Kind::Video].iter().filter_map(|kind| plan.sent(*kind)) {
        let (codec, clock, channels) = codec(sent);
        let rtx = sent.rtx.map(Into::into);
        config.codec_config().add_config(sent.pt.into(), rtx, codec, clock, channels, FormatParams::default());
    }
    config
}

fn codec(sent: &Sent) -> (Codec, Frequency, Option<u8>) {
    match sent.rtpmap {
        "H264/90000" => (Codec::H264, Frequency::NINETY_KHZ, None),
        "VP8/90000" => (Codec::Vp8, Frequency::NINETY_KHZ, None),
        "PCMA/8000" => (Codec::PCMA, Frequency::EIGHT_KHZ, None),
        "PCMU/8000" => (Codec::PCMU, Frequency::EIGHT_KHZ, None),
        _ => (Codec::Opus, Frequency::FORTY_EIGHT_KHZ, Some(2)),
    }
}

fn track(api: &mut DirectApi<'_>, sent: &Sent) -> Track {
    let (name, kind) = match sent.kind {
        Kind::Audio => ("audio", MediaKind::Audio),
        Kind::Video => ("video", MediaKind::Video),
    };
    // the name is between str0m and this module only: no header extension carries it
    let mid = Mid::from(name);
    api.declare_media(mid, kind);
    let ssrc = api.new_ssrc();
    let rtx = sent.rtx.map(|_| {
        loop {
            let rtx = api.new_ssrc();
            if rtx != ssrc {
                break rtx;
            }
        }
    });
    let seq = u64::from(*api.new_ssrc() & 0x7fff);
    let offset = *api.new_ssrc();
    let (_, rate, _) = codec(sent);
    Track { mid, pt: sent.pt.into(), rate: rate.get(), ssrc, rtx, seq, offset, declared: false }
}

/// The certificate all sessions of a relay share. `None` when the crypto backend cannot make one.
pub(super) fn certificate() -> Option<Arc<DtlsCert>> {
    str0m::crypto::from_feature_flags().dtls_provider.generate_certificate().map(Arc::new)
}
