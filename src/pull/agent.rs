//! One pull agent: dials, publishes, notices silence, and dials again.
//!
//! ```text
//!          answer, tracks           media                 source lost
//!  New ──────────► ProcessedLocal ───────► ProcessedRemote ──────────► Reconnecting ──► (New …)
//!   │                    │                                                  │
//!   └────────────────────┴─────────────── try failed ───────────────────────┤
//!                                                              attempts over └─► Failed
//! ```

use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::scheme::{self, Cause};
use super::{PullRequest, Scheme, SourceUri, Tools, wcs};
use crate::event::Event;
use crate::hub::{Publication, STOPPED_BY_REST, STOPPED_BY_SHUTDOWN};
use crate::media::{Failure, Kind, Source, SourceEvent, Track};
use crate::name::{MediaSessionId, StreamName};

/// How long a second track may come after the first where the source does not say that all are there.
const SETTLE: Duration = Duration::from_millis(1500);
/// The same while only sound is there: pictures begin with a keyframe.
const SETTLE_SOUND: Duration = Duration::from_secs(4);
/// How long a track that the source has announced may take to its first frame.
const ANNOUNCED: Duration = Duration::from_secs(12);
/// How long sound is held back for pictures that the source's metadata announces: x264's own distance of keyframes is
/// 250 pictures.
const PICTURES: Duration = Duration::from_secs(20);
/// Why a source that players asked for is left.
const NO_PLAYERS: &str = "Nobody plays it any more";
/// How many redirects in a row are followed.
const REDIRECTS: u32 = 5;
/// How often a running source is looked at.
pub(super) const WATCH: Duration = Duration::from_millis(500);
/// Media that flowed this long makes the next loss the first one again.
pub(super) const PROVEN: Duration = Duration::from_secs(10);

/// Where an agent is. The words are WCS's where it has some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AgentStatus {
    /// Dialling; the source has not answered.
    New,
    /// The source has answered; tracks are being found.
    ProcessedLocal,
    /// Media flows.
    ProcessedRemote,
    /// Waiting before the next try.
    Reconnecting,
    /// Gave up.
    Failed,
}

/// Which way an agent's media goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the remote server to here.
    Pull,
    /// From here to the remote server.
    Push,
}

/// An agent as it is.
#[derive(Debug, Clone)]
pub struct AgentView {
    /// Which way its media goes.
    pub direction: Direction,
    /// Its media session here: the publisher of the stream it pulls, a subscriber of the one it pushes.
    pub session: MediaSessionId,
    /// The stream here.
    pub local_name: StreamName,
    /// The source.
    pub uri: SourceUri,
    /// The stream's name there, where the address does not say it.
    pub remote_name: Option<StreamName>,
    /// Its media session there, while the server knows of it.
    pub remote_session: Option<MediaSessionId>,
    /// Where it is.
    pub status: AgentStatus,
    /// Sound is asked for.
    pub has_audio: bool,
    /// Pictures are asked for.
    pub has_video: bool,
    /// Recording is asked for.
    pub record: bool,
    /// When it was started.
    pub since: SystemTime,
    /// How many tries failed since media last flowed.
    pub attempts: u32,
    /// Why the last try ended, secrets masked.
    pub last_error: Option<String>,
}

/// The agent's task before it runs.
pub(super) struct Job {
    pub(super) request: PullRequest,
    pub(super) publication: Publication,
    pub(super) tools: Tools,
    ends: Ends,
    pub(super) view: watch::Sender<AgentView>,
}

/// What ends an agent from outside.
pub(super) struct Ends {
    /// Somebody ends this one.
    pub(super) stop: CancellationToken,
    /// The server shuts down.
    pub(super) closing: CancellationToken,
}

