//! A pipeline that a protocol of weir's own feeds: the branch of each track is attached when its first configuration
//! comes, and a new configuration goes on in the same branch.
//!
//! Frames go in at the sink pad of the branch's first element, and through the branch to the fan-out in the task that
//! hands them over: a thread a track would cost more to wake for each frame than the frame costs to parse.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSink;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::bus::{BusEvent, Failure};
use super::encoded::{Format, Input};
use super::fanout::Fanout;
use super::flv_clock::Apart;
use super::pipeline::{MediaError, Parse, Pipeline, blocking, parsed_branch};
use super::pipelines::Pipelines;
use super::segment::TimeSegment;
use super::source::SourceEvent;
use super::template::Launch;
use super::track::Kind;
use crate::name::StreamName;

/// A running ingest. Dropping it stops it without waiting.
pub struct Ingest {
    pipeline: Pipeline,
    fanout: Fanout,
    events: UnboundedSender<SourceEvent>,
    tracks: UnboundedReceiver<SourceEvent>,
    feeds: [Option<Feed>; 2],
}

struct Feed {
    /// The branch's open end.
    pad: gst::Pad,
    format: Format,
    apart: Apart,
    failed: bool,
}

impl Ingest {
    /// Starts an ingest without tracks whose frames go to `fanout`.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub async fn start(
        pipelines: &Pipelines,
        launch: Launch,
        stream: &StreamName,
        fanout: &Fanout,
    ) -> Result<Self, MediaError> {
        fanout.expect_source();
        let mut pipeline = Pipeline::build(pipelines, launch, Parse::Head, stream).await?;
        let (events, tracks) = unbounded_channel();
        pipeline.play().await?;
        Ok(Self { pipeline, fanout: fanout.clone(), events, tracks, feeds: [None, None] })
    }

    /// Whether a track of this kind has its configuration.
    pub fn has(&self, kind: Kind) -> bool {
        self.feed(kind).is_some()
    }

    /// Takes a track's configuration: the first one attaches its branch, a later one is followed by frames in it.
    ///
    /// # Errors
    /// [`MediaError`]: among others a codec the template has no branch for, and a change of codec.
    pub async fn configure(&mut self, format: Format) -> Result<(), MediaError> {
        let kind = format.kind();
        match &mut self.feeds[slot(kind)] {
            Some(feed) if feed.format == format => Ok(()),
            Some(feed) if feed.format.codec() == format.codec() => {
                // Caps that are refused fail the frames behind them.
                feed.pad.send_event(gst::event::Caps::new(&caps(&format)));
                feed.format = format;
                Ok(())
            }
            Some(_) => Err(self.refused("a track's codec cannot change while it is published")),
            None => {
                let pad = self.attach(&format).await?;
                self.feeds[slot(kind)] = Some(Feed { pad, format, apart: Apart::default(), failed: false });
                Ok(())
            }
        }
    }

    async fn attach(&self, format: &Format) -> Result<gst::Pad, MediaError> {
        let (launch, kind) = (&self.pipeline.entry.launch, format.kind());
        let branch = launch.branch_for(kind, &format.codec());
        let branch = branch.ok_or_else(|| self.refused("the template has no branch for its codec"))?;
        let (template, text) = (launch.template.clone(), launch.branches[branch].text.clone());
        let bin = blocking(&launch.template, "parsing", move || parsed_branch(&template, &text)).await??;
        let feed: gst::Element = self.named(&bin, &format!("{}_feed", kind.label()))?;
        let sink: AppSink = self.named(&bin, &format!("{}_out", kind.label()))?;
        let pad = feed.static_pad("sink").ok_or_else(|| self.refused("nothing can be fed into its branch"))?;
        self.fanout.announce(kind);
        let events = self.events.clone();
        let fed = self.fanout.feed(kind, &sink, move |track| {
            // The receiver goes with the source.
            let _ = events.send(SourceEvent::Track(track));
        });
        if !fed {
            return Err(self.refused("the publisher before this one still runs"));
        }
        let pipeline = self.pipeline.gst.clone();
        let started = blocking(&launch.template, "starting a branch", move || {
            pipeline.add(&bin).and_then(|()| bin.sync_state_with_parent())
        });
        started.await?.map_err(|error| self.refused(&error.to_string()))?;
        self.pipeline.entry.attached.rcu(|attached| {
            let mut attached = std::collections::BTreeSet::clone(attached);
            attached.insert(branch);
            attached
        });
        pad.send_event(gst::event::StreamStart::new(kind.label()));
        pad.send_event(gst::event::Caps::new(&caps(format)));
        pad.send_event(gst::event::Segment::new(&TimeSegment::new()));
        Ok(pad)
    }

    fn named<T: IsA<gst::Element>>(&self, bin: &gst::Bin, name: &str) -> Result<T, MediaError> {
        let found = bin.by_name(name).and_then(|element| element.downcast::<T>().ok());
        let template = self.pipeline.entry.launch.template.clone();
        found.ok_or_else(|| MediaError::NoElement { template, name: name.to_owned() })
    }

    fn refused(&self, reason: &str) -> MediaError {
        let template = self.pipeline.entry.launch.template.clone();
        MediaError::Parse { template, reason: reason.to_owned(), line: String::new() }
    }

    fn feed(&self, kind: Kind) -> Option<&Feed> {
        self.feeds[slot(kind)].as_ref()
    }

    /// Hands a frame over, and returns once the branch has done its work with it; its payload is not copied. One of a
    /// track without configuration is dropped: false.
    pub fn push(&mut self, kind: Kind, input: Input) -> bool {
        let Some(feed) = self.feeds[slot(kind)].as_mut().filter(|feed| !feed.failed) else { return false };
        let pushed = match self.pipeline.entry.launch.operators {
            // It may encode, or wait for a queue: other tasks go on meanwhile.
            true => tokio::task::block_in_place(|| feed.push(input)),
            false => feed.push(input),
        };
        if let Err(flow) = pushed
            && flow != gst::FlowError::Flushing
        {
            feed.failed = true;
            let what = format!("the branch takes no more frames: {flow}");
            // An element that has said why on the bus is heard first.
            let _ = self.events.send(SourceEvent::Failed(Failure::of(kind.label(), "ingest", &what)));
        }
        true
    }

    /// What it says: [`SourceEvent::Track`], [`SourceEvent::Ended`] or [`SourceEvent::Failed`]; `None` never comes before
    /// it is dropped.
    pub async fn event(&mut self) -> Option<SourceEvent> {
        tokio::select! {
            biased;
            event = self.pipeline.events.recv() => match event? {
                BusEvent::Eos => Some(SourceEvent::Ended),
                BusEvent::Error(failure) => Some(SourceEvent::Failed(failure)),
            },
            event = self.tracks.recv() => event,
        }
    }

    /// Lets what was pushed go through, at most for `deadline`; then stops it and waits until its threads are gone.
    pub async fn finish(mut self, deadline: std::time::Duration) {
        let pads: Vec<gst::Pad> = self.feeds.iter().flatten().map(|feed| feed.pad.clone()).collect();
        if !pads.is_empty() {
            let end = move || pads.iter().for_each(|pad| _ = pad.send_event(gst::event::Eos::new()));
            let ended = async {
                blocking(&self.pipeline.entry.launch.template, "draining", end).await?;
                Ok::<_, MediaError>(self.pipeline.events.recv().await)
            };
            // One that fails or hangs has nothing more to give.
            let _ = tokio::time::timeout(deadline, ended).await;
        }
        self.pipeline.stop().await;
    }
}

