//! A client that plays: a stream's frames into FLV tags, from a keyframe on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::connection::{Refusal, until};
use super::flv::{self, Metadata};
use super::sound::Sound;
use super::{APP_KEY, Frame, PROVIDER, Tools};
use crate::hub::{Figures, Phase, Player, Shown, StreamView, SubscribeError, Subscriber, Subscription};
use crate::media::{Codec, Format, Kind, Output, Tap, Tapped, Track};
use crate::meter::Meter;
use crate::name::{MediaSessionId, StreamName};

/// Longest time a stream may take to its first media; one that is fetched from elsewhere has to be found first.
const SOURCE: Duration = Duration::from_secs(30);
/// How long the first frames of all tracks are gathered, so that they go out in the order of their times.
const LINE_UP: Duration = Duration::from_millis(500);
/// The same where there is only sound: the cache of it comes at once.
const LINE_UP_SOUND: Duration = Duration::from_millis(100);
/// How much of the cached sound is given where there is only sound, nanoseconds: enough to begin with, no delay to keep.
const HEAD_START: i64 = 1_000_000_000;
/// A frame that has waited longer is old: the player cannot keep up and goes on with a keyframe.
const LAG: Duration = Duration::from_secs(5);
/// Nanoseconds of a millisecond.
const MS: i64 = 1_000_000;

/// What a player's connection must do.
pub(super) enum PlayNews {
    /// Frames are in [`Playing::ready`].
    Ready,
    /// The stream has ended and everything of it was given.
    Over,
    /// Somebody outside ends it.
    Terminated,
}

pub(super) struct Playing {
    subscription: Subscription,
    view: watch::Receiver<StreamView>,
    tap: Tap,
    /// What is to be sent.
    pub(super) ready: Vec<Frame>,
    line_up: Option<LineUp>,
    clock: Timing,
    /// The format of the sound.
    heard: Option<Format>,
    /// Keeps the rendition that the sound comes from.
    _sound: Option<Arc<Sound>>,
    only_sound: bool,
    /// Pictures are left out until the next keyframe that is not old.
    lost: bool,
    dropped: Arc<AtomicU64>,
    /// Bytes given to the connection.
    sent: Arc<AtomicU64>,
    /// Since when the player waits for its first frame.
    asked: Option<Instant>,
    meter: Meter,
    ended: bool,
    id: MediaSessionId,
}

/// The first items, until every track has shown a frame.
struct LineUp {
    items: Vec<Tapped>,
    missing: Vec<Kind>,
    until: Option<Instant>,
    metadata: Bytes,
}

/// The player's time line, milliseconds from its first frame on.
#[derive(Default)]
struct Timing {
    /// The stream's time at the player's 0, nanoseconds.
    base: Option<i64>,
    /// The newest decoding time of each track, milliseconds.
    last: [i64; 2],
}

impl Playing {
    /// Takes a place in the stream, once it has media.
    pub(super) async fn start(
        tools: &Tools,
        id: MediaSessionId,
        name: &str,
        connection: &str,
    ) -> Result<Self, Refusal> {
        let asked = Some(Instant::now());
        let not_found = |reason: String| Refusal { code: "NetStream.Play.StreamNotFound", reason };
        let failed = |reason: String| Refusal { code: "NetStream.Play.Failed", reason };
        let name = StreamName::new(name).map_err(|error| not_found(error.to_string()))?;
        let found = (tools.find)(name.clone()).await;
        let handle = found.map_err(|info| not_found(format!("nobody publishes {name} ({info})")))?;
        let player = Player {
            session: id.clone(),
            app_key: APP_KEY.into(),
            connection: connection.to_owned(),
            provider: PROVIDER,
            transport: "TCP",
        };
        let subscription = handle.subscribe(Subscriber::Player(player)).map_err(|error| match error {
            SubscribeError::Gone => not_found(format!("nobody publishes {name}")),
            SubscribeError::Refused(_) => failed(error.to_string()),
        })?;
        let mut view = subscription.view();
        let now = first_media(&mut view).await?;
        let kinds = playable(&now.tracks).map_err(failed)?;
        let mut tap = Tap::default();
        let mut sound = None;
        if let Some(codec) = rendered(&now.tracks) {
            let rendition = tools.sounds.of(&handle, &now, codec).await.map_err(failed)?;
            tap.take(&rendition.fanout, &[Kind::Audio]);
            sound = Some(rendition);
        }
        let passed = |kind: &Kind| *kind == Kind::Video || sound.is_none();
        tap.take(subscription.fanout(), &kinds.iter().copied().filter(passed).collect::<Vec<_>>());
        let dropped = tap.dropped();
        let sent = Arc::new(AtomicU64::new(0));
        let (lost, given) = (dropped.clone(), sent.clone());
        subscription.set_figures(Figures::new(move || {
            let figures = [("FRAMES_DROPPED", &lost), ("SENT_BYTES", &given)];
            figures.map(|(key, counted)| (key.to_owned(), counted.load(Relaxed).into())).into_iter().collect()
        }));
        subscription.set_status("PLAYING");
        Ok(Self {
            view,
            tap,
            ready: Vec::new(),
            only_sound: !kinds.contains(&Kind::Video),
            heard: None,
            _sound: sound,
            line_up: Some(LineUp {
                items: Vec::new(),
                metadata: metadata(&now.tracks, &kinds),
                missing: kinds,
                until: None,
            }),
            clock: Timing::default(),
            lost: false,
            dropped,
            sent,
            asked,
            meter: tools.meter.clone(),
            ended: false,
            subscription,
            id,
        })
    }

