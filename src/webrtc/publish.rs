//! A browser that publishes: one task, one webrtcbin, from the offer to the last word.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::answer::finished;
use super::intake::{accept, fingerprint, preferred};
use super::{LastWord, SdpError};
use crate::event::Event;
use crate::hub::{Hub, Publication, STOPPED_BY_USER, StreamView};
use crate::media::{Catalog, Codec, Kind, Peer, PeerEvent, PeerOptions, Pipelines, Receive, SourceEvent, Track};

/// Longest time from the answer to ICE being done.
const ICE: Duration = Duration::from_secs(15);
/// Longest time from there to DTLS being done.
const DTLS: Duration = Duration::from_secs(10);
/// Longest time from there to the first frame of each track.
const FIRST_MEDIA: Duration = Duration::from_secs(15);
/// How long a second track may come after the first.
const SETTLE: Duration = Duration::from_secs(3);
/// How often a running publisher is looked at.
const WATCH: Duration = Duration::from_millis(500);
/// Longest time a recording may take to be in place before the browser is told without its name.
const RECORDING: Duration = Duration::from_secs(10);

/// What publishers work with.
#[derive(Clone)]
pub struct Tools {
    /// The launch templates.
    pub catalog: Catalog,
    /// The list of running pipelines.
    pub pipelines: Pipelines,
    /// Streams and events.
    pub hub: Hub,
    /// What is accepted, by preference.
    pub codecs: Vec<Codec>,
    /// Where peers listen.
    pub options: PeerOptions,
    /// The address browsers are told instead.
    pub ip: Option<IpAddr>,
    /// A publisher silent for longer is ended.
    pub activity_timeout: Option<Duration>,
}

/// The codecs of the `codecs` setting that browsers can publish in, in its order.
pub fn codecs(names: &[String]) -> Vec<Codec> {
    preferred(names)
}

/// An offer that can be answered.
pub struct Offer {
    text: String,
    lines: Vec<Option<Receive>>,
    /// SHA-256 of the certificate the browser will show.
    fingerprint: Vec<u8>,
}

impl Offer {
    /// Reads an offer.
    ///
    /// # Errors
    /// [`SdpError`]: no SDP, nothing in it weir takes, or no fingerprint.
    pub fn read(text: &str, codecs: &[Codec]) -> Result<Self, SdpError> {
        Ok(Self { lines: accept(text, codecs)?, fingerprint: fingerprint(text)?, text: text.to_owned() })
    }
}

/// What the browser is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishNews {
    /// The answer.
    Answer(String),
    /// Media flows.
    Publishing,
    /// It is over.
    Ended(Ending),
}

/// How a publication ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The browser did not ask for it: FAILED instead of UNPUBLISHED.
    pub failed: bool,
    /// WCS's text.
    pub info: String,
    /// The file it was recorded in.
    pub record_name: Option<String>,
}

/// Why a publication ends. The texts are WCS's (WebSDK `constants.js`).
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Failed(&'static str),
    Stopped(&'static str),
}

/// Publishes until `stop` (whose meaning is `stopped_by`), the remote side, or somebody outside ends it.
pub async fn run(
    tools: Tools,
    publication: Publication,
    offer: Offer,
    stop: CancellationToken,
    stopped_by: impl FnOnce() -> LastWord,
    news: impl Fn(PublishNews),
) {
    let mut peer = None;
    let end = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        reason = publication.terminated() => Some(End::Failed(reason)),
        end = feed(&tools, &publication, &offer, &mut peer, &news) => Some(end),
    };
    if let Some(peer) = peer {
        peer.stop().await;
    }
    let LastWord { failed, info } = match end {
        None => stopped_by(),
        Some(End::Failed(info)) => LastWord { failed: true, info },
        Some(End::Stopped(info)) => LastWord { failed: false, info },
    };
    let record_name = leave(&tools, publication, failed, info).await;
    news(PublishNews::Ended(Ending { failed, info: info.to_owned(), record_name }));
}

/// Leaves the stream and waits for its recording, where that is not over already; gives the name of the file.
async fn leave(tools: &Tools, publication: Publication, failed: bool, info: &str) -> Option<String> {
    let StreamView { record_name: recording, recorded, .. } = publication.view();
    let session = publication.session();
    let mut events = tools.hub.events().read();
    match failed {
        true => publication.fail(info).await,
        false => publication.leave(info).await,
    }
    if recording.is_none() {
        return recorded;
    }
    let in_place = async {
        loop {
            match events.recv().await {
                Ok(Event::RecordingFinished { session: Some(of), file, last: true, .. }) if of == session => {
                    return file.file_name().map(|name| name.to_string_lossy().into_owned());
                }
                Ok(Event::RecordingFailed { session: of, .. }) if of == session => return None,
                Err(RecvError::Closed) => return None,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
            }
        }
    };
    timeout(RECORDING, in_place).await.unwrap_or(None)
}

