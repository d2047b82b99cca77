//! A client that publishes: FLV tags into an ingest, and the decision which tracks the stream has.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::absent::Place;
use super::amf::{self, Value};
use super::asking::Wanted;
use super::connection::{Refusal, until};
use super::flv::{AudioCodec, AudioTag, FrameKind, Packet, VideoCodec, VideoTag, unwrap_timestamp};
use super::{APP_KEY, PROVIDER, Tools};
use crate::hub::{Doubt, Hub, Publication, PublishError, Publisher, Recorded, SessionView, Shown, Wish};
use crate::media::{Format, Ingest, Input, Kind, SourceEvent, Track};
use crate::name::StreamName;

/// How long a second track may come after the first where nothing speaks of one.
const SETTLE: Duration = Duration::from_millis(1500);
/// The same while only sound is there and nothing is said of pictures: they begin with a keyframe.
const SETTLE_SOUND: Duration = Duration::from_secs(4);
/// How long a track that was announced may take to its first frame.
const ANNOUNCED: Duration = Duration::from_secs(12);
/// How long changes of a running stream are gathered before they are told.
const CHANGES: Duration = Duration::from_millis(200);
/// Longest time the last frames may take through the ingest.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a silent publisher may take to show that it is there while another one wants its name.
pub(super) const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// How long the stream of a publisher that was not there any more waits for the one that wants it.
const HANDOVER: Duration = Duration::from_secs(2);
/// WCS's word for what encoders feed.
const MEDIA_TYPE: &str = "publish";
/// What all times are later by, milliseconds: a composition time may be negative, a time of GStreamer's may not.
const LATER: i64 = 10_000;

/// What a publisher's connection must do.
pub(super) enum PublishNews {
    /// Somebody outside ends it, with these words.
    Terminated(&'static str),
    /// Its stream cannot go on.
    Failed(String),
    /// Somebody wants its name: it is to show that it is there, or to leave.
    Doubted,
}

/// What `onMetaData` says there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claims {
    video: bool,
    audio: bool,
}

pub(super) struct Publishing {
    publication: Publication,
    /// Kept from one message to the next, which only look at it.
    wish: Pin<Box<dyn Future<Output = Wish> + Send>>,
    /// The name it asked for, which its hook server may have replaced.
    asked: String,
    ingest: Ingest,
    tracks: Vec<Track>,
    live: bool,
    claims: Option<Claims>,
    /// What is left out, and why.
    refused: Vec<(Kind, String)>,
    /// When the tracks count as decided, or changes are told.
    decide: Option<Instant>,
    /// The newest time stamp, unwrapped, milliseconds.
    last: u64,
    /// Who wants the name, and waits for a sign of life.
    doubts: Vec<Doubt>,
}

impl Publishing {
    /// Takes the name and starts the ingest.
    pub(super) async fn start(tools: &Tools, wanted: Wanted, connection: &str) -> Result<Self, Refusal> {
        let bad_name = |reason: String| Refusal { code: "NetStream.Publish.BadName", reason };
        let name = StreamName::new(&wanted.name).map_err(|error| bad_name(error.to_string()))?;
        let publisher = Publisher {
            name,
            session: wanted.id,
            app_key: APP_KEY.into(),
            connection: connection.to_owned(),
            login: None,
            provider: PROVIDER,
            media_type: MEDIA_TYPE,
            transport: "TCP",
            record: (tools.record || wanted.record).then_some(Recorded::Everything),
            by: format!("RTMP from {connection}"),
        };
        let publication = tools.hub.publish(publisher).await.map_err(|error| match error {
            PublishError::NameTaken(_) => bad_name(error.to_string()),
            PublishError::Closing | PublishError::Refused(_) => failed(&error),
        })?;
        let launch = tools.catalog.launch("ingest-rtmp", |filling| filling.track(Kind::Video).track(Kind::Audio));
        let launch = launch.map_err(|error| failed(&error))?;
        let ingest = Ingest::start(&tools.pipelines, launch, publication.name(), publication.fanout()).await;
        let ingest = ingest.map_err(|error| failed(&error))?;
        let decide = Some(Instant::now() + ANNOUNCED);
        Ok(Self {
            wish: Box::pin(publication.wish()),
            publication,
            asked: wanted.asked,
            ingest,
            tracks: Vec::new(),
            live: false,
            claims: None,
            refused: Vec::new(),
            decide,
            last: 0,
            doubts: Vec::new(),
        })
    }

    /// Its media session as WCS shows it.
    pub(super) fn shown(&self) -> Option<Shown> {
        self.publication.view().shown(&self.publication.session())
    }

    /// Reads what `onMetaData` says of the tracks. It decides only how long they are waited for.
    pub(super) fn claims(&mut self, object: &amf::Object) {
        self.claims = Some(Claims::read(object));
    }