    /// Its media session as WCS shows it.
    pub(super) fn shown(&self) -> Option<Shown> {
        self.view.borrow().shown(&self.id)
    }

    /// Leaves the stream. Returns once everybody sees it.
    pub(super) async fn leave(self) {
        let (mut view, id) = (self.view.clone(), self.id.clone());
        drop(self);
        // An error is the stream's end.
        let _ = view.wait_for(|view| view.shown(&id).is_none()).await;
    }

    /// Resolves when the connection has something to do. Frames are taken only while it has `room` for them.
    pub(super) async fn news(&mut self, room: bool) -> PlayNews {
        loop {
            if !self.ready.is_empty() {
                return PlayNews::Ready;
            }
            if self.ended && room {
                match self.tap.poll() {
                    Some(item) => self.take(item),
                    None if self.line_up.is_some() => self.lined_up(),
                    None => return PlayNews::Over,
                }
                continue;
            }
            let gathered = self.line_up.as_ref().and_then(|line_up| line_up.until);
            tokio::select! {
                biased;
                _ = self.subscription.terminated() => return PlayNews::Terminated,
                changed = self.view.changed(), if !self.ended => self.ended = changed.is_err(),
                item = self.tap.next(), if room && !self.ended => {
                    if let Some(item) = item {
                        self.take(item);
                    }
                }
                () = until(gathered) => self.lined_up(),
            }
        }
    }

    /// A frame is on its way to the player.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Relaxed);
        if let Some(asked) = self.asked.take() {
            self.meter.viewed(PROVIDER, asked.elapsed());
        }
    }

    /// Some frames did not reach the player: it goes on with a keyframe.
    pub(super) fn lost(&mut self) {
        self.lost = true;
        self.subscription.fanout().request_keyframe();
    }

    fn take(&mut self, item: Tapped) {
        match &mut self.line_up {
            None => self.convert(item),
            Some(line_up) => {
                if let Tapped::Frame(frame) = &item {
                    line_up.missing.retain(|kind| *kind != frame.kind);
                    let gather = if self.only_sound { LINE_UP_SOUND } else { LINE_UP };
                    line_up.until.get_or_insert_with(|| Instant::now() + gather);
                }
                line_up.items.push(item);
                if line_up.missing.is_empty() && !self.only_sound {
                    self.lined_up();
                }
            }
        }
    }

    /// The first frames of all tracks are there: formats go first, then frames by their times.
    fn lined_up(&mut self) {
        let Some(mut line_up) = self.line_up.take() else { return };
        self.ready.push(Frame::metadata(0, line_up.metadata));
        line_up.items.sort_by_key(|item| match item {
            Tapped::Format(_) => i64::MIN,
            Tapped::Frame(frame) => frame.dts,
        });
        let frames =
            || line_up.items.iter().filter_map(|item| if let Tapped::Frame(f) = item { Some(f) } else { None });
        // Pictures decide the start; sound that is earlier is left out.
        let leading = frames().find(|frame| frame.kind == Kind::Video).or(frames().next());
        let newest = frames().last().filter(|_| self.only_sound);
        self.clock.base = match (leading, newest) {
            (Some(first), Some(last)) => Some(first.dts.max(last.dts - HEAD_START)),
            (first, _) => first.map(|frame| frame.dts),
        };
        for item in line_up.items {
            self.convert(item);
        }
    }

    fn convert(&mut self, item: Tapped) {
        match item {
            Tapped::Format(format) => {
                self.ready.extend(header(&format, self.clock.now(format.kind())));
                if format.kind() == Kind::Audio {
                    self.heard = Some(format);
                }
            }
            Tapped::Frame(frame) => self.convert_frame(frame),
        }
    }

    fn convert_frame(&mut self, frame: Output) {
        let waited = frame.since.elapsed();
        self.lost |= waited > LAG;
        let starts = frame.keyframe && (frame.kind == Kind::Video || self.only_sound);
        if self.lost && !(starts && waited < LAG / 2) {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        self.lost = false;
        let Some((dts, composition)) = self.clock.place(&frame) else { return };
        self.ready.push(match (frame.kind, &self.heard) {
            (Kind::Video, _) => Frame::video_behind(dts, &flv::avc_head(frame.keyframe, composition), frame.payload),
            (Kind::Audio, Some(Format::Pcma { channels })) => {
                Frame::audio_behind(dts, &flv::g711_head(true, *channels), frame.payload)
            }
            (Kind::Audio, Some(Format::Pcmu { channels })) => {
                Frame::audio_behind(dts, &flv::g711_head(false, *channels), frame.payload)
            }
            (Kind::Audio, _) => Frame::audio_behind(dts, &flv::AAC_HEAD, frame.payload),
        });
    }
}