pub(super) fn new(
    request: PullRequest,
    publication: Publication,
    tools: Tools,
    ends: Ends,
) -> (Job, watch::Receiver<AgentView>) {
    let (view, snapshot) = watch::channel(AgentView {
        direction: Direction::Pull,
        session: publication.session(),
        local_name: publication.name().clone(),
        uri: request.uri.clone(),
        remote_name: request.remote_name.clone(),
        remote_session: None,
        status: AgentStatus::New,
        has_audio: request.has_audio,
        has_video: request.has_video,
        record: request.record,
        since: SystemTime::now(),
        attempts: 0,
        last_error: None,
    });
    let job = Job { request, publication, tools, ends, view };
    (job, snapshot)
}

/// How one try ended.
pub(super) struct Outcome {
    pub(super) reason: String,
    /// The server took the request, so the wait before the next try need not grow.
    pub(super) answered: bool,
    /// How long media flowed.
    pub(super) flowed: Duration,
    pub(super) cause: Cause,
    /// No further try can go better.
    pub(super) hopeless: bool,
    /// Where the server sends its clients.
    pub(super) redirect: Option<String>,
}

impl Outcome {
    pub(super) fn failed(reason: impl Into<String>) -> Self {
        let (flowed, cause) = (Duration::ZERO, Cause::Other);
        Self { reason: reason.into(), answered: false, flowed, cause, hopeless: false, redirect: None }
    }
}

impl Job {
    /// Runs until it is stopped from outside; gives back what tells the world that it has ended.
    pub(super) async fn run(self) -> watch::Sender<AgentView> {
        let (failed, ended) = tokio::select! {
            biased;
            () = self.ends.closing.cancelled() => (false, STOPPED_BY_SHUTDOWN),
            () = self.ends.stop.cancelled() => (false, STOPPED_BY_REST),
            reason = self.publication.terminated() => (false, reason),
            () = self.unwanted() => (false, NO_PLAYERS),
            cause = self.tries() => match self.request.on_demand {
                true => (true, self.request.uri.scheme().lost(cause)),
                false => return self.gave_up().await,
            },
        };
        match failed {
            true => self.publication.fail(ended).await,
            false => self.publication.leave(ended).await,
        }
        self.view
    }

    /// Leaves the stream, and stays in the list as failed until somebody removes it.
    async fn gave_up(self) -> watch::Sender<AgentView> {
        let reason = self.view.borrow().last_error.clone().unwrap_or_default();
        self.publication_events(|stream, session| Event::PullFailed { stream, session, reason: reason.clone() });
        self.publication.fail(&reason).await;
        self.view.send_modify(|view| view.status = AgentStatus::Failed);
        tokio::select! {
            () = self.ends.closing.cancelled() => {}
            () = self.ends.stop.cancelled() => {}
        }
        self.view
    }

    /// Resolves when a source that players asked for has had none for the operator's time.
    async fn unwanted(&self) {
        let rules = self.tools.rules(self.request.uri.scheme());
        let limit = rules.idle_timeout.filter(|_| self.request.on_demand);
        let Some(limit) = limit else { return std::future::pending().await };
        let mut since = Instant::now();
        loop {
            sleep(WATCH.min(limit)).await;
            if self.publication.view().sessions.len() > 1 {
                since = Instant::now();
            } else if since.elapsed() >= limit {
                return;
            }
        }
    }

    /// Dials until the back-off gives up, and says why the last try failed. What players asked for gets one try: they
    /// are told at once.
    async fn tries(&self) -> Cause {
        let mut failed = 0;
        let mut flowed = false;
        loop {
            self.set(AgentStatus::New);
            let outcome = self.one_try().await;
            self.publication.interrupted(&outcome.reason);
            let answered = outcome.answered || outcome.flowed >= PROVEN;
            failed = if answered { 1 } else { failed + 1 };
            let wait = self.tools.backoff.wait(failed, rand::random());
            self.view.send_modify(|view| {
                view.status = AgentStatus::Reconnecting;
                view.attempts = failed;
                view.last_error = Some(outcome.reason.clone());
            });
            flowed |= !outcome.flowed.is_zero();
            let again = !outcome.hopeless && (flowed || !self.request.on_demand);
            let Some(wait) = wait.filter(|_| again) else { return outcome.cause };
            self.publication_events(|stream, session| Event::PullRetry {
                stream,
                session,
                reason: outcome.reason.clone(),
                attempts: failed,
                wait,
            });
            sleep(wait).await;
        }
    }