    /// Takes a video message.
    pub(super) async fn video(&mut self, timestamp: u32, payload: &Bytes) {
        // A tag that cannot be read is skipped: the next one stands on its own.
        let Ok(tag) = VideoTag::parse(payload) else { return };
        let keyframe = tag.is_key_frame();
        match (tag.codec, tag.packet) {
            _ if tag.frame == FrameKind::Command => {}
            (VideoCodec::Avc, Packet::SequenceStart) => self.configure(Format::H264 { record: tag.data }).await,
            (VideoCodec::Avc, Packet::Frames) => {
                self.push(Kind::Video, timestamp, tag.composition_ms, keyframe, tag.data);
            }
            (VideoCodec::Avc, Packet::SequenceEnd | Packet::Other) => {}
            (other, _) => self.refuse(Kind::Video, format!("weir does not carry {other:?} over RTMP")),
        }
    }

    /// Takes an audio message.
    pub(super) async fn audio(&mut self, timestamp: u32, payload: &Bytes) {
        let Ok(tag) = AudioTag::parse(payload) else { return };
        match (tag.codec, tag.packet) {
            // ffmpeg that copies ADTS has none to say yet, and says it with the first frame.
            (AudioCodec::Aac, Packet::SequenceStart) if tag.data.is_empty() => {}
            (AudioCodec::Aac, Packet::SequenceStart) => self.configure(Format::Aac { config: tag.data }).await,
            (AudioCodec::Pcma, Packet::Frames) => {
                self.configure(Format::Pcma { channels: tag.channels }).await;
                self.push(Kind::Audio, timestamp, 0, true, tag.data);
            }
            (AudioCodec::Pcmu, Packet::Frames) => {
                self.configure(Format::Pcmu { channels: tag.channels }).await;
                self.push(Kind::Audio, timestamp, 0, true, tag.data);
            }
            (AudioCodec::Aac, Packet::Frames) => self.push(Kind::Audio, timestamp, 0, true, tag.data),
            (AudioCodec::Aac, Packet::SequenceEnd | Packet::Other) => {}
            (other, _) => self.refuse(Kind::Audio, format!("weir does not carry {other:?} over RTMP")),
        }
    }

    async fn configure(&mut self, format: Format) {
        let kind = format.kind();
        if !format.usable() {
            return self.refuse(kind, "its configuration is broken".into());
        }
        if let Err(error) = self.ingest.configure(format).await {
            self.refuse(kind, error.to_string());
        }
    }

    fn push(&mut self, kind: Kind, timestamp: u32, composition_ms: i32, keyframe: bool, payload: Bytes) {
        self.last = unwrap_timestamp(self.last, timestamp);
        if payload.is_empty() {
            return;
        }
        let (dts, pts) = times(self.last, composition_ms);
        // What comes before its configuration cannot be decoded.
        let _ = self.ingest.push(kind, Input { dts, pts, keyframe, payload });
    }

    fn refuse(&mut self, kind: Kind, reason: String) {
        if self.refused.iter().any(|(refused, before)| *refused == kind && *before == reason) {
            return;
        }
        let (stream, session) = (self.publication.name(), self.publication.session());
        tracing::warn!(%stream, %session, "a publisher's {} is left out: {reason}", kind.label());
        // A publisher that invents reasons gets no list without end.
        if self.refused.len() < 8 {
            self.refused.push((kind, reason));
        }
    }

    /// Resolves when the connection has something to do; tells the hub of tracks meanwhile.
    pub(super) async fn news(&mut self) -> PublishNews {
        loop {
            tokio::select! {
                biased;
                wish = &mut self.wish => match wish {
                    Wish::End(reason) => return PublishNews::Terminated(reason),
                    Wish::SignOfLife(doubt) => {
                        self.wish = Box::pin(self.publication.wish());
                        self.doubts.push(doubt);
                        return PublishNews::Doubted;
                    }
                },
                event = self.ingest.event() => match event {
                    Some(SourceEvent::Track(track)) => self.note(track),
                    Some(SourceEvent::Failed(failure)) => return PublishNews::Failed(failure.to_string()),
                    Some(SourceEvent::Ended) | None => return PublishNews::Failed("the ingest has ended".into()),
                    Some(
                        SourceEvent::Described
                        | SourceEvent::Answered
                        | SourceEvent::PicturesAwaited
                        | SourceEvent::Redirected(_)
                        | SourceEvent::AllTracks
                        | SourceEvent::Refused { .. },
                    ) => {}
                },
                () = until(self.decide) => {
                    self.decide = None;
                    if self.tracks.is_empty() {
                        if let Some((_, reason)) = self.refused.first() {
                            return PublishNews::Failed(reason.clone());
                        }
                    } else {
                        self.live = true;
                        self.publication.live(self.tracks.clone());
                    }
                }
            }
        }
    }

    fn note(&mut self, track: Track) {
        if !track.note_in(&mut self.tracks) {
            return;
        }
        let wait = if self.live { CHANGES } else { self.patience() };
        self.decide = Some(Instant::now() + wait);
    }