/// Waits for a stream's first media, which one that is fetched from elsewhere takes a while to. An encoder of a stream
/// that has none may be about to send: players of RTMP servers expect to wait.
async fn first_media(view: &mut watch::Receiver<StreamView>) -> Result<StreamView, Refusal> {
    let name = view.borrow().name.clone();
    let flows = timeout(SOURCE, view.wait_for(|view| view.phase != Phase::Waiting)).await;
    let waited = SOURCE.as_secs();
    match flows.map(|flows| flows.map(|view| view.clone())) {
        Ok(Ok(now)) => Ok(now),
        Ok(Err(_)) => {
            let ended = view.borrow().farewell.clone().unwrap_or_default();
            let reason = format!("{name} has ended before any media of it came ({ended})");
            Err(Refusal { code: "NetStream.Play.StreamNotFound", reason })
        }
        Err(_) => {
            let reason = format!("{name} is there, but no media of it came for {waited} s");
            Err(Refusal { code: "NetStream.Play.Failed", reason })
        }
    }
}

impl Timing {
    /// The player's time of a track now.
    fn now(&self, kind: Kind) -> u32 {
        wrapped(self.last[slot(kind)])
    }

    /// Decoding time, and presentation time less decoding time, both in the player's milliseconds. `None` for what is
    /// earlier than the player's start. Decoding times of a track never go back.
    fn place(&mut self, frame: &Output) -> Option<(u32, i32)> {
        let base = *self.base.get_or_insert(frame.dts);
        let ms = |time: i64| time.saturating_sub(base).div_euclid(MS);
        if ms(frame.dts) < 0 && self.last[slot(frame.kind)] == 0 {
            return None;
        }
        let last = &mut self.last[slot(frame.kind)];
        *last = ms(frame.dts).max(*last);
        let composition = ms(frame.pts).saturating_sub(*last);
        Some((wrapped(*last), i32::try_from(composition).unwrap_or(0)))
    }
}

fn slot(kind: Kind) -> usize {
    match kind {
        Kind::Video => 0,
        Kind::Audio => 1,
    }
}

/// RTMP's times wrap at 2^32 milliseconds.
fn wrapped(ms: i64) -> u32 {
    u32::try_from(ms.rem_euclid(1 << 32)).unwrap_or(0)
}

/// What a track's decoder needs first; G.711 needs nothing.
fn header(format: &Format, now: u32) -> Option<Frame> {
    match format {
        Format::H264 { record } => Some(Frame::video(now, flv::avc_sequence_header(record))),
        Format::Aac { config } => Some(Frame::audio(now, flv::aac_sequence_header(config))),
        Format::Pcma { .. } | Format::Pcmu { .. } => None,
    }
}

/// The codec of a stream's sound, where it must be another for FLV.
fn rendered(tracks: &[Track]) -> Option<&Codec> {
    tracks.iter().map(|track| &track.codec).find(|codec| **codec == Codec::Opus)
}

/// The kinds of a stream's tracks that players get.
fn playable(tracks: &[Track]) -> Result<Vec<Kind>, String> {
    let mut kinds = Vec::new();
    for track in tracks {
        match (track.kind, &track.codec) {
            (Kind::Video, Codec::H264) | (Kind::Audio, Codec::Aac | Codec::Pcma | Codec::Pcmu) => {
                kinds.push(track.kind)
            }
            (Kind::Video, codec) => {
                return Err(format!("the stream's video is {}, which RTMP players cannot take", codec.encoding_name()));
            }
            // Turned into AAC; see `rendered`.
            (Kind::Audio, Codec::Opus) => kinds.push(Kind::Audio),
            (Kind::Audio, _) => {}
        }
    }
    if kinds.is_empty() { Err("the stream has no track that RTMP players can take".into()) } else { Ok(kinds) }
}

