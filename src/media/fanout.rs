//! A stream's frames on their way from its source to whoever takes them.
//!
//! ```text
//! source's streaming thread                      each consumer
//!   appsink's pad ─► Feeder ──► cache (running GOP)      appsrc, recording feed, …
//!                         └───► Consumer::take(&frame) ─► queues by itself, never waits
//! ```
//!
//! A [`Feeder`] takes what comes to its appsink's pad off there: what a sink does for clocks and its own queue is of no
//! use here. It belongs to the one streaming thread that delivers its track: consumers, cache and time line are plain
//! fields of it. Who joins comes in through a channel, who leaves raises a flag, figures go out as atomics: a frame
//! waits for no lock here and its payload is never copied. When a source is replaced (a pull reconnects) its feeders go
//! back to the [`Fanout`], consumers and all, and the next source takes them from there.
//!
//! All tracks share one time line, in nanoseconds, on which the stream's first frame is at [`ORIGIN`]. A source's own
//! running time is mapped onto it by an offset, chosen with the source's first frame so that a gap between two sources
//! is as long as it was, and anew where the source's clock jumps ([`super::timeline`]).

mod member;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSink;

use self::member::{Joiner, Member, Membership};
use super::segment::{TimeSegment, running_time, shifted};
use super::timeline::{Line, Stamp};
use super::track::{Codec, Kind, Track};

/// Most bytes of a running GOP that are kept for who joins late. A longer GOP is not kept: joiners wait for the next.
const VIDEO_CACHE: usize = 8 << 20;
/// Most bytes of sound kept beside it.
const AUDIO_CACHE: usize = 2 << 20;
/// How much sound is kept for a stream without video, in nanoseconds.
const AUDIO_ONLY_CACHE: u64 = 2_000_000_000;
/// Least time between two requests for a keyframe, nanoseconds.
const KEYFRAME_INTERVAL: u64 = 500_000_000;
/// How long after a stream became live its first frames are still kept, in nanoseconds: a recorder joins by then.
const GRACE: u64 = 500_000_000;
/// Where on a stream's time line its first frame is: the first frame of the other track may come after it and still be
/// a little before it.
pub const ORIGIN: Duration = Duration::from_secs(1);
/// No start decided yet, no offset chosen yet.
const UNSET: u64 = u64::MAX;
const NO_OFFSET: i64 = i64::MIN;

/// One access unit or audio frame. Cloning shares the payload.
#[derive(Clone)]
pub(super) struct Frame {
    /// Buffer, caps, and a segment that maps its time stamps onto the stream's time line.
    pub sample: gst::Sample,
    /// Presentation time on the stream's time line, nanoseconds.
    pub time: u64,
    /// Decoding can start here. Every audio frame is one.
    pub keyframe: bool,
    /// Payload bytes.
    pub size: usize,
}

impl Frame {
    /// How long it lasts, nanoseconds; 0 where the source does not say.
    pub fn duration(&self) -> u64 {
        self.sample.buffer().and_then(|b| b.duration()).map_or(0, |d| d.nseconds())
    }
}

/// Somebody who takes frames. `take` runs in the source's streaming thread: it must neither wait nor fail. Dropped
/// when it has left or the stream has ended.
pub(super) trait Consumer: Send {
    fn take(&mut self, frame: &Frame);
}

/// The fan-out of one stream. A cheap handle; lives as long as the stream, across its sources.
#[derive(Clone)]
pub struct Fanout(Arc<Shared>);

struct Shared {
    /// When the stream was made: what source gaps are measured with.
    birth: Instant,
    joins: [Sender<Joiner>; 2],
    /// Feeders without a source. The lock is taken when a source comes or goes, never for a frame.
    homes: [Mutex<Option<Feeder>>; 2],
    /// Its source's running time is another fan-out's time line.
    follows: AtomicBool,
    /// Added to a source's running time, nanoseconds.
    offset: AtomicI64,
    /// End of the newest frame on the time line, nanoseconds.
    latest: AtomicU64,
    /// Where the cache starts on the time line.
    gop_start: AtomicU64,
    has_video: AtomicBool,
    /// When the stream became live, and [`GRACE`] later.
    forgets_from: AtomicU64,
    figures: [Figures; 2],
    /// The appsink of the source's pictures: a request for a keyframe goes upstream from there.
    pictures: ArcSwapOption<gst::glib::WeakRef<AppSink>>,
    /// When a keyframe was last asked for, nanoseconds since `birth`.
    asked: AtomicU64,
}