impl Feed {
    fn push(&mut self, input: Input) -> Result<gst::FlowSuccess, gst::FlowError> {
        let duration = self.format.duration(input.payload.len());
        let (dts, pts) = (time(input.dts), time(input.pts));
        let later = dts.filter(|_| self.format.kind() == Kind::Video).map(|dts| self.apart.later(dts));
        let later = later.unwrap_or_default();
        let mut buffer = gst::Buffer::from_slice(input.payload);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_dts(dts.map(|dts| dts + later));
            buffer.set_pts(pts.map(|pts| pts + later));
            buffer.set_duration(duration.and_then(time));
            if !input.keyframe {
                buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
        }
        self.pad.chain(buffer)
    }
}

fn slot(kind: Kind) -> usize {
    match kind {
        Kind::Video => 0,
        Kind::Audio => 1,
    }
}

fn time(time: std::time::Duration) -> Option<gst::ClockTime> {
    u64::try_from(time.as_nanos()).ok().map(gst::ClockTime::from_nseconds)
}

fn caps(format: &Format) -> gst::Caps {
    let record = |bytes: &bytes::Bytes| gst::Buffer::from_slice(bytes.clone());
    let g711 = |name, channels: u8| {
        gst::Caps::builder(name).field("rate", 8000i32).field("channels", i32::from(channels)).build()
    };
    match format {
        Format::H264 { record: bytes } => gst::Caps::builder("video/x-h264")
            .field("stream-format", "avc")
            .field("alignment", "au")
            .field("codec_data", record(bytes))
            .build(),
        Format::Aac { config } => gst::Caps::builder("audio/mpeg")
            .field("mpegversion", 4i32)
            .field("framed", true)
            .field("stream-format", "raw")
            .field("codec_data", record(config))
            .build(),
        Format::Pcma { channels } => g711("audio/x-alaw", *channels),
        Format::Pcmu { channels } => g711("audio/x-mulaw", *channels),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::media::Catalog;

    async fn started(catalog: &Catalog) -> Ingest {
        let launch = catalog.launch("ingest-rtmp", |filling| filling.track(Kind::Video).track(Kind::Audio)).unwrap();
        let stream = StreamName::new("a").unwrap();
        Ingest::start(&Pipelines::default(), launch, &stream, &Fanout::default()).await.unwrap()
    }

    fn frame() -> Input {
        let at = Duration::from_secs(1);
        Input { dts: at, pts: at, keyframe: true, payload: bytes::Bytes::from_static(&[0; 160]) }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_slow_template_of_the_operators_holds_up_nobody_else() {
        crate::media::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let template = "[video] {video_feed} ! {video_out}\n[audio] {audio_feed} ! {audio_out}";
        std::fs::write(folder.path().join("ingest-rtmp.launch"), template).unwrap();
        let mut ingest = started(&Catalog::load(Some(folder.path())).unwrap()).await;
        ingest.configure(Format::Pcma { channels: 1 }).await.unwrap();
        // The branch is through with the frame once another task has had its turn.
        let (turn, turns) = mpsc::channel();
        let (is_there, there) = tokio::sync::oneshot::channel();
        let waiting = std::sync::Mutex::new(Some((turns, is_there)));
        let (had, has) = mpsc::channel();
        ingest.feed(Kind::Audio).unwrap().pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            let (turns, is_there) = waiting.lock().unwrap().take().unwrap();
            is_there.send(()).unwrap();
            had.send(turns.recv_timeout(Duration::from_secs(10))).unwrap();
            gst::PadProbeReturn::Ok
        });
        let pushing = tokio::spawn(async move {
            assert!(ingest.push(Kind::Audio, frame()));
            ingest
        });
        let other = tokio::spawn(async move {
            there.await.unwrap();
            turn.send(()).unwrap();
        });
        other.await.unwrap();
        pushing.await.unwrap().finish(Duration::from_secs(5)).await;
        assert_eq!(has.recv(), Ok(Ok(())));
    }

    #[tokio::test]
    async fn a_branch_that_takes_no_frames_has_failed() {
        crate::media::init().unwrap();
        let mut ingest = started(&Catalog::load(None).unwrap()).await;
        // Its parameter set is cut.
        let record = bytes::Bytes::from_static(&[1, 66, 0, 30, 255, 225, 0, 99, 103, 66]);
        ingest.configure(Format::H264 { record }).await.unwrap();
        assert!(ingest.push(Kind::Video, frame()));
        let event = tokio::time::timeout(Duration::from_secs(10), ingest.event()).await.unwrap();
        assert!(matches!(event, Some(SourceEvent::Failed(_))), "{event:?}");
        assert!(!ingest.push(Kind::Video, frame()));
        ingest.finish(Duration::from_secs(5)).await;
    }
}
