//! A stream's frames for a task: what a protocol of weir's own sends to its players.
//!
//! Two consumers, one a track, put frames into one bounded channel. A channel that is full loses frames up to the next
//! keyframe, and counts them; nobody else waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;
use gstreamer as gst;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::encoded::{Format, Output};
use super::fanout::{Consumer, Fanout, Frame, Link};
use super::payloader::Nothing;
use super::track::{Codec, Kind, Track};

/// Most frames that may wait. A cached GOP comes at once, and a channel costs nothing while it is empty.
const FRAMES: usize = 8192;
/// Most payload bytes that may wait: a cached GOP with its sound, and some seconds.
const BYTES: usize = 16 << 20;

/// What comes out of a tap.
#[derive(Debug, Clone)]
pub enum Tapped {
    /// The frames of this kind that follow are in this format.
    Format(Format),
    /// A frame.
    Frame(Output),
}

/// A task's place in a stream. Dropping it leaves.
pub struct Tap {
    links: Vec<Link>,
    items: Receiver<Tapped>,
    sender: Sender<Tapped>,
    /// Payload bytes that wait.
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

impl Default for Tap {
    fn default() -> Self {
        let (sender, items) = channel(FRAMES);
        Self { links: Vec::new(), items, sender, waiting: Arc::default(), dropped: Arc::default() }
    }
}

impl Tap {
    /// Takes the tracks of `kinds` from `fanout`, beginning with the cached GOP.
    pub fn take(&mut self, fanout: &Fanout, kinds: &[Kind]) {
        let half = |kind: Kind| -> Box<dyn Consumer> {
            if !kinds.contains(&kind) {
                return Box::new(Nothing);
            }
            let (items, waiting, dropped) = (self.sender.clone(), self.waiting.clone(), self.dropped.clone());
            Box::new(Half { kind, items, waiting, dropped, caps: None, format: None, behind: true })
        };
        self.links.push(fanout.join(half(Kind::Video), half(Kind::Audio)));
    }

    /// The next item.
    pub async fn next(&mut self) -> Option<Tapped> {
        let item = self.items.recv().await;
        self.taken(item)
    }

    /// The next item if one waits.
    pub fn poll(&mut self) -> Option<Tapped> {
        let item = self.items.try_recv().ok();
        self.taken(item)
    }

    fn taken(&self, item: Option<Tapped>) -> Option<Tapped> {
        if let Some(Tapped::Frame(frame)) = &item {
            self.waiting.fetch_sub(frame.payload.len(), Relaxed);
        }
        item
    }

    /// Counts the frames that were lost because too many waited; the task adds those it leaves out itself.
    pub fn dropped(&self) -> Arc<AtomicU64> {
        self.dropped.clone()
    }
}

/// One track's way into the channel.
struct Half {
    kind: Kind,
    items: Sender<Tapped>,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
    caps: Option<gst::Caps>,
    /// `None`: what the caps say cannot be sent.
    format: Option<Format>,
    /// Nothing is sent before the next keyframe.
    behind: bool,
}

impl Half {
    /// Follows the caps; a new format is said before its first frame.
    fn follow(&mut self, frame: &Frame) {
        if self.caps.as_deref() == frame.sample.caps() {
            return;
        }
        self.caps = frame.sample.caps_owned();
        self.format = self.caps.as_deref().and_then(format);
        if let Some(format) = &self.format
            && self.items.try_send(Tapped::Format(format.clone())).is_err()
        {
            // Without it the frames are of no use: said again before the next one.
            self.caps = None;
            self.format = None;
        }
    }

    /// True when it has its place in the channel.
    fn send(&self, frame: &Frame) -> bool {
        let waiting = self.waiting.fetch_add(frame.size, Relaxed);
        let fits = waiting.saturating_add(frame.size) <= BYTES;
        let sent = fits && output(self.kind, frame).is_some_and(|out| self.items.try_send(Tapped::Frame(out)).is_ok());
        if !sent {
            self.waiting.fetch_sub(frame.size, Relaxed);
        }
        sent
    }
}

impl Consumer for Half {
    fn take(&mut self, frame: &Frame) {
        self.follow(frame);
        if self.format.is_none() {
            return;
        }
        if self.behind && !frame.keyframe || !self.send(frame) {
            self.dropped.fetch_add(1, Relaxed);
            self.behind = true;
        } else {
            self.behind = false;
        }
    }
}

/// The format that caps describe; `None` for what is not carried.
fn format(caps: &gst::CapsRef) -> Option<Format> {
    let track = Track::from_caps(caps)?;
    let record = || {
        let record = caps.structure(0)?.get::<gst::Buffer>("codec_data").ok()?;
        Some(Bytes::from_owner(record.into_mapped_buffer_readable().ok()?))
    };
    let channels = u8::try_from(track.channels).unwrap_or(1);
    match track.codec {
        Codec::H264 => Some(Format::H264 { record: record()? }),
        Codec::Aac => Some(Format::Aac { config: record()? }),
        Codec::Pcma => Some(Format::Pcma { channels }),
        Codec::Pcmu => Some(Format::Pcmu { channels }),
        Codec::H265 | Codec::Vp8 | Codec::Opus | Codec::Other(_) => None,
    }
}

fn output(kind: Kind, frame: &Frame) -> Option<Output> {
    let buffer = frame.sample.buffer_owned()?;
    let pts = i64::try_from(frame.time).ok()?;
    let segment = frame.sample.segment().and_then(|segment| segment.downcast_ref());
    let dts = buffer.dts().and_then(|dts| super::segment::running_time(segment?, dts));
    let payload = Bytes::from_owner(buffer.into_mapped_buffer_readable().ok()?);
    Some(Output { kind, dts: dts.unwrap_or(pts), pts, keyframe: frame.keyframe, payload, since: Instant::now() })
}