#[derive(Default)]
struct Figures {
    frames: AtomicU64,
    keyframes: AtomicU64,
    bytes: AtomicU64,
    last: AtomicU64,
}

/// What has come in on one track.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct TrackFigures {
    /// Frames.
    pub frames: u64,
    /// Frames that decoding can start with.
    pub keyframes: u64,
    /// Payload bytes.
    pub bytes: u64,
}

/// A place in the fan-out. Dropping it leaves: with the next frame, or at once where no source runs.
pub(super) struct Link {
    membership: Arc<Membership>,
    fanout: Arc<Shared>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.membership.left.store(true, Relaxed);
        // A running source drops the consumers with its next frame. Without a source there is none to wait for.
        for home in &self.fanout.homes {
            if let Some(feeder) = home.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                feeder.meet();
            }
        }
    }
}

impl Default for Fanout {
    fn default() -> Self {
        let (video_joins, video_inbox) = channel();
        let (audio_joins, audio_inbox) = channel();
        let feeder = |kind, inbox| Mutex::new(Some(Feeder::new(kind, inbox)));
        Self(Arc::new(Shared {
            birth: Instant::now(),
            joins: [video_joins, audio_joins],
            homes: [feeder(Kind::Video, video_inbox), feeder(Kind::Audio, audio_inbox)],
            follows: AtomicBool::new(false),
            offset: AtomicI64::new(NO_OFFSET),
            latest: AtomicU64::new(0),
            gop_start: AtomicU64::new(0),
            has_video: AtomicBool::new(false),
            forgets_from: AtomicU64::new(UNSET),
            figures: Default::default(),
            pictures: ArcSwapOption::empty(),
            asked: AtomicU64::new(0),
        }))
    }
}

fn slot(kind: Kind) -> usize {
    match kind {
        Kind::Video => 0,
        Kind::Audio => 1,
    }
}

impl Fanout {
    /// One whose source is a consumer of another: its frames come with their place on that one's time line.
    pub(super) fn on_the_same_time_line() -> Self {
        let fanout = Self::default();
        fanout.0.offset.store(0, Relaxed);
        fanout.0.follows.store(true, Relaxed);
        fanout
    }

    /// Whether both are handles on the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Makes ready for a new source: its first frame chooses a new offset.
    pub(super) fn expect_source(&self) {
        self.0.offset.store(NO_OFFSET, Relaxed);
        self.0.has_video.store(false, Relaxed);
    }

    /// The tracks are known and the stream is live. Until a moment later all frames are kept for who joins, not only the
    /// running GOP: what came while the tracks were being found is not lost for a recording.
    pub fn settle(&self) {
        let later = self.0.now().saturating_add(GRACE);
        let _ = self.0.forgets_from.compare_exchange(UNSET, later, Relaxed, Relaxed);
    }

    /// Whether the source has video; sound-only consumers start with sound.
    pub(super) fn announce(&self, kind: Kind) {
        if kind == Kind::Video {
            self.0.has_video.store(true, Relaxed);
        }
    }

