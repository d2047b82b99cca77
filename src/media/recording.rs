//! What a recording takes out of a stream, and the files it goes into.
//!
//! A recording is one consumer with two halves, one a track, each in its own streaming thread. The *leader* (video where
//! there is some) decides at its keyframes when a part ends; the *follower* cuts at the same stream time. Each part is a
//! pipeline of its own: parsing and starting one takes some milliseconds, so the halves ask for it ([`FeedEvent::NeedPart`])
//! and keep their frames until it is supplied. No frame is lost between parts, and nothing waits in a streaming thread.
//!
//! A muxer writes nothing while one of its tracks is silent: a half that has heard nothing for some seconds while the
//! other went on is *lost*. The other half ends its track in the running part, later parts are without it, and its next
//! frame asks for a new feed. That is the one time when one half touches the other, behind a lock that nobody else wants.
//!
//! (splitmuxsink rotates too, but it holds each GOP back until the next keyframe has come: a process killed 6 s into a
//! stream with a 10 s GOP leaves an empty file, where mp4mux fed directly leaves all but the last fragment.)

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use gstreamer as gst;
use tokio::sync::mpsc::UnboundedSender;

use super::fanout::{Consumer, Fanout, Frame, Link};
use super::track::Kind;

mod head;
mod part;

use part::{Input, push_all};
pub use part::{Part, PartEvent, Rest};

/// Bytes that may wait for a slow disk, a track. Past it the recording fails rather than eat the memory of all.
const QUEUE_LIMIT: usize = 48 << 20;
/// A track goes into its part in batches of this length, nanoseconds: each hand-over wakes the threads of the part, and
/// waking them for every frame costs more than all the rest of a recording. What has been handed over waits in the muxer
/// until its fragment is full, so this and `fragment-duration` together are what a crash can cost.
const BATCH: u64 = 250_000_000;
/// Sound that runs ahead of the pictures waits for them, so that it falls into the right part, but never longer.
const HOLD_LIMIT: u64 = 1_000_000_000;
/// How far behind the other a track may fall before it counts as lost: sound comes all the time, pictures of something
/// that does not move may be seconds apart.
const SOUND_LOST: u64 = 3_000_000_000;
/// As [`SOUND_LOST`], for pictures.
const PICTURES_LOST: u64 = 10_000_000_000;
/// Frames of one track further apart than this do not follow each other.
const PAUSE: u64 = 1_000_000_000;
/// Time stamps of RTMP are rounded to milliseconds and frames have a length: a keyframe this early is still in time.
const CUT_TOLERANCE: u64 = 20_000_000;

/// When a part ends. It always ends at a keyframe of the leading track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutRule {
    /// Never: one file.
    Never,
    /// At the first keyframe after this time.
    After(Duration),
    /// At the last keyframe before this many bytes.
    Size(u64),
}

/// What a feed asks of the recorder.
pub enum FeedEvent {
    /// A part begins; supply it.
    NeedPart {
        /// Its number, from 1.
        number: u32,
        /// Its first frame's place on the stream's time line.
        start: Duration,
    },
    /// The recording cannot go on.
    Overrun,
    /// A track's format changed in a way a part cannot follow, or a lost one is back: end this feed and begin another.
    Changed,
    /// A track has gone silent, and has ended in the running part.
    Lost(Kind),
    /// Frames that came for a part before it was supplied, when the feed has ended.
    Rest(Rest),
}

/// A recording's place in a stream. Dropping it ends the feed: both halves hand over what they hold and end their part.
pub struct Feed {
    _link: Link,
    supplies: Vec<(Kind, Sender<Input>)>,
    beginning: Beginning,
    leader: Weak<Mutex<Leader>>,
    follower: Weak<Mutex<Follower>>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        // Halves that the stream has dropped already have left by themselves.
        if let Some(leader) = self.leader.upgrade() {
            owned(&leader).half.leave();
        }
        // After the leader, which has told all its cuts by now.
        if let Some(follower) = self.follower.upgrade() {
            owned(&follower).leave();
        }
    }
}

/// Where the tracks of a feed begin, as it becomes known: the feed before it ends there.
#[derive(Debug, Clone, Default)]
pub struct Beginning(Arc<[AtomicU64; 2]>);

impl Beginning {
    /// A track's first frame on the stream's time line; `None` where none has come.
    pub fn of(&self, kind: Kind) -> Option<Duration> {
        // No frame is before the stream's origin, which is later than 0.
        Some(self.place(kind).load(Relaxed)).filter(|time| *time > 0).map(Duration::from_nanos)
    }

