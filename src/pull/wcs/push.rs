//! A push: a stream of ours, published on another WCS server.
//!
//! ```text
//!           the stream is live          media flows              stream or server lost
//!  New ───────────► (try) ───► ProcessedLocal ───► ProcessedRemote ───► Reconnecting ──► (try …)
//! ```
//!
//! It takes the stream as a player does, waits for it while it is away, and ends when it is terminated, as the agent or
//! as the stream's subscriber.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::call::{Call, News, Subject};
use super::dialogue::Way;
use crate::hub::{Phase, Player, StreamHandle, StreamView, Subscriber, Subscription};
use crate::media::{Agreed, Codec, Kind, Peer, PeerEvent, Sending, Track};
use crate::name::MediaSessionId;
use crate::pull::agent::{AgentStatus, AgentView, Direction, Ends, Outcome, PROVEN};
use crate::pull::{PushRequest, Tools};

/// The agent's task before it runs.
pub(in crate::pull) struct Push {
    request: PushRequest,
    session: MediaSessionId,
    tools: Tools,
    ends: Ends,
    view: watch::Sender<AgentView>,
}

/// A try in which media has flowed, or not.
struct Try {
    subscription: Subscription,
    view: StreamView,
    sending: Option<Sending>,
    flowing: Option<Instant>,
    agreed: Option<Agreed>,
    /// When media must flow.
    deadline: Option<Instant>,
}

impl Push {
    pub(in crate::pull) fn new(
        request: PushRequest,
        session: MediaSessionId,
        tools: Tools,
        ends: Ends,
    ) -> (Self, watch::Receiver<AgentView>) {
        let (view, snapshot) = watch::channel(AgentView {
            direction: Direction::Push,
            session: session.clone(),
            local_name: request.local_name.clone(),
            uri: request.uri.clone(),
            remote_name: Some(request.remote_name.clone()),
            remote_session: None,
            status: AgentStatus::New,
            has_audio: true,
            has_video: true,
            record: false,
            since: SystemTime::now(),
            attempts: 0,
            last_error: None,
        });
        (Self { request, session, tools, ends, view }, snapshot)
    }

    /// Runs until it is stopped from outside; gives back what tells the world that it has ended.
    pub(in crate::pull) async fn run(self) -> watch::Sender<AgentView> {
        tokio::select! {
            biased;
            () = self.ends.closing.cancelled() => {}
            () = self.ends.stop.cancelled() => {}
            () = self.tries() => {}
        }
        self.view
    }

    /// Ends when somebody ends its session in the stream, or when the tries are over and somebody removes it.
    async fn tries(&self) {
        let mut failed = 0;
        loop {
            let stream = self.live().await;
            self.set(AgentStatus::New);
            let Some(outcome) = self.one_try(&stream).await else { return };
            let proven = outcome.answered || outcome.flowed >= PROVEN;
            failed = if proven { 1 } else { failed + 1 };
            let wait = self.tools.backoff.wait(failed, rand::random()).filter(|_| !outcome.hopeless);
            self.lost(outcome.reason, failed);
            match wait {
                Some(wait) => sleep(wait).await,
                None => {
                    self.set(AgentStatus::Failed);
                    return std::future::pending().await;
                }
            }
        }
    }

    fn set(&self, status: AgentStatus) {
        self.view.send_modify(|view| view.status = status);
    }

    fn lost(&self, reason: String, attempts: u32) {
        let PushRequest { uri, local_name, .. } = &self.request;
        tracing::warn!(stream = %local_name, session = %self.session, attempts, "push to {uri} is interrupted: {reason}");
        self.view.send_modify(|view| {
            view.status = AgentStatus::Reconnecting;
            view.remote_session = None;
            view.attempts = attempts;
            view.last_error = Some(reason);
        });
    }

    /// The stream, once it has media.
    async fn live(&self) -> StreamHandle {
        let mut streams = self.tools.hub.watch();
        loop {
            let found = streams.borrow_and_update().get(&self.request.local_name).cloned();
            let Some(stream) = found else {
                // An error is the server's end: then this task is ended from outside.
                if streams.changed().await.is_err() {
                    return std::future::pending().await;
                }
                continue;
            };
            let mut view = stream.watch();
            if view.wait_for(|view| view.phase == Phase::Live).await.is_ok() {
                return stream;
            }
        }
    }

    /// `None` when somebody has ended its session in the stream.
    async fn one_try(&self, stream: &StreamHandle) -> Option<Outcome> {
        let player = Player {
            session: self.session.clone(),
            app_key: "defaultApp".into(),
            connection: self.request.uri.to_string(),
            provider: "WebRTC",
            transport: "UDP",
        };
        let Ok(subscription) = stream.subscribe(Subscriber::Player(player)) else {
            return Some(Outcome::failed("the stream has ended"));
        };
        let view = stream.view();
        let mut this = Try { subscription, view, sending: None, flowing: None, agreed: None, deadline: None };
        let mut outcome = match self.serve(stream, &mut this).await {
            Ok(()) => return None,
            Err(outcome) => outcome,
        };
        outcome.flowed = this.flowing.map_or(Duration::ZERO, |since| since.elapsed());
        Some(outcome)
    }