    /// Delivers the frames of `sink` from now on. `tell` hears of the track's facts when they are news, in the streaming
    /// thread.
    ///
    /// False when the track is still fed by another source.
    pub(super) fn feed(&self, kind: Kind, sink: &AppSink, tell: impl Fn(Track) + Send + Sync + 'static) -> bool {
        let Some(pad) = sink.static_pad("sink") else { return false };
        let home = &self.0.homes[slot(kind)];
        let Some(mut feeder) = home.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return false;
        };
        feeder.restart();
        // A probe may be called from any thread; this one only ever is from the source's, which never waits for the lock.
        let lease = Mutex::new(Lease { feeder: Some(feeder), fanout: self.0.clone() });
        let what = gst::PadProbeType::DATA_DOWNSTREAM;
        pad.add_probe(what, move |_, info| {
            let mut lease = lease.lock().unwrap_or_else(PoisonError::into_inner);
            let Lease { feeder: Some(feeder), fanout } = &mut *lease else { return gst::PadProbeReturn::Ok };
            if let Some(event) = info.event() {
                feeder.hear(event);
                return gst::PadProbeReturn::Ok;
            }
            if let Some(buffer) = info.take_buffer() {
                feeder.deliver(fanout, buffer, &tell);
            } else if let Some(list) = info.take_buffer_list() {
                list.iter_owned().for_each(|buffer| feeder.deliver(fanout, buffer, &tell));
            }
            info.flow_res = Ok(gst::FlowSuccess::Ok);
            gst::PadProbeReturn::Handled
        });
        if kind == Kind::Video {
            self.0.pictures.store(Some(Arc::new(sink.downgrade())));
        }
        true
    }

    /// Asks the source for a keyframe, at most once each [`KEYFRAME_INTERVAL`]. Does not wait; a source that cannot be
    /// asked ignores it.
    pub fn request_keyframe(&self) {
        let (now, before) = (self.0.now(), self.0.asked.load(Relaxed));
        let early = before != 0 && now.saturating_sub(before) < KEYFRAME_INTERVAL;
        if early || self.0.asked.compare_exchange(before, now, Relaxed, Relaxed).is_err() {
            return;
        }
        let sink = self.0.pictures.load().as_ref().and_then(|sink| sink.upgrade());
        if let Some(sink) = sink {
            // GStreamer's own pool: on its way the event takes locks of the source's elements.
            sink.call_async(|sink| {
                let wish = gst::Structure::builder("GstForceKeyUnit").field("all-headers", true).build();
                if let Some(pad) = sink.static_pad("sink") {
                    let _ = pad.push_event(gst::event::CustomUpstream::new(wish));
                }
            });
        }
    }

    /// Gives every track to its consumer, starting with the cached GOP. They start at the same stream time.
    pub(super) fn join(&self, video: Box<dyn Consumer>, audio: Box<dyn Consumer>) -> Link {
        let membership = Arc::new(Membership { start: AtomicU64::new(UNSET), left: AtomicBool::new(false) });
        for (consumer, joins) in [video, audio].into_iter().zip(&self.0.joins) {
            let shared = membership.clone();
            // The receiver is the feeder, which lives as long as this handle.
            let _ = joins.send(Joiner { consumer, shared });
        }
        Link { membership, fanout: self.0.clone() }
    }

    /// What has come in on a track so far.
    pub fn figures(&self, kind: Kind) -> TrackFigures {
        let figures = &self.0.figures[slot(kind)];
        TrackFigures {
            frames: figures.frames.load(Relaxed),
            keyframes: figures.keyframes.load(Relaxed),
            bytes: figures.bytes.load(Relaxed),
        }
    }

    /// The end of the newest frame on the stream's time line, nanoseconds.
    pub fn latest(&self) -> u64 {
        self.0.latest.load(Relaxed)
    }

    /// How long ago the last frame of any track came in; since the stream was made where none has.
    pub fn silence(&self) -> Duration {
        let last = Kind::ALL.map(|kind| self.0.figures[slot(kind)].last.load(Relaxed));
        let newest = last.into_iter().max().unwrap_or(0);
        self.0.birth.elapsed().saturating_sub(Duration::from_nanos(newest))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Shared {
    fn now(&self) -> u64 {
        nanos(self.birth.elapsed())
    }

    /// Whether frames before the running GOP are of no use any more.
    fn forgets(&self) -> bool {
        self.now() > self.forgets_from.load(Relaxed)
    }

    /// The offset of the current source; its first frame, at `running_time`, chooses it.
    fn offset(&self, running_time: i64) -> i64 {
        let chosen = self.offset.load(Relaxed);
        if chosen != NO_OFFSET {
            return chosen;
        }
        let latest = self.latest.load(Relaxed);
        // A later source continues after what was there, by the clock.
        let start = if latest == 0 { nanos(ORIGIN) } else { latest.max(nanos(ORIGIN) + self.now()) };
        let mine = i64::try_from(start).unwrap_or(i64::MAX).saturating_sub(running_time);
        match self.offset.compare_exchange(NO_OFFSET, mine, Relaxed, Relaxed) {
            Ok(_) => mine,
            Err(theirs) => theirs,
        }
    }
}

/// The feeder while a source has it; goes home when the source's pad is dropped.
struct Lease {
    feeder: Option<Feeder>,
    fanout: Arc<Shared>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(mut feeder) = self.feeder.take() {
            let home = &self.fanout.homes[slot(feeder.kind)];
            let mut home = home.lock().unwrap_or_else(PoisonError::into_inner);
            // Who has left since the last frame would wait for a next one.
            feeder.meet();
            *home = Some(feeder);
        }
    }
}