    fn place(&self, kind: Kind) -> &AtomicU64 {
        match kind {
            Kind::Video => &self.0[0],
            Kind::Audio => &self.0[1],
        }
    }

    fn note(&self, kind: Kind, time: u64) {
        let _ = self.place(kind).compare_exchange(0, time.max(1), Relaxed, Relaxed);
    }

    fn forget(&self, kind: Kind) {
        self.place(kind).store(0, Relaxed);
    }
}

impl Feed {
    /// Takes the tracks of `kinds` from `fanout`, beginning with the cached GOP.
    pub fn attach(fanout: &Fanout, kinds: &[Kind], rule: CutRule, events: &UnboundedSender<FeedEvent>) -> Self {
        let mut supplies = Vec::new();
        let beginning = Beginning::default();
        let mut half = |kind| {
            let (sender, inbox) = channel();
            supplies.push((kind, sender));
            Half::new(kind, inbox, events.clone(), beginning.clone())
        };
        let shared = Arc::new(Shared {
            birth: Instant::now(),
            progress: AtomicU64::default(),
            seen: AtomicU64::default(),
            heard: AtomicU64::default(),
            bytes: AtomicU64::default(),
        });
        let (cuts, cuts_inbox) = channel();
        let leads = if kinds.contains(&Kind::Video) { Kind::Video } else { Kind::Audio };
        let leader = Leader {
            half: half(leads),
            rule,
            shared: shared.clone(),
            cuts,
            number: 0,
            start: 0,
            gop_bytes: 0,
            last_gop: 0,
            caps: None,
            follower: Weak::new(),
            lost: false,
            steady: Steady::default(),
        };
        let leader = Arc::new(Mutex::new(leader));
        let (leading, mut following) = (Arc::downgrade(&leader), Weak::new());
        let follows = leads == Kind::Video && kinds.contains(&Kind::Audio);
        let link = match (leads, follows) {
            (Kind::Video, true) => {
                let follower = Follower {
                    half: half(Kind::Audio),
                    shared,
                    cuts: cuts_inbox,
                    due: VecDeque::new(),
                    held: VecDeque::new(),
                    caps: None,
                    leader: Weak::new(),
                    lost: false,
                    changed: false,
                    steady: Steady::default(),
                };
                let follower = Arc::new(Mutex::new(follower));
                following = Arc::downgrade(&follower);
                owned(&leader).follower = following.clone();
                owned(&follower).leader = leading.clone();
                fanout.join(Box::new(leader), Box::new(follower))
            }
            (Kind::Video, false) => fanout.join(Box::new(leader), Box::new(Ignore)),
            (Kind::Audio, _) => fanout.join(Box::new(Ignore), Box::new(leader)),
        };
        Self { _link: link, supplies, beginning, leader: leading, follower: following }
    }

    /// Ends the feed with the next frame of each track, which the feed that follows it has then too: where that one begins
    /// is known by then.
    pub fn make_way(mut self) {
        self.leader = Weak::new();
        self.follower = Weak::new();
    }

    /// Where its tracks begin.
    pub fn beginning(&self) -> Beginning {
        self.beginning.clone()
    }

    /// Hands over what waits for its batch to be full, of tracks that have brought nothing since this was last called: a
    /// source that falls silent leaves nothing behind that only its next frame would put into the file.
    pub fn settle(&self) {
        if let Some(leader) = self.leader.upgrade() {
            owned(&leader).half.settle();
        }
        if let Some(follower) = self.follower.upgrade() {
            owned(&follower).half.settle();
        }
    }

    /// Hands the part that was asked for to both halves.
    pub fn supply(&self, part: &Part) {
        // The follower first: the leader may cut as soon as it has its part, and the follower must have its own by then.
        for (kind, supply) in self.supplies.iter().rev() {
            if let Some((_, input)) = part.inputs.iter().find(|(of, _)| of == kind) {
                let _ = supply.send(input.clone());
            }
        }
    }
}

