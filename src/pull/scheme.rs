//! What differs between the protocols of sources: the template and what fills it, what it may bring, and the words that
//! WCS has for it. Source: wcs.md 1.5, 1.7, 1.9, 2.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address::{Scheme, SourceUri};
use super::{PullRequest, Reach, Tools};
use crate::hub::Recorded;
use crate::media::{Accept, CatalogError, Kind, Launch, SourceRules, Track};

/// How long is looked for the reason why a server cannot be connected to.
const LOOK: Duration = Duration::from_secs(2);

/// What holds for the sources of one scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Record every one, asked for or not.
    pub record_all: bool,
    /// How long a source that players asked for stays without them; `None` for ever.
    pub idle_timeout: Option<Duration>,
}

/// How RTSP sources send their media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RtspTransport {
    /// In the RTSP connection (RFC 2326, 10.12).
    Interleaved,
    /// As UDP, or in the connection where nothing comes through.
    Udp,
}

/// Why a try has failed, as far as players are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The server does not have it.
    NotFound,
    /// None of its tracks can be carried.
    NoCodec,
    /// Anything else.
    Other,
}

impl Scheme {
    /// The call of REST that pulls it, besides `/pull/pull`.
    pub(super) fn calls(self) -> &'static str {
        match self {
            Self::Rtmp => "RTMP is pulled by /pull/rtmp/pull or /pull/pull",
            Self::Rtsp => "RTSP is captured by /rtsp/startup or /pull/pull",
            Self::Wcs => "WCS servers are for /pull/pull and /pull/push",
        }
    }

    /// `mediaType` of the stream's publisher.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Rtmp => "rtmp",
            Self::Rtsp => "rtsp",
            Self::Wcs => "wcs",
        }
    }

    /// `mediaProvider` of the stream's publisher.
    pub(super) fn provider(self) -> &'static str {
        match self {
            Self::Rtmp => "Flash",
            Self::Rtsp => "RTSP",
            Self::Wcs => "WebRTC",
        }
    }

    /// What a player is told whose name is no address of this scheme.
    pub(super) fn malformed(self) -> &'static str {
        match self {
            Self::Rtmp | Self::Wcs => "Bad URI",
            Self::Rtsp => "Rtsp has wrong format",
        }
    }

    /// What players are told whose source could not be had.
    pub(super) fn lost(self, cause: Cause) -> &'static str {
        match (self, cause) {
            (Self::Wcs, Cause::NotFound) => "CDN stream not found",
            (Self::Rtmp | Self::Wcs, _) => "Failed to connect to origin stream",
            (Self::Rtsp, Cause::NotFound) => "Rtsp stream not found",
            (Self::Rtsp, Cause::NoCodec) => "No common codecs",
            (Self::Rtsp, Cause::Other) => "Failed to connect to rtsp stream",
        }
    }
}

impl Tools {
    /// What holds for sources of a scheme.
    pub(super) fn rules(&self, scheme: Scheme) -> &Rules {
        match scheme {
            Scheme::Rtmp => &self.rtmp,
            Scheme::Rtsp => &self.rtsp,
            Scheme::Wcs => &self.wcs.rules,
        }
    }

    /// What a source's media comes over.
    pub(super) fn transport(&self, scheme: Scheme) -> &'static str {
        match (scheme, self.rtsp_transport) {
            (Scheme::Rtsp, RtspTransport::Udp) | (Scheme::Wcs, _) => "UDP",
            _ => "TCP",
        }
    }

    /// Which tracks a recording of a source takes.
    pub(super) fn recorded(&self, scheme: Scheme) -> Recorded {
        match scheme {
            Scheme::Rtmp if !self.policy.records_video() => Recorded::SoundOnly,
            Scheme::Rtmp | Scheme::Rtsp | Scheme::Wcs => Recorded::Everything,
        }
    }

    /// The launch line that pulls an address, with what its element dials.
    ///
    /// # Errors
    /// An operator's template with holes that nothing fills.
    pub(super) fn launch(&self, uri: &SourceUri, dialled: &str) -> Result<Launch, CatalogError> {
        let tracks = [Kind::Video, Kind::Audio];
        match uri.scheme() {
            Scheme::Rtmp => self.catalog.launch("pull-rtmp", |filling| {
                tracks.into_iter().fold(filling.value("uri", dialled), |filling, kind| filling.track(kind))
            }),
            Scheme::Rtsp => self.catalog.launch("pull-rtsp", |filling| {
                let filling = filling.value("uri", dialled).value("protocols", self.rtsp_transport.protocols());
                tracks.into_iter().fold(filling, |filling, kind| filling.track(kind))
            }),
            // Its peer dials no address: it is called over the WebSocket.
            Scheme::Wcs => self
                .catalog
                .launch("pull-wcs", |filling| tracks.into_iter().fold(filling, |filling, kind| filling.track(kind))),
        }
    }

    /// What a source may bring and where it may lead on to; `pictures` is how long those of RTMP are waited for.
    pub(super) fn source_rules(&self, request: &PullRequest, pictures: Option<Duration>) -> SourceRules {
        let reach = self.reach.clone();
        SourceRules { accept: self.accept(request), follow: Arc::new(move |address| reach.follows(address)), pictures }
    }

    /// Judges each track of a source: asked for, and let through by `rtmp_agent.sdp` where that is the rule.
    fn accept(&self, request: &PullRequest) -> Accept {
        let (policy, request) = (self.policy.clone(), request.clone());
        Arc::new(move |track: &Track| {
            let name = track.codec.encoding_name();
            match (track.kind, request.uri.scheme()) {
                (Kind::Video, _) if !request.has_video => Err("hasVideo is false".into()),
                (Kind::Audio, _) if !request.has_audio => Err("hasAudio is false".into()),
                (_, Scheme::Rtsp | Scheme::Wcs) => Ok(()),
                (Kind::Video, Scheme::Rtmp) => policy.check_video(name).map_err(|refusal| refusal.to_string()),
                (Kind::Audio, Scheme::Rtmp) => {
                    policy.allows_audio(name, track.rate).map_err(|refusal| refusal.to_string())
                }
            }
        })
    }
}

/// Why an address cannot be connected to; `None` where it can.
pub(super) async fn unreachable(uri: &SourceUri, reach: &Reach) -> Option<String> {
    let (host, port) = uri.endpoint()?;
    let addresses = match reach.addresses(uri).await {
        Ok(addresses) => addresses,
        Err(barred) => return Some(barred.to_string()),
    };
    let error = match timeout(LOOK, TcpStream::connect(addresses.as_slice())).await {
        Ok(Ok(_)) => return None,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", LOOK.as_secs()),
    };
    Some(format!("cannot connect to {host}:{port}: {error}"))
}

impl RtspTransport {
    /// The value of rtspsrc's property: what it tries, in its own order.
    fn protocols(self) -> &'static str {
        match self {
            Self::Interleaved => "tcp",
            Self::Udp => "udp+tcp",
        }
    }
}