    fn publication_events(&self, event: impl FnOnce(StreamName, MediaSessionId) -> Event) {
        let stream = self.publication.name().clone();
        self.tools.hub.events().tell(event(stream, self.publication.session()));
    }

    pub(super) fn set(&self, status: AgentStatus) {
        self.view.send_modify(|view| view.status = status);
    }

    async fn one_try(&self) -> Outcome {
        if self.request.uri.scheme() == Scheme::Wcs {
            return wcs::one_try(self).await;
        }
        let mut uri = self.request.uri.clone();
        for _ in 0..=REDIRECTS {
            let outcome = self.dial(&uri).await;
            let Some(to) = &outcome.redirect else { return outcome };
            uri = match uri.redirected(to) {
                Ok(next) => next,
                Err(reason) => return Outcome::failed(reason),
            };
            let (stream, session) = (self.publication.name(), self.publication.session());
            tracing::info!(%stream, %session, "the source redirects to {uri}");
        }
        Outcome::failed(format!("it redirects more than {REDIRECTS} times, at last to {uri}"))
    }

    async fn dial(&self, uri: &SourceUri) -> Outcome {
        let mut source = match self.start(uri).await {
            Ok(source) => source,
            Err(reason) => return Outcome::failed(reason),
        };
        let mut outcome = self.follow(&mut source, uri).await;
        source.stop().await;
        if *uri != self.request.uri {
            outcome.reason = format!("{} (redirected to {uri})", outcome.reason);
        }
        outcome
    }

    async fn start(&self, uri: &SourceUri) -> Result<Source, String> {
        let dialled = self.tools.reach.dialled(uri).await.map_err(|barred| barred.to_string())?;
        let launch = self.tools.launch(uri, &dialled);
        let launch = launch.map_err(|error| error.to_string())?;
        let (pipelines, name) = (&self.tools.pipelines, self.publication.name());
        let rtmp = self.request.uri.scheme() == Scheme::Rtmp;
        let hold = (rtmp && self.request.has_video).then_some(PICTURES);
        let rules = self.tools.source_rules(&self.request, hold);
        let started = Source::start(pipelines, launch, name, self.publication.fanout(), rules).await;
        started.map_err(|error| error.to_string())
    }

    async fn follow(&self, source: &mut Source, uri: &SourceUri) -> Outcome {
        let mut tracks = match self.find_tracks(source, uri).await {
            Ok(tracks) => tracks,
            Err(outcome) => return outcome,
        };
        let live_since = Instant::now();
        self.publication.live(tracks.clone());
        self.flows();
        let reason = loop {
            match timeout(WATCH, source.event()).await {
                Err(_) if self.publication.fanout().silence() > self.tools.stall_timeout => {
                    break format!("no data for {} s", self.tools.stall_timeout.as_secs_f32());
                }
                Err(_) => {}
                Ok(Some(SourceEvent::Track(track))) => {
                    if track.note_in(&mut tracks) {
                        self.publication.live(tracks.clone());
                    }
                }
                Ok(Some(SourceEvent::Failed(failure))) => break failure.to_string(),
                Ok(Some(SourceEvent::Ended) | None) => break "the source has ended the stream".into(),
                Ok(Some(SourceEvent::Redirected(_))) => break "the source sends its players elsewhere".into(),
                Ok(Some(SourceEvent::Refused { kind, reason })) => self.left_out(kind, &reason),
                Ok(Some(
                    SourceEvent::Described
                    | SourceEvent::Answered
                    | SourceEvent::PicturesAwaited
                    | SourceEvent::AllTracks,
                )) => {}
            }
        };
        Outcome { flowed: live_since.elapsed(), ..Outcome::failed(reason) }
    }

    /// Media flows.
    pub(super) fn flows(&self) {
        self.view.send_modify(|view| {
            view.status = AgentStatus::ProcessedRemote;
            view.attempts = 0;
        });
    }