    /// How long further tracks are waited for.
    fn patience(&self) -> Duration {
        let Some(missing) = missing(&self.tracks) else { return Duration::ZERO };
        let refused = self.refused.iter().any(|(kind, _)| *kind == missing);
        patience(missing, self.ingest.has(missing), refused, self.claims)
    }

    /// The client has given a sign of life: who wants the name is told.
    pub(super) fn shows(&mut self) {
        self.doubts.drain(..).for_each(Doubt::dispel);
    }

    /// Lets what was sent go through, and leaves the stream; `info` is what its players are told. `tools` given: the
    /// stream waits for a publisher to come back, or for the one that wants its name.
    pub(super) async fn leave(self, info: &str, failed: bool, tools: Option<&Tools>) {
        let Self { publication, wish, ingest, doubts, asked, .. } = self;
        // From now on others hear what is wanted of the stream's publisher.
        drop(wish);
        ingest.finish(DRAIN).await;
        let successor = (!doubts.is_empty()).then_some(HANDOVER);
        match tools.and_then(|tools| Some((tools, tools.linger.or(successor)?))) {
            Some((tools, wait)) => {
                let place = Place { stream: publication.name().clone(), session: publication.session() };
                tools.hub.keep(publication, wait, info).await;
                tools.absent.left(&asked, place, &tools.hub);
            }
            None if failed => publication.fail(info).await,
            None => publication.leave(info).await,
        }
    }
}

/// Whoever publishes `name` over RTMP has to show that it is there, or leaves it to whoever comes now: an encoder whose
/// network went away comes back while its old connection still looks like one.
pub(super) async fn make_way(hub: &Hub, name: &str) {
    let Ok(name) = StreamName::new(name) else { return };
    let Some(stream) = hub.streams().get(&name).cloned() else { return };
    let kind = |session: &SessionView| (session.provider, session.media_type);
    if stream.look(|view| view.publisher().map(kind)) == Some((PROVIDER, MEDIA_TYPE)) {
        stream.doubt(SIGN_OF_LIFE + DRAIN + HANDOVER).await;
    }
}

fn failed(error: &dyn std::fmt::Display) -> Refusal {
    Refusal { code: "NetStream.Publish.Failed", reason: error.to_string() }
}

/// Decoding and presentation time.
fn times(dts_ms: u64, composition_ms: i32) -> (Duration, Duration) {
    let dts = i64::try_from(dts_ms).unwrap_or(i64::MAX / 2).saturating_add(LATER);
    let time = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    (time(dts), time(dts.saturating_add(composition_ms.into())))
}

fn missing(tracks: &[Track]) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| tracks.iter().all(|track| track.kind != *kind))
}

/// How long a track that is missing while the other is there is waited for.
fn patience(missing: Kind, configured: bool, refused: bool, claims: Option<Claims>) -> Duration {
    match claims {
        _ if configured => ANNOUNCED,
        _ if refused => Duration::ZERO,
        Some(claims) if claims.has(missing) => ANNOUNCED,
        Some(_) => SETTLE,
        None if missing == Kind::Video => SETTLE_SOUND,
        None => SETTLE,
    }
}

impl Claims {
    fn read(object: &amf::Object) -> Self {
        // A number by FLV, a name by Enhanced RTMP.
        let says = |name| match amf::get(object, name) {
            Some(Value::Number(id)) => *id > 0.0,
            Some(Value::String(name)) => !name.is_empty(),
            _ => false,
        };
        Self { video: says("videocodecid"), audio: says("audiocodecid") }
    }

    fn has(self, kind: Kind) -> bool {
        match kind {
            Kind::Video => self.video,
            Kind::Audio => self.audio,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_is_waited_for() {
        let claims = |video, audio| Some(Claims { video, audio });
        assert_eq!(patience(Kind::Audio, false, false, claims(true, true)), ANNOUNCED);
        assert_eq!(patience(Kind::Audio, false, false, claims(true, false)), SETTLE);
        assert_eq!(patience(Kind::Audio, true, false, claims(true, false)), ANNOUNCED);
        assert_eq!(patience(Kind::Video, false, true, claims(true, true)), Duration::ZERO);
        assert_eq!(patience(Kind::Video, false, false, None), SETTLE_SOUND);
        assert_eq!(patience(Kind::Audio, false, false, None), SETTLE);
    }

    #[test]
    fn metadata_names_the_tracks() {
        let object = |video: Value| vec![("videocodecid".to_owned(), video), ("width".to_owned(), 640.0.into())];
        assert_eq!(Claims::read(&object(7.0.into())), Claims { video: true, audio: false });
        assert_eq!(Claims::read(&object("avc1".into())), Claims { video: true, audio: false });
        assert_eq!(Claims::read(&object(0.0.into())), Claims { video: false, audio: false });
    }

    #[test]
    fn no_time_is_negative() {
        let ms = Duration::from_millis;
        assert_eq!(times(40, 80), (ms(10_040), ms(10_120)));
        assert_eq!(times(0, -40), (ms(10_000), ms(9_960)));
        assert_eq!(times(0, -8_388_608), (ms(10_000), ms(0)));
    }
}