/// One track's consumers, cache and time line.
struct Feeder {
    kind: Kind,
    inbox: Receiver<Joiner>,
    members: Vec<Member>,
    cache: VecDeque<Frame>,
    cached: usize,
    /// The cache holds everything since a keyframe.
    complete: bool,
    caps: Option<gst::Caps>,
    /// Nobody has been told of them.
    news: bool,
    /// How long a frame of these caps lasts, where that can be told: an AAC frame has 1024 samples.
    frame_length: Option<gst::ClockTime>,
    /// When the frame before was to be decoded.
    before: Option<gst::ClockTime>,
    /// When the picture before is shown, until one has come that is shown before it.
    newest: u64,
    /// That has happened.
    b_frames: bool,
    /// Its place on the time line.
    line: Line,
    /// The source's segment: from its time stamps to its running time.
    segment: Option<TimeSegment>,
    /// The offset, and the segment with the offset in it.
    shifted: Option<(i64, gst::Segment)>,
}

impl Feeder {
    fn new(kind: Kind, inbox: Receiver<Joiner>) -> Self {
        Self {
            kind,
            inbox,
            members: Vec::new(),
            cache: VecDeque::new(),
            cached: 0,
            complete: false,
            caps: None,
            news: false,
            frame_length: None,
            before: None,
            newest: 0,
            b_frames: false,
            line: Line::default(),
            segment: None,
            shifted: None,
        }
    }

    /// A new source has its own GOPs, caps and segments; the consumers stay.
    fn restart(&mut self) {
        self.cache.clear();
        self.cached = 0;
        self.complete = false;
        self.caps = None;
        self.news = false;
        self.before = None;
        self.newest = 0;
        self.b_frames = false;
        self.line = Line::default();
        self.segment = None;
        self.shifted = None;
    }

    /// Follows what the source says of the frames that come next.
    fn hear(&mut self, event: &gst::Event) {
        match event.view() {
            gst::EventView::Caps(caps) if self.caps.as_deref() != Some(caps.caps()) => {
                self.frame_length = frame_length(caps.caps());
                self.caps = Some(caps.caps_owned());
                self.news = true;
            }
            gst::EventView::Segment(segment) => {
                self.segment = segment.segment().downcast_ref().cloned();
                self.shifted = None;
            }
            _ => {}
        }
    }

    fn deliver(&mut self, fanout: &Shared, buffer: gst::Buffer, tell: &impl Fn(Track)) {
        // Caps without a frame are none: a source may think better of them.
        if std::mem::take(&mut self.news) {
            self.tell(tell);
        }
        let Some(frame) = self.frame(fanout, buffer) else { return };
        if self.kind == Kind::Video && !self.b_frames {
            self.b_frames = frame.time < self.newest;
            self.newest = frame.time;
            if self.b_frames {
                self.tell(tell);
            }
        }
        self.count(fanout, &frame);
        self.remember(fanout, &frame);
        self.meet();
        let leads = self.kind == Kind::Video || !fanout.has_video.load(Relaxed);
        for member in &mut self.members {
            if member.started {
                member.consumer.take(&frame);
            } else {
                member.begin(leads, self.complete, &self.cache);
            }
        }
    }

    fn tell(&self, tell: &impl Fn(Track)) {
        if let Some(mut track) = self.caps.as_deref().and_then(Track::from_caps) {
            // Times that a network's jitter has put back by a little are no reordering.
            track.b_frames |= self.b_frames && track.may_reorder();
            tell(track);
        }
    }

    /// Lets in who has joined, and lets go who has left.
    fn meet(&mut self) {
        while let Ok(Joiner { consumer, shared }) = self.inbox.try_recv() {
            self.members.push(Member { consumer, shared, started: false });
        }
        self.members.retain(|member| !member.shared.left.load(Relaxed));
    }

    /// The frame on the stream's time line. A buffer without a time stamp is none: nothing could be muxed from it. Nor is
    /// one outside its segment, as for any sink.
    fn frame(&mut self, fanout: &Shared, mut buffer: gst::Buffer) -> Option<Frame> {
        let pts = buffer.pts().or(buffer.dts())?;
        let decoded = buffer.dts().unwrap_or(pts);
        let length = buffer.duration().or_else(|| self.length(decoded));
        self.segment.as_ref()?.clip(pts, buffer.duration().map(|duration| pts + duration))?;
        self.map(fanout, (pts, decoded), buffer.dts().is_some(), length)?;
        let (_, segment) = self.shifted.as_ref()?;
        let time = running_time(segment.downcast_ref()?, pts)?;
        if buffer.duration().is_none()
            && let Some(length) = length
        {
            buffer.make_mut().set_duration(length);
        }
        let shown = gst::Sample::builder().buffer(&buffer).caps(self.caps.as_ref()?).segment(segment).build();
        Some(Frame {
            time: u64::try_from(time).unwrap_or(0),
            keyframe: self.kind == Kind::Audio || !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
            size: buffer.size(),
            sample: shown,
        })
    }