/// `onMetaData` for the tracks that are sent.
fn metadata(tracks: &[Track], kinds: &[Kind]) -> Bytes {
    let mut metadata =
        Metadata { encoder: Some(concat!("weir/", env!("CARGO_PKG_VERSION")).into()), ..Metadata::default() };
    for track in tracks.iter().filter(|track| kinds.contains(&track.kind)) {
        match track.kind {
            Kind::Video => {
                metadata.video_codec = Some(7);
                metadata.size = Some((track.width, track.height)).filter(|size| *size != (0, 0));
            }
            Kind::Audio => {
                metadata.audio_codec = Some(match track.codec {
                    Codec::Pcma => 7,
                    Codec::Pcmu => 8,
                    _ => 10,
                });
                // What is turned into AAC is at 48 kHz.
                metadata.audio_rate = Some(track.rate).filter(|rate| *rate > 0);
                metadata.audio_channels = u8::try_from(track.channels).ok().filter(|channels| *channels > 0);
            }
        }
    }
    metadata.payload()
}

impl Drop for Playing {
    fn drop(&mut self) {
        let dropped = self.dropped.load(Relaxed);
        if dropped > 0 {
            let stream = &self.view.borrow().name;
            tracing::info!(%stream, dropped, "an RTMP player could not keep up");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn frame(kind: Kind, dts_ms: i64, pts_ms: i64) -> Output {
        let since = std::time::Instant::now();
        Output { kind, dts: dts_ms * MS, pts: pts_ms * MS, keyframe: true, payload: Bytes::new(), since }
    }

    #[test]
    fn the_player_starts_at_zero_and_never_goes_back() {
        let mut clock = Timing::default();
        assert_eq!(clock.place(&frame(Kind::Video, -80, 0)), Some((0, 80)));
        assert_eq!(clock.place(&frame(Kind::Audio, -100, -100)), None);
        assert_eq!(clock.place(&frame(Kind::Audio, 20, 20)), Some((100, 0)));
        assert_eq!(clock.place(&frame(Kind::Video, -40, 120)), Some((40, 160)));
        assert_eq!(clock.place(&frame(Kind::Video, -60, 40)), Some((40, 80)));
        assert_eq!(clock.now(Kind::Video), 40);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_media_is_told_why_in_vain() {
        let tasks = tokio_util::task::TaskTracker::new();
        let hub = crate::hub::Hub::start(crate::event::Events::default(), Default::default(), &tasks);
        let publication = hub.publish(crate::hub::tests::publisher(PROVIDER)).await.unwrap();
        let subscription = hub.streams()[publication.name()].subscribe(Subscriber::Recorder).unwrap();
        let mut view = subscription.view();
        let began = Instant::now();
        let silent = first_media(&mut view).await.err().unwrap();
        assert_eq!((silent.code, began.elapsed().as_secs()), ("NetStream.Play.Failed", SOURCE.as_secs()));
        assert!(silent.reason.contains("cam is there"), "{}", silent.reason);
        let waits = first_media(&mut view);
        let (ended, ()) = tokio::join!(waits, publication.leave(crate::hub::STOPPED_BY_REST));
        let ended = ended.err().unwrap();
        assert_eq!(ended.code, "NetStream.Play.StreamNotFound");
        assert!(ended.reason.contains(crate::hub::STOPPED_BY_REST), "{}", ended.reason);
    }

    #[test]
    fn times_wrap_as_rtmp_has_it() {
        let mut clock = Timing { base: Some(0), last: [0, 0] };
        assert_eq!(clock.place(&frame(Kind::Audio, (1 << 32) + 5, (1 << 32) + 5)), Some((5, 0)));
    }

    #[test]
    fn what_flv_does_not_carry_is_refused_or_left_out() {
        let track = |kind, codec| Track {
            kind,
            codec,
            width: 0,
            height: 0,
            rate: 0,
            channels: 0,
            profile_level_id: None,
            b_frames: false,
            caps: String::new(),
        };
        let of = |video: Option<Codec>, audio: Option<Codec>| {
            let video = video.map(|codec| track(Kind::Video, codec));
            let tracks: Vec<Track> = video.into_iter().chain(audio.map(|codec| track(Kind::Audio, codec))).collect();
            playable(&tracks)
        };
        assert_eq!(of(Some(Codec::H264), Some(Codec::Aac)), Ok(vec![Kind::Video, Kind::Audio]));
        assert_eq!(of(None, Some(Codec::Pcmu)), Ok(vec![Kind::Audio]));
        assert!(of(Some(Codec::Vp8), Some(Codec::Opus)).unwrap_err().contains("VP8"));
    }
}
