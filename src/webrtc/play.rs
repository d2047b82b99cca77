//! A browser that plays: one task a viewer, one payloader and one relay stream for all viewers of a stream.
//!
//! The feeds' task owns which stream has a feed; a feed lives as long as its viewers hold it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::LastWord;
use super::feed::Feed;
use super::relay::{EndReason, JoinError, JoinOptions, Relay, Viewer, ViewerEvent, ViewerSnapshot};
use crate::hub::{Figures, Phase, STOPPED_BY_PUBLISHER, STOPPED_BY_SHUTDOWN, StreamHandle, StreamView, Subscription};
use crate::media::{Catalog, Codec, Kind, Pipelines};
use crate::meter::Meter;
use crate::name::{MediaSessionId, StreamName};

/// How many viewers may wait for a feed.
const QUEUE: usize = 256;
/// Longest time a source that players asked for may take until media flows.
const SOURCE: Duration = Duration::from_secs(30);

/// What viewers work with.
#[derive(Clone)]
pub struct Tools {
    /// The launch templates.
    pub catalog: Catalog,
    /// The list of running pipelines.
    pub pipelines: Pipelines,
    /// The packet relay.
    pub relay: Arc<Relay>,
    /// What is counted.
    pub meter: Meter,
}

/// A cheap handle on the feeds.
#[derive(Clone)]
pub struct Plays {
    feeds: mpsc::Sender<Wanted>,
    relay: Arc<Relay>,
    meter: Meter,
}

/// Why a stream cannot be given to viewers. The text is WCS's `info` where it has one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PlayError {
    /// The offer and the stream have no codec in common, or the offer is none.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The payloader does not run.
    #[error("Failed by error")]
    Feed,
}

struct Wanted {
    stream: StreamHandle,
    view: StreamView,
    reply: oneshot::Sender<Result<Arc<Feed>, PlayError>>,
}

/// A stream is another one when its publisher is, or when its tracks are in other codecs.
type Key = (StreamName, MediaSessionId, SystemTime, Vec<Codec>);

impl Plays {
    /// Starts the feeds' task in `tasks`. It ends with the last handle.
    pub fn start(tools: Tools, tasks: &TaskTracker) -> Self {
        let (feeds, inbox) = mpsc::channel(QUEUE);
        let (relay, meter) = (tools.relay.clone(), tools.meter.clone());
        tasks.spawn(Feeds { tools, feeds: HashMap::new(), tasks: tasks.clone() }.run(inbox));
        Self { feeds, relay, meter }
    }

    async fn feed(&self, stream: &StreamHandle, view: StreamView) -> Result<Arc<Feed>, PlayError> {
        let (reply, answer) = oneshot::channel();
        let wanted = Wanted { stream: stream.clone(), view, reply };
        self.feeds.send(wanted).await.map_err(|_| PlayError::Feed)?;
        answer.await.map_err(|_| PlayError::Feed)?
    }
}

struct Feeds {
    tools: Tools,
    feeds: HashMap<Key, Weak<Feed>>,
    tasks: TaskTracker,
}

impl Feeds {
    async fn run(mut self, mut inbox: mpsc::Receiver<Wanted>) {
        while let Some(Wanted { stream, view, reply }) = inbox.recv().await {
            self.feeds.retain(|_, feed| feed.strong_count() > 0);
            let feed = self.get(&stream, &view).await;
            // A viewer that has left drops the feed.
            let _ = reply.send(feed);
        }
    }

    async fn get(&mut self, stream: &StreamHandle, view: &StreamView) -> Result<Arc<Feed>, PlayError> {
        let publisher = view.publisher().ok_or(PlayError::Feed)?;
        let codecs = view.tracks.iter().map(|track| track.codec.clone()).collect();
        let key = (view.name.clone(), publisher.id.clone(), publisher.since, codecs);
        if let Some(feed) = self.feeds.get(&key).and_then(Weak::upgrade) {
            return Ok(feed);
        }
        let feed = Feed::start(&self.tools, stream, view, &self.tasks).await.map_err(|error| {
            tracing::warn!(stream = %view.name, "viewers cannot be served: {error}");
            PlayError::Feed
        })?;
        let feed = Arc::new(feed);
        self.feeds.insert(key, Arc::downgrade(&feed));
        Ok(feed)
    }
}