    /// How long a frame that does not say it lasts: RTMP has no durations, and in a file the last frame of each part
    /// would last no time, which players take for none.
    fn length(&mut self, decoded: gst::ClockTime) -> Option<gst::ClockTime> {
        let before = self.before.replace(decoded);
        let distance = before.and_then(|before| decoded.checked_sub(before));
        self.frame_length.or(distance.filter(|distance| *distance < gst::ClockTime::SECOND))
    }

    /// Makes `shifted` be that for a frame with these times of presentation and decoding in the source's segment.
    fn map(
        &mut self,
        fanout: &Shared,
        (pts, decoded): (gst::ClockTime, gst::ClockTime),
        has_dts: bool,
        length: Option<gst::ClockTime>,
    ) -> Option<()> {
        let segment = self.segment.as_ref()?;
        let stamp = Stamp {
            time: running_time(segment, decoded)?,
            ordered: has_dts || self.kind == Kind::Audio,
            length: length.and_then(|length| i64::try_from(length.nseconds()).ok()).unwrap_or(0),
            arrival: i64::try_from(fanout.now()).unwrap_or(i64::MAX),
        };
        let shown = running_time(segment, pts)?;
        let offset = match fanout.follows.load(Relaxed) {
            true => 0,
            false => self.line.offset(stamp, &fanout.offset, || fanout.offset(shown)),
        };
        if self.shifted.as_ref().is_none_or(|(by, _)| *by != offset) {
            self.shifted = Some((offset, shifted(segment, offset).upcast()));
        }
        Some(())
    }

    fn count(&self, fanout: &Shared, frame: &Frame) {
        let figures = &fanout.figures[slot(self.kind)];
        figures.frames.fetch_add(1, Relaxed);
        figures.keyframes.fetch_add(u64::from(frame.keyframe), Relaxed);
        figures.bytes.fetch_add(frame.size as u64, Relaxed);
        figures.last.store(fanout.now(), Relaxed);
        fanout.latest.fetch_max(frame.time + frame.duration(), Relaxed);
    }

    fn remember(&mut self, fanout: &Shared, frame: &Frame) {
        match self.kind {
            Kind::Video if frame.keyframe => {
                let full = self.cached + frame.size > VIDEO_CACHE;
                if fanout.forgets() || !self.complete || full {
                    self.cache.clear();
                    self.cached = 0;
                    fanout.gop_start.store(frame.time, Relaxed);
                }
                self.complete = true;
            }
            Kind::Video if !self.complete => return,
            Kind::Video if self.cached + frame.size > VIDEO_CACHE => {
                self.cache.clear();
                self.cached = 0;
                self.complete = false;
                return;
            }
            Kind::Video => {}
            Kind::Audio => {
                self.complete = true;
                self.forget_sound(fanout, frame.time);
            }
        }
        self.cached += frame.size;
        self.cache.push_back(frame.clone());
    }

    fn forget_sound(&mut self, fanout: &Shared, now: u64) {
        let needed_from = if fanout.has_video.load(Relaxed) {
            fanout.gop_start.load(Relaxed)
        } else if fanout.forgets() {
            now.saturating_sub(AUDIO_ONLY_CACHE)
        } else {
            0
        };
        while let Some(oldest) = self.cache.front()
            && (oldest.time < needed_from || self.cached > AUDIO_CACHE)
        {
            self.cached -= oldest.size;
            self.cache.pop_front();
        }
    }
}

fn frame_length(caps: &gst::CapsRef) -> Option<gst::ClockTime> {
    let track = Track::from_caps(caps).filter(|track| track.codec == Codec::Aac)?;
    let nanoseconds = 1_024_000_000_000_u64.checked_div(track.rate.into())?;
    Some(gst::ClockTime::from_nseconds(nanoseconds))
}

#[cfg(test)]
mod tests;
