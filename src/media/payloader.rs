//! A stream's tracks as RTP packets: one pipeline a stream, fed by its fan-out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use gstreamer as gst;
use gstreamer_app::{AppSink, AppSrc};

use super::bus::{BusEvent, Failure};
use super::fanout::{Consumer, Fanout, Frame, Link};
use super::pipeline::{MediaError, Parse, Pipeline};
use super::pipelines::Pipelines;
use super::template::Launch;
use super::track::Kind;
use crate::name::StreamName;

/// Bytes that may wait in front of an encoder or payloader, a track. What comes beyond is dropped and counted: viewers
/// want the newest.
const QUEUE_LIMIT: u64 = 4 << 20;

/// A running payloader. Dropping it ends it without waiting.
pub struct Payloader {
    pipeline: Pipeline,
    _links: Vec<Link>,
    dropped: Arc<AtomicU64>,
}

impl Payloader {
    /// Starts one that takes pictures from one fan-out and sound from another, which may be the same. `parse` makes a packet of an RTP packet's bytes and its frame's time on the stream's time line, and
    /// `deliver` gets all packets of a frame together; both run in a streaming thread and must not wait.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub async fn start<P: Send + 'static>(
        pipelines: &Pipelines,
        launch: Launch,
        stream: &StreamName,
        (pictures, sound): (&Fanout, &Fanout),
        parse: fn(&[u8], Duration) -> Option<P>,
        deliver: impl Fn(Kind, Vec<P>) + Send + Sync + 'static,
    ) -> Result<Self, MediaError> {
        let kinds: Vec<Kind> = launch.branches.iter().map(|branch| branch.kind()).collect();
        let mut pipeline = Pipeline::build(pipelines, launch, Parse::Whole, stream).await?;
        let deliver = Arc::new(deliver);
        let dropped = Arc::new(AtomicU64::new(0));
        for kind in &kinds {
            let sink: AppSink = pipeline.element(&format!("{}_rtp", kind.label()))?;
            receive(&sink, *kind, parse, deliver.clone());
        }
        pipeline.play().await?;
        let consumer = |kind: Kind| -> Result<Box<dyn Consumer>, MediaError> {
            if !kinds.contains(&kind) {
                return Ok(Box::new(Nothing));
            }
            let input: AppSrc = pipeline.element(&format!("{}_in", kind.label()))?;
            // A viewer hears what is said now: sound is not kept for who comes later, as pictures are.
            let from = if kind == Kind::Audio { sound.latest() } else { 0 };
            Ok(Box::new(Into { input, from, dropped: dropped.clone() }))
        };
        let (video, audio) = (consumer(Kind::Video)?, consumer(Kind::Audio)?);
        let links = if pictures.is(sound) {
            vec![pictures.join(video, audio)]
        } else {
            vec![pictures.join(video, Box::new(Nothing)), sound.join(Box::new(Nothing), audio)]
        };
        Ok(Self { pipeline, _links: links, dropped })
    }

    /// Resolves when it can no longer work.
    pub async fn failed(&mut self) -> Option<Failure> {
        loop {
            match self.pipeline.events.recv().await? {
                BusEvent::Error(failure) => return Some(failure),
                BusEvent::Eos => {}
            }
        }
    }

    /// Frames that came faster than they could be worked on.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// Takes nothing of a track.
pub(super) struct Nothing;

impl Consumer for Nothing {
    fn take(&mut self, _: &Frame) {}
}

/// Hands a track to a pipeline; what comes beyond [`QUEUE_LIMIT`] is dropped and counted.
pub(super) struct Into {
    pub(super) input: AppSrc,
    /// What is earlier on the stream's time line is left out, nanoseconds.
    pub(super) from: u64,
    pub(super) dropped: Arc<AtomicU64>,
}

impl Consumer for Into {
    fn take(&mut self, frame: &Frame) {
        if frame.time < self.from {
            return;
        }
        if self.input.current_level_bytes() > QUEUE_LIMIT {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        // A pipeline that failed has said so on its bus.
        let _ = self.input.push_sample(&frame.sample);
    }
}

fn receive<P: Send + 'static>(
    sink: &AppSink,
    kind: Kind,
    parse: fn(&[u8], Duration) -> Option<P>,
    deliver: Arc<impl Fn(Kind, Vec<P>) + Send + Sync + 'static>,
) {
    let callbacks = gstreamer_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let segment = sample.segment().and_then(|segment| segment.downcast_ref::<gst::ClockTime>());
            let packet = |buffer: &gst::BufferRef| {
                let time = segment?.to_running_time(buffer.pts()?)?;
                let bytes = buffer.map_readable().ok()?;
                parse(&bytes, time.into())
            };
            let packets: Vec<P> = match (sample.buffer_list(), sample.buffer()) {
                (Some(list), _) => list.iter().filter_map(packet).collect(),
                (None, Some(buffer)) => packet(buffer).into_iter().collect(),
                (None, None) => Vec::new(),
            };
            deliver(kind, packets);
            Ok(gst::FlowSuccess::Ok)
        })
        .build();
    sink.set_callbacks(callbacks);
}
