//! One try of a pull from another WCS server: call, offer, receive, until one side ends it.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::super::agent::{AgentStatus, Job, Outcome, WATCH};
use super::super::scheme::Cause;
use super::call::{Call, News, Subject};
use super::dialogue::{End, Way};
use crate::gate::Action;
use crate::media::{Agreed, Kind, Peer, PeerEvent, SourceEvent, Track};

/// How long a second track may come after the first.
const SETTLE: Duration = Duration::from_secs(3);

impl From<End> for Outcome {
    fn from(end: End) -> Self {
        match end {
            End::Lost(reason) => Outcome::failed(reason),
            End::NoStream(reason) => Outcome { answered: true, cause: Cause::NotFound, ..Outcome::failed(reason) },
            End::Loop(reason) => Outcome { hopeless: true, ..Outcome::failed(reason) },
        }
    }
}

/// Calls the server and publishes what it sends until that ends.
pub(in crate::pull) async fn one_try(job: &Job) -> Outcome {
    let mut call = match open(job).await {
        Ok(call) => call,
        Err(outcome) => return outcome,
    };
    let outcome = match offer(job).await {
        Ok((mut peer, offer)) => {
            let session = call.session().clone();
            job.view.send_modify(|view| view.remote_session = Some(session));
            call.play(&offer);
            let outcome = receive(job, &mut call, &mut peer).await;
            peer.stop().await;
            outcome
        }
        Err(reason) => Outcome::failed(reason),
    };
    call.hang_up().await;
    job.view.send_modify(|view| view.remote_session = None);
    job.publication.comes_from(Vec::new());
    // The players of an edge are told what those of the origin are: its stream has ended.
    Outcome { hopeless: outcome.hopeless || (outcome.answered && job.request.on_demand), ..outcome }
}

/// A call whose server has answered.
async fn open(job: &Job) -> Result<Call, Outcome> {
    let name = job.request.remote_name.clone().ok_or_else(|| Outcome::failed("no stream is asked for"))?;
    // Players' names lead to the operator's origins, which ask for what this server asks for.
    let custom = job.request.on_demand.then(|| job.tools.wcs.dial.gate.own(Action::Play, name.as_str())).flatten();
    let subject =
        Subject { way: Way::Play, name, ours: job.publication.session(), custom, trusted: job.request.on_demand };
    let mut call = job.tools.wcs.dial.open(&job.request.uri, subject).await?;
    while call.next().await? != News::Ready {}
    job.set(AgentStatus::ProcessedLocal);
    Ok(call)
}

async fn offer(job: &Job) -> Result<(Peer, String), String> {
    let wanted = [(Kind::Video, job.request.has_video), (Kind::Audio, job.request.has_audio)];
    let kinds: Vec<Kind> = wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(kind, _)| kind).collect();
    let launch = job.tools.launch(&job.request.uri, "").map_err(|error| error.to_string())?;
    let (pipelines, options) = (&job.tools.pipelines, &job.tools.wcs.options);
    let (name, fanout) = (job.publication.name(), job.publication.fanout());
    let made = Peer::offer_to_receive(pipelines, launch, name, fanout, &kinds, options).await;
    made.map_err(|error| error.to_string())
}

/// What a try knows of its media.
#[derive(Default)]
struct Media {
    agreed: Option<Agreed>,
    /// The certificate was the answer's.
    verified: bool,
    tracks: Vec<Track>,
    /// When it went live.
    live: Option<Instant>,
    /// When it must be live, or is live with the tracks it has.
    deadline: Option<Instant>,
}

impl Media {
    fn complete(&self) -> bool {
        let agreed = self.agreed.as_ref().map_or(0, |agreed| agreed.kinds.len());
        self.verified && !self.tracks.is_empty() && self.tracks.len() >= agreed
    }
}

async fn receive(job: &Job, call: &mut Call, peer: &mut Peer) -> Outcome {
    let mut media = Media::default();
    let mut outcome = follow(job, call, peer, &mut media).await;
    outcome.flowed = media.live.map_or(Duration::ZERO, |since| since.elapsed());
    outcome
}