    fn left_out(&self, kind: Kind, reason: &str) {
        let (stream, session) = (self.publication.name(), self.publication.session());
        tracing::info!(%stream, %session, "the source's {} is left out: {reason}", kind.label());
    }

    /// Waits until the source's tracks are known: it says so, or no further one comes for [`SETTLE`].
    async fn find_tracks(&self, source: &mut Source, uri: &SourceUri) -> Result<Vec<Track>, Outcome> {
        let mut tracks = Vec::new();
        let mut refused = Vec::new();
        let mut deadline = Instant::now() + self.tools.connect_timeout;
        let mut all = false;
        let mut pads = 0;
        let mut described = false;
        loop {
            if all && !tracks.is_empty() && tracks.len() + refused.len() >= pads {
                return Ok(tracks);
            }
            let event = tokio::select! {
                event = source.event() => event,
                () = sleep_until(deadline) => {
                    if !tracks.is_empty() {
                        return Ok(tracks);
                    }
                    return Err(self.no_tracks(source, described || pads > 0, &refused));
                }
            };
            match event {
                Some(SourceEvent::Described) => {
                    described = true;
                    self.set(AgentStatus::ProcessedLocal);
                }
                Some(SourceEvent::Answered) => {
                    pads += 1;
                    self.set(AgentStatus::ProcessedLocal);
                    deadline = deadline.max(Instant::now() + SETTLE);
                }
                Some(SourceEvent::PicturesAwaited) => deadline = deadline.max(Instant::now() + PICTURES + SETTLE),
                Some(SourceEvent::Track(track)) => {
                    let sound_only = self.request.has_video && track.kind == Kind::Audio;
                    track.note_in(&mut tracks);
                    deadline = Instant::now()
                        + match tracks.len() + refused.len() < pads {
                            true => ANNOUNCED,
                            false if sound_only && tracks.len() == 1 && refused.is_empty() => SETTLE_SOUND,
                            false => SETTLE,
                        };
                }
                Some(SourceEvent::Refused { kind, reason }) => {
                    self.left_out(kind, &reason);
                    refused.push(reason);
                }
                Some(SourceEvent::AllTracks) => all = true,
                Some(SourceEvent::Failed(failure)) => return Err(self.failed(&failure, uri).await),
                Some(SourceEvent::Redirected(to)) => {
                    return Err(Outcome { redirect: Some(to), ..Outcome::failed("it redirects") });
                }
                Some(SourceEvent::Ended) | None => {
                    return Err(Outcome::failed("the source ended before it sent any media"));
                }
            }
        }
    }

    async fn failed(&self, failure: &Failure, uri: &SourceUri) -> Outcome {
        let unreachable = match failure.unexplained {
            true => scheme::unreachable(uri, &self.tools.reach).await,
            false => None,
        };
        let cause = if failure.not_found { Cause::NotFound } else { Cause::Other };
        Outcome { cause, ..Outcome::failed(unreachable.unwrap_or_else(|| failure.to_string())) }
    }

    fn no_tracks(&self, source: &Source, answered: bool, refused: &[String]) -> Outcome {
        let seconds = self.tools.connect_timeout.as_secs_f32();
        if !refused.is_empty() {
            let reason = format!("nothing of the source may be brought: {}", refused.join("; "));
            return Outcome { cause: Cause::NoCodec, ..Outcome::failed(reason) };
        }
        // The handshake is not counted: any byte is an answer to what was asked for.
        let connected = answered || source.bytes_in().is_some_and(|bytes| bytes > 0);
        Outcome {
            answered: connected,
            ..Outcome::failed(match (connected, self.request.uri.scheme()) {
                (true, Scheme::Rtmp | Scheme::Wcs) => {
                    format!("the server answers, but nothing is published there ({seconds} s)")
                }
                (true, Scheme::Rtsp) => format!("the server describes the stream, but sends none of it ({seconds} s)"),
                (false, _) => format!("no answer within {seconds} s"),
            })
        }
    }
}