/// What the browser is to be told.
#[derive(Debug, Clone, PartialEq)]
pub enum PlayNews {
    /// The source is being fetched.
    Pending,
    /// The answer.
    Answer(String),
    /// Media flows; the picture's size where known.
    Playing {
        /// Width and height in pixels.
        size: Option<(u32, u32)>,
        /// Whether the publisher has switched sound and picture off.
        muted: (bool, bool),
    },
    /// Its line is too thin for the stream.
    NotEnoughBandwidth {
        /// The stream's bits per second.
        stream_bps: u64,
        /// What its line is estimated to carry.
        estimate_bps: u64,
    },
    /// It is over.
    Ended {
        /// The browser did not ask for it: FAILED instead of STOPPED.
        failed: bool,
        /// WCS's text.
        info: String,
    },
}

/// A viewer before it runs.
pub struct Viewing {
    /// The feeds.
    pub plays: Plays,
    /// The stream.
    pub stream: StreamHandle,
    /// The place in it.
    pub subscription: Subscription,
    /// The browser's offer.
    pub offer: String,
    /// The viewer is another server.
    pub server: bool,
    /// Ends it on the browser's side.
    pub stop: CancellationToken,
}

/// How a viewer ended.
enum End {
    Failed(String),
    Stopped(String),
}

impl Viewing {
    /// Plays until the browser stops, the stream ends, or somebody outside ends it. `stopped_by` is the meaning of
    /// `stop`.
    pub async fn run(self, stopped_by: impl FnOnce() -> LastWord, news: impl Fn(PlayNews)) {
        let view = self.subscription.view();
        let late = never_came(&view.borrow());
        let asked = Instant::now();
        let end = tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            reason = self.subscription.terminated() => Some(End::Failed(reason.into())),
            info = ended(view) => Some(End::Failed(info)),
            end = self.play((asked, late), &news) => Some(end),
        };
        let (failed, info) = match end {
            None => {
                let LastWord { failed, info } = stopped_by();
                (failed, info.to_owned())
            }
            Some(End::Stopped(info)) => (false, info),
            Some(End::Failed(info)) => (true, info),
        };
        drop(self.subscription);
        news(PlayNews::Ended { failed, info });
    }

    async fn play(&self, (asked, late): (Instant, &str), news: &impl Fn(PlayNews)) -> End {
        let Some(view) = self.live(news).await else { return End::Failed(late.into()) };
        let feed = match self.plays.feed(&self.stream, view.clone()).await {
            Ok(feed) => feed,
            Err(error) => return End::Failed(error.to_string()),
        };
        let options = JoinOptions { one_clock: self.server, ..JoinOptions::default() };
        let joined = self.plays.relay.join(&feed.stream, &self.offer, &options);
        let mut viewer = match joined {
            Ok(joined) => {
                news(PlayNews::Answer(joined.answer));
                joined.viewer
            }
            Err(error) => return End::Failed(info_of(&error)),
        };
        let counted = viewer.watch();
        self.subscription.set_figures(Figures::new(move || figures(&counted.borrow())));
        self.watch(&mut viewer, &view, asked, news).await
    }

    /// Waits for a stream that has media.
    async fn live(&self, news: &impl Fn(PlayNews)) -> Option<StreamView> {
        let mut view = self.subscription.view();
        let flowing = async {
            let mut told = None;
            loop {
                let now = view.borrow_and_update().clone();
                if now.phase != Phase::Waiting {
                    return Some(now);
                }
                // Where it comes from may become known later: said again, for a player that must not feed it.
                if told.as_ref() != Some(&now.upstream) {
                    news(PlayNews::Pending);
                    told = Some(now.upstream);
                }
                view.changed().await.ok()?;
            }
        };
        timeout(SOURCE, flowing).await.ok()?
    }

    async fn watch(&self, viewer: &mut Viewer, view: &StreamView, asked: Instant, news: &impl Fn(PlayNews)) -> End {
        while let Some(event) = viewer.event().await {
            match event {
                ViewerEvent::Connected => {
                    self.subscription.set_status("PLAYING");
                    let video = view.tracks.iter().find(|track| track.kind == Kind::Video);
                    let now = self.subscription.view();
                    let muted = (now.borrow().audio_muted, now.borrow().video_muted);
                    news(PlayNews::Playing { size: video.map(|track| (track.width, track.height)), muted });
                }
                ViewerEvent::Flowing => self.plays.meter.viewed("WebRTC", asked.elapsed()),
                ViewerEvent::NotEnoughBandwidth { stream_bps, estimate_bps } => {
                    news(PlayNews::NotEnoughBandwidth { stream_bps, estimate_bps });
                }
                ViewerEvent::Ended(reason) => return end_of(reason),
            }
        }
        End::Failed("Failed by error".into())
    }
}