async fn follow(job: &Job, call: &mut Call, peer: &mut Peer, media: &mut Media) -> Outcome {
    loop {
        let deadline = media.deadline;
        let late = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let step = tokio::select! {
            news = call.next() => match news {
                Ok(News::Answer(sdp)) => answered(job, peer, media, &sdp).await,
                Ok(News::Path(path)) => {
                    job.publication.comes_from(path);
                    Ok(())
                }
                Ok(_) => Ok(()),
                Err(end) => Err(end.into()),
            },
            event = peer.event() => happened(job, peer, media, event).await,
            () = late => ran_out(job, media),
            () = sleep(WATCH), if media.live.is_some() => silence(job),
        };
        if let Err(outcome) = step {
            return outcome;
        }
    }
}

async fn answered(job: &Job, peer: &mut Peer, media: &mut Media, sdp: &str) -> Result<(), Outcome> {
    let agreed = peer.take_answer(sdp).await.map_err(|error| Outcome::failed(error.to_string()))?;
    if agreed.kinds.is_empty() {
        return Err(Outcome { answered: true, ..Outcome::failed("the server sends nothing of what is asked for") });
    }
    media.agreed = Some(agreed);
    media.deadline = Some(Instant::now() + job.tools.wcs.media_timeout);
    Ok(())
}

async fn happened(job: &Job, peer: &Peer, media: &mut Media, event: Option<PeerEvent>) -> Result<(), Outcome> {
    match event {
        Some(PeerEvent::Connected) => {
            let shown = peer.certificate_sha256().await;
            media.verified = shown.is_some() && shown == media.agreed.as_ref().map(|agreed| agreed.fingerprint.clone());
            if !media.verified {
                return Err(Outcome::failed("the server's certificate is not the one of its answer"));
            }
        }
        Some(PeerEvent::Source(SourceEvent::Track(track))) => {
            let news = track.note_in(&mut media.tracks);
            if media.live.is_some() {
                if news {
                    job.publication.live(media.tracks.clone());
                }
                return Ok(());
            }
            media.deadline = media.deadline.map(|deadline| deadline.min(Instant::now() + SETTLE));
        }
        Some(PeerEvent::Source(SourceEvent::Refused { kind, reason })) => {
            let (stream, session) = (job.publication.name(), job.publication.session());
            tracing::info!(%stream, %session, "the server's {} is left out: {reason}", kind.label());
        }
        None => return Err(Outcome::failed("the pipeline is gone")),
        Some(event) => broken(event)?,
    }
    if media.live.is_none() && media.complete() {
        go_live(job, media);
    }
    Ok(())
}

/// What ends a peer at any time.
pub(super) fn broken(event: PeerEvent) -> Result<(), Outcome> {
    match event {
        PeerEvent::IceFailed => Err(Outcome::failed("ICE finds no way to the server's media")),
        PeerEvent::DtlsFailed => Err(Outcome::failed("the DTLS handshake with the server failed")),
        PeerEvent::Closed | PeerEvent::Source(SourceEvent::Ended) => {
            Err(Outcome { answered: true, ..Outcome::failed("the server has ended the media") })
        }
        PeerEvent::Source(SourceEvent::Failed(failure)) => Err(Outcome::failed(failure.to_string())),
        _ => Ok(()),
    }
}

/// The time for media is over: what has come is all there is, if any has.
fn ran_out(job: &Job, media: &mut Media) -> Result<(), Outcome> {
    if media.verified && !media.tracks.is_empty() {
        go_live(job, media);
        return Ok(());
    }
    let seconds = job.tools.wcs.media_timeout.as_secs_f32();
    let reason = format!("the server answers, but no media comes within {seconds} s");
    Err(Outcome { answered: true, ..Outcome::failed(reason) })
}

fn go_live(job: &Job, media: &mut Media) {
    media.live = Some(Instant::now());
    media.deadline = None;
    job.publication.live(media.tracks.clone());
    job.flows();
}

fn silence(job: &Job) -> Result<(), Outcome> {
    if job.publication.fanout().silence() <= job.tools.stall_timeout {
        return Ok(());
    }
    Err(Outcome::failed(format!("no data for {} s", job.tools.stall_timeout.as_secs_f32())))
}