/// A half as its own thread has it.
fn owned<T>(half: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    half.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Since when a half's frames follow each other: after a pause of the whole stream neither half is lost.
#[derive(Default)]
struct Steady {
    since: u64,
    last: u64,
}

impl Steady {
    fn beat(&mut self, now: u64) -> u64 {
        if now > self.last + PAUSE {
            self.since = now;
        }
        self.last = now;
        self.since
    }
}

/// What both halves know.
struct Shared {
    /// When the feed began. Who is lost is judged by when frames arrive: a cached GOP comes at once, one track of it
    /// before the other.
    birth: Instant,
    /// The leader's newest time.
    progress: AtomicU64,
    /// When the leader's newest frame arrived, nanoseconds since `birth`; 0 before the first.
    seen: AtomicU64,
    /// As `seen`, for the follower.
    heard: AtomicU64,
    /// Bytes of the running part.
    bytes: AtomicU64,
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.birth.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

struct Ignore;

impl Consumer for Ignore {
    fn take(&mut self, _: &Frame) {}
}

/// One track's way into the running part.
struct Half {
    kind: Kind,
    input: Option<Input>,
    supplies: Receiver<Input>,
    waiting: VecDeque<Frame>,
    waiting_bytes: usize,
    /// Nothing has come since it was last looked at.
    quiet: bool,
    /// `None` once the half has left.
    events: Option<UnboundedSender<FeedEvent>>,
    beginning: Beginning,
}

impl Half {
    fn new(kind: Kind, supplies: Receiver<Input>, events: UnboundedSender<FeedEvent>, beginning: Beginning) -> Self {
        Self {
            kind,
            input: None,
            supplies,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            quiet: false,
            events: Some(events),
            beginning,
        }
    }

    fn tell(&self, event: FeedEvent) {
        // A recorder that is gone has ended the feed already.
        let _ = self.events.as_ref().map(|events| events.send(event));
    }

    fn has_left(&self) -> bool {
        self.events.is_none()
    }

    fn push(&mut self, frame: Frame) {
        self.beginning.note(self.kind, frame.time);
        self.quiet = false;
        self.waiting_bytes += frame.size;
        let first = self.waiting.front().map_or(frame.time, |first| first.time);
        let full = frame.time.abs_diff(first) + frame.duration() >= BATCH;
        self.waiting.push_back(frame);
        if full {
            self.flush();
        }
        let queued = self.input.as_ref().map_or(0, |input| input.source.current_level_bytes());
        if self.waiting_bytes + usize::try_from(queued).unwrap_or(usize::MAX) > QUEUE_LIMIT {
            self.waiting.clear();
            self.waiting_bytes = 0;
            self.tell(FeedEvent::Overrun);
        }
    }

    fn settle(&mut self) {
        if self.quiet {
            self.flush();
        }
        self.quiet = true;
    }

    fn flush(&mut self) {
        if self.is_supplied()
            && let Some(input) = &self.input
        {
            self.waiting_bytes = 0;
            push_all(input, &mut self.waiting);
        }
    }

    fn is_supplied(&mut self) -> bool {
        self.input = self.input.take().or_else(|| self.supplies.try_recv().ok());
        self.input.is_some()
    }

    /// Forgets what has not gone into a part yet.
    fn forget(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.beginning.forget(self.kind);
    }

    /// Ends the running part.
    fn close(&mut self) {
        self.flush();
        if let Some(input) = self.input.take() {
            input.close();
        }
    }
}

impl Half {
    /// Hands over what it holds, ends the running part, and takes nothing more.
    fn leave(&mut self) {
        self.close();
        if !self.waiting.is_empty() {
            let rest = Rest { kind: self.kind, frames: std::mem::take(&mut self.waiting) };
            self.tell(FeedEvent::Rest(rest));
        }
        self.events = None;
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The half that decides.
struct Leader {
    half: Half,
    rule: CutRule,
    shared: Arc<Shared>,
    cuts: Sender<u64>,
    number: u32,
    start: u64,
    gop_bytes: u64,
    last_gop: u64,
    caps: Option<gst::Caps>,
    follower: Weak<Mutex<Follower>>,
    lost: bool,
    steady: Steady,
}

impl Leader {
    /// Ends a follower that has gone silent. One that is just taking a frame has not.
    fn listen(&mut self) {
        let now = self.shared.now();
        self.shared.seen.store(now, Relaxed);
        let heard = self.shared.heard.load(Relaxed).max(self.steady.beat(now));
        if now < heard + SOUND_LOST {
            return;
        }
        let Some(follower) = self.follower.upgrade() else { return };
        let Ok(mut follower) = follower.try_lock() else { return };
        if !follower.lost {
            follower.lost = true;
            follower.end();
            follower.half.close();
            self.half.tell(FeedEvent::Lost(Kind::Audio));
        }
    }

    fn due(&self, frame: &Frame) -> bool {
        let changed = self.caps.as_deref() != frame.sample.caps();
        changed
            || match self.rule {
                CutRule::Never => false,
                CutRule::After(time) => {
                    frame.time + CUT_TOLERANCE >= self.start + u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
                }
                CutRule::Size(limit) => self.shared.bytes.load(Relaxed) + self.last_gop > limit,
            }
    }

    fn begin(&mut self, frame: &Frame) {
        self.number += 1;
        self.start = frame.time;
        self.caps = frame.sample.caps_owned();
        self.shared.bytes.store(0, Relaxed);
        self.half.tell(FeedEvent::NeedPart { number: self.number, start: Duration::from_nanos(frame.time) });
    }
}

impl Consumer for Arc<Mutex<Leader>> {
    fn take(&mut self, frame: &Frame) {
        owned(self).take(frame);
    }
}

impl Leader {
    fn take(&mut self, frame: &Frame) {
        if self.half.has_left() {
            return;
        }
        if self.lost {
            self.half.tell(FeedEvent::Changed);
            return;
        }
        self.listen();
        if frame.keyframe {
            self.last_gop = std::mem::take(&mut self.gop_bytes);
            if self.number == 0 {
                self.begin(frame);
            } else if self.half.input.is_some() && self.due(frame) {
                // A follower that is gone needs no cut.
                let _ = self.cuts.send(frame.time);
                self.half.close();
                self.begin(frame);
            }
        }
        self.gop_bytes += frame.size as u64;
        self.shared.bytes.fetch_add(frame.size as u64, Relaxed);
        self.shared.progress.fetch_max(frame.time, Relaxed);
        self.half.push(frame.clone());
    }
}

/// The half that cuts where it is told.
struct Follower {
    half: Half,
    shared: Arc<Shared>,
    cuts: Receiver<u64>,
    due: VecDeque<u64>,
    held: VecDeque<Frame>,
    caps: Option<gst::Caps>,
    leader: Weak<Mutex<Leader>>,
    lost: bool,
    changed: bool,
    steady: Steady,
}

impl Follower {
    /// Ends a leader that has gone silent, if it has begun. One that is just taking a frame has not.
    fn look(&mut self) {
        let now = self.shared.now();
        self.shared.heard.store(now, Relaxed);
        let last = self.shared.seen.load(Relaxed);
        if last == 0 || now < last.max(self.steady.beat(now)) + PICTURES_LOST {
            return;
        }
        let Some(leader) = self.leader.upgrade() else { return };
        let Ok(mut leader) = leader.try_lock() else { return };
        if !leader.lost {
            leader.lost = true;
            leader.half.close();
            self.half.tell(FeedEvent::Lost(Kind::Video));
        }
    }

    fn release(&mut self, up_to: u64) {
        self.due.extend(self.cuts.try_iter());
        while let Some(frame) = self.held.pop_front() {
            if frame.time > up_to {
                self.held.push_front(frame);
                return;
            }
            while self.due.front().is_some_and(|cut| *cut <= frame.time) {
                self.due.pop_front();
                self.half.close();
            }
            self.shared.bytes.fetch_add(frame.size as u64, Relaxed);
            self.half.push(frame);
        }
    }
}

impl Consumer for Arc<Mutex<Follower>> {
    fn take(&mut self, frame: &Frame) {
        owned(self).take(frame);
    }
}

impl Follower {
    fn take(&mut self, frame: &Frame) {
        if self.half.has_left() {
            return;
        }
        if self.lost {
            self.half.tell(FeedEvent::Changed);
            return;
        }
        self.look();
        if self.is_of_another_format(frame) {
            return;
        }
        self.held.push_back(frame.clone());
        let oldest_wait = frame.time.saturating_sub(HOLD_LIMIT);
        self.release(self.shared.progress.load(Relaxed).max(oldest_wait));
    }
}

impl Follower {
    /// Whether the running part cannot take it: the feed that follows does. One that has just begun does not take what
    /// the cache had from before the change, which the feed before it has.
    fn is_of_another_format(&mut self, frame: &Frame) -> bool {
        let known = self.caps.is_some();
        if !self.changed && self.caps.as_deref() != frame.sample.caps() {
            self.caps = frame.sample.caps_owned();
            self.changed = known && self.half.is_supplied();
            if self.changed {
                self.half.tell(FeedEvent::Changed);
            } else if known {
                self.held.clear();
                self.half.forget();
            }
        }
        self.changed
    }

    /// Hands over everything, and ends every part but the running one.
    fn end(&mut self) {
        self.release(u64::MAX);
        // A part that began after this track's last frame must end on this track too.
        for _ in self.due.drain(..) {
            self.half.close();
        }
    }
}

impl Follower {
    fn leave(&mut self) {
        if !self.half.has_left() {
            self.end();
            self.half.leave();
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.leave();
    }
}