    async fn serve(&self, stream: &StreamHandle, this: &mut Try) -> Result<(), Outcome> {
        let publisher = this.view.publisher().ok_or_else(|| Outcome::failed("the stream has ended"))?.id.clone();
        let subject = Subject {
            way: Way::Publish,
            name: self.request.remote_name.clone(),
            ours: publisher,
            custom: None,
            trusted: false,
        };
        let mut call = self.tools.wcs.dial.open(&self.request.uri, subject).await?;
        while call.next().await? != News::Ready {}
        self.set(AgentStatus::ProcessedLocal);
        let tracks: Vec<Track> = this.view.tracks.iter().filter(|track| sendable(&track.codec)).cloned().collect();
        let (mut peer, offer) = self.offer(stream, &tracks).await.map_err(Outcome::failed)?;
        let session = call.session().clone();
        self.view.send_modify(|view| view.remote_session = Some(session));
        let has = |kind: Kind| tracks.iter().any(|track| track.kind == kind);
        call.publish(&offer, (has(Kind::Video), has(Kind::Audio)), &this.view.path());
        let ended = self.follow(stream, &mut call, &mut peer, this).await;
        if let Some(sending) = this.sending.take().filter(|sending| sending.dropped() > 0) {
            tracing::info!(stream = %self.request.local_name, dropped = sending.dropped(), "frames came faster than they could be pushed");
        }
        peer.stop().await;
        call.hang_up().await;
        ended
    }

    async fn offer(&self, stream: &StreamHandle, tracks: &[Track]) -> Result<(Peer, String), String> {
        if tracks.is_empty() {
            return Err("the stream has no track that can be pushed".into());
        }
        let launch = self.tools.catalog.launch("push-wcs", |filling| {
            tracks.iter().fold(filling, |filling, track| filling.track_in(track.kind, &track.codec))
        });
        let launch = launch.map_err(|error| error.to_string())?;
        let (pipelines, options) = (&self.tools.pipelines, &self.tools.wcs.options);
        let name = &self.request.local_name;
        let made = Peer::offer_to_send(pipelines, launch, name, stream.fanout(), tracks, options).await;
        made.map_err(|error| error.to_string())
    }

    /// Until the server, the stream or somebody outside (`Ok`) ends it.
    async fn follow(
        &self,
        stream: &StreamHandle,
        call: &mut Call,
        peer: &mut Peer,
        this: &mut Try,
    ) -> Result<(), Outcome> {
        let mut view = this.subscription.view();
        loop {
            let deadline = this.deadline;
            let late = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = this.subscription.terminated() => return Ok(()),
                changed = view.changed() => {
                    let now = view.borrow().clone();
                    let codecs = |view: &StreamView| -> Vec<Codec> { view.tracks.iter().map(|track| track.codec.clone()).collect() };
                    if changed.is_err() {
                        return Err(Outcome { answered: true, ..Outcome::failed("the stream has ended") });
                    }
                    if codecs(&now) != codecs(&this.view) {
                        return Err(Outcome { answered: true, ..Outcome::failed("the stream's tracks have changed") });
                    }
                }
                news = call.next() => match news? {
                    News::Answer(sdp) => {
                        let agreed = peer.take_answer(&sdp).await;
                        this.agreed = Some(agreed.map_err(|error| Outcome::failed(error.to_string()))?);
                        this.deadline = Some(Instant::now() + self.tools.wcs.media_timeout);
                    }
                    News::Flowing => self.flows(this),
                    _ => {}
                },
                event = peer.event() => self.happened(stream, peer, this, event).await?,
                () = late => return Err(Outcome::failed("the server does not say that media has come")),
            }
        }
    }

    fn flows(&self, this: &mut Try) {
        this.flowing = Some(Instant::now());
        this.deadline = None;
        this.subscription.set_status("PLAYING");
        self.view.send_modify(|view| {
            view.status = AgentStatus::ProcessedRemote;
            view.attempts = 0;
        });
    }

    async fn happened(
        &self,
        stream: &StreamHandle,
        peer: &Peer,
        this: &mut Try,
        event: Option<PeerEvent>,
    ) -> Result<(), Outcome> {
        match event {
            Some(PeerEvent::Connected) if this.sending.is_none() => {
                let agreed = this.agreed.as_ref().ok_or_else(|| Outcome::failed("no answer came"))?;
                if peer.certificate_sha256().await.as_ref() != Some(&agreed.fingerprint) {
                    return Err(Outcome::failed("the server's certificate is not the one of its answer"));
                }
                let sending = peer.send(stream.fanout(), &agreed.kinds);
                this.sending = Some(sending.map_err(|error| Outcome::failed(error.to_string()))?);
                Ok(())
            }
            Some(event) => super::source::broken(event),
            None => Err(Outcome::failed("the pipeline is gone")),
        }
    }
}

fn sendable(codec: &Codec) -> bool {
    !matches!(codec, Codec::Other(_))
}