async fn feed(
    tools: &Tools,
    publication: &Publication,
    offer: &Offer,
    place: &mut Option<Peer>,
    news: &impl Fn(PublishNews),
) -> End {
    let failed = |error: &dyn std::fmt::Display| {
        let (stream, session) = (publication.name(), publication.session());
        tracing::warn!(%stream, %session, "a browser cannot publish: {error}");
        End::Failed("Failed to add stream to proxy")
    };
    let launch = tools.catalog.launch("publish-webrtc", |filling| filling.track(Kind::Video).track(Kind::Audio));
    let launch = match launch {
        Ok(launch) => launch,
        Err(error) => return failed(&error),
    };
    let (name, fanout) = (publication.name(), publication.fanout());
    let lines = offer.lines.clone();
    let received = Peer::receive(&tools.pipelines, launch, name, fanout, &offer.text, lines, &tools.options).await;
    let peer = match received {
        Ok((peer, answer)) => {
            news(PublishNews::Answer(finished(&answer, &offer.text, &offer.lines, tools.ip)));
            place.insert(peer)
        }
        Err(error) => return failed(&error),
    };
    let expected = offer.lines.iter().flatten().count();
    let tracks = match connect(peer, expected).await {
        Ok(tracks) => tracks,
        Err(end) => return end,
    };
    // webrtcbin leaves it to its application whether the certificate is the one of the offer.
    if peer.certificate_sha256().await.as_ref() != Some(&offer.fingerprint) {
        return End::Failed("Failed by DTLS fingerprint error");
    }
    publication.seen_live(tracks.clone()).await;
    news(PublishNews::Publishing);
    follow(tools, publication, peer, tracks).await
}

/// Waits for ICE, DTLS and the first media; gives the tracks.
async fn connect(peer: &mut Peer, expected: usize) -> Result<Vec<Track>, End> {
    let mut late = "Failed by ICE timeout";
    let mut deadline = Instant::now() + ICE;
    let mut tracks: Vec<Track> = Vec::new();
    loop {
        let event = tokio::select! {
            event = peer.event() => event,
            () = sleep_until(deadline) => return if tracks.is_empty() { Err(End::Failed(late)) } else { Ok(tracks) },
        };
        match event {
            Some(PeerEvent::IceConnected) if late == "Failed by ICE timeout" => {
                late = "Failed by DTLS error";
                deadline = Instant::now() + DTLS;
            }
            Some(PeerEvent::Connected) => {
                late = "Failed by RTP activity";
                deadline = Instant::now() + FIRST_MEDIA;
            }
            Some(PeerEvent::Source(SourceEvent::Track(track))) => {
                track.note_in(&mut tracks);
                deadline = Instant::now() + SETTLE;
                if tracks.len() >= expected {
                    return Ok(tracks);
                }
            }
            other => ended(other)?,
        }
    }
}

/// What ends a peer at any time.
fn ended(event: Option<PeerEvent>) -> Result<(), End> {
    match event {
        Some(PeerEvent::IceFailed) => Err(End::Failed("Failed by ICE error")),
        Some(PeerEvent::DtlsFailed) => Err(End::Failed("Failed by DTLS error")),
        Some(PeerEvent::Closed | PeerEvent::Source(SourceEvent::Ended)) => Err(End::Stopped(STOPPED_BY_USER)),
        Some(PeerEvent::Source(SourceEvent::Failed(failure))) => {
            tracing::warn!("a publisher's pipeline failed: {failure} ({})", failure.debug);
            Err(End::Failed("Failed by error"))
        }
        None => Err(End::Failed("Failed by error")),
        Some(_) => Ok(()),
    }
}

async fn follow(tools: &Tools, publication: &Publication, peer: &mut Peer, mut tracks: Vec<Track>) -> End {
    let silent = silence(tools, publication);
    tokio::pin!(silent);
    loop {
        let event = tokio::select! {
            event = peer.event() => event,
            () = &mut silent => return End::Failed("Failed by RTP activity"),
        };
        if let Some(PeerEvent::Source(SourceEvent::Track(track))) = event {
            if track.note_in(&mut tracks) {
                publication.live(tracks.clone());
            }
        } else if let Err(end) = ended(event) {
            return end;
        }
    }
}

/// Resolves when no media has come for the time the operator allows.
async fn silence(tools: &Tools, publication: &Publication) {
    let Some(limit) = tools.activity_timeout else { return std::future::pending().await };
    while publication.fanout().silence() < limit {
        sleep(WATCH.min(limit)).await;
    }
}