/// A viewer's figures: WCS's keys where it has them, and ours beside.
fn figures(counted: &ViewerSnapshot) -> Map<String, Value> {
    let figures = json!({
        "VIDEO_NACK": counted.nacks,
        "VIDEO_PLI": counted.plis,
        "VIDEO_LOST": counted.lost,
        "SENT_PACKETS": counted.packets,
        "SENT_BYTES": counted.bytes,
        "DROPPED_PACKETS": counted.dropped,
        "LOSS": counted.loss,
        "RTT_MS": counted.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
        "BANDWIDTH_ESTIMATE": counted.estimate_bps,
    });
    match figures {
        Value::Object(figures) => figures,
        _ => Map::new(),
    }
}

/// WCS's text for an offer that cannot be answered.
fn info_of(error: &JoinError) -> String {
    match error {
        JoinError::Sdp(super::SdpError::NoCommonCodecs) => "No common codecs".into(),
        _ => "Failed to add stream to proxy".into(),
    }
}

fn end_of(reason: EndReason) -> End {
    let failed = |info: &str| End::Failed(info.to_owned());
    match reason {
        EndReason::IceTimeout => failed("Failed by ICE timeout"),
        EndReason::DtlsTimeout | EndReason::DtlsFailed => failed("Failed by DTLS error"),
        EndReason::WrongCertificate => failed("Failed by DTLS fingerprint error"),
        EndReason::Vanished => failed("Failed by ICE keep alive"),
        // The SDK closes its connection before its stop message is read.
        EndReason::ClosedByPeer | EndReason::Left => End::Stopped("Stopped by user".into()),
        EndReason::StreamEnded => failed(STOPPED_BY_PUBLISHER),
        EndReason::RelayStopped => failed(STOPPED_BY_SHUTDOWN),
        EndReason::Internal => failed("Failed by error"),
    }
}

/// Whether a stream is published by a browser or an encoder, and not pulled from somewhere.
fn is_published(view: &StreamView) -> bool {
    view.publisher().is_some_and(|publisher| publisher.media_type == "publish")
}

/// WCS's text for a viewer of a stream whose media takes too long.
fn never_came(view: &StreamView) -> &'static str {
    if is_published(view) { "Publish stream is not ready" } else { "Failed to connect to origin stream" }
}

/// Resolves when the stream has ended: with the text for a viewer. One of a source that never came is told why.
async fn ended(mut view: watch::Receiver<StreamView>) -> String {
    while view.changed().await.is_ok() {}
    let view = view.borrow();
    let never_came = view.phase == Phase::Waiting && !is_published(&view);
    let reason = view.farewell.clone().filter(|_| never_came);
    reason.unwrap_or_else(|| STOPPED_BY_PUBLISHER.to_owned())
}
