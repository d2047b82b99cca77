//! A pipeline that a protocol of weir's own feeds: the branch of each track is attached when its first configuration
//! comes, and a new configuration goes on in the same branch.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSrc};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::bus::BusEvent;
use super::encoded::{Format, Input};
use super::fanout::Fanout;
use super::pipeline::{MediaError, Parse, Pipeline, blocking, parsed_branch};
use super::pipelines::Pipelines;
use super::source::SourceEvent;
use super::template::Launch;
use super::track::Kind;
use crate::name::StreamName;

/// Bytes that may wait in front of the parsers before their source should hold back.
const BACKLOG: u64 = 4 << 20;

/// A running ingest. Dropping it stops it without waiting.
pub struct Ingest {
    pipeline: Pipeline,
    fanout: Fanout,
    events: UnboundedSender<SourceEvent>,
    tracks: UnboundedReceiver<SourceEvent>,
    feeds: [Option<Feed>; 2],
}

struct Feed {
    source: AppSrc,
    format: Format,
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
                feed.source.set_caps(Some(&caps(&format)));
                feed.format = format;
                Ok(())
            }
            Some(_) => Err(self.refused("a track's codec cannot change while it is published")),
            None => {
                let source = self.attach(&format).await?;
                self.feeds[slot(kind)] = Some(Feed { source, format });
                Ok(())
            }
        }
    }

    async fn attach(&self, format: &Format) -> Result<AppSrc, MediaError> {
        let (launch, kind) = (&self.pipeline.entry.launch, format.kind());
        let branch = launch.branch_for(kind, &format.codec());
        let branch = branch.ok_or_else(|| self.refused("the template has no branch for its codec"))?;
        let (template, text) = (launch.template.clone(), launch.branches[branch].text.clone());
        let bin = blocking(&launch.template, "parsing", move || parsed_branch(&template, &text)).await??;
        let source: AppSrc = self.named(&bin, &format!("{}_feed", kind.label()))?;
        let sink: AppSink = self.named(&bin, &format!("{}_out", kind.label()))?;
        source.set_caps(Some(&caps(format)));
        if let Some(pad) = source.static_pad("src").filter(|_| kind == Kind::Video) {
            super::flv_clock::tell_apart(&pad);
        }
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
        Ok(source)
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

    /// Hands a frame over; its payload is not copied. One of a track without configuration is dropped: false.
    pub fn push(&self, kind: Kind, input: Input) -> bool {
        let Some(feed) = self.feed(kind) else { return false };
        let duration = feed.format.duration(input.payload.len());
        let mut buffer = gst::Buffer::from_slice(input.payload);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_dts(time(input.dts));
            buffer.set_pts(time(input.pts));
            buffer.set_duration(duration.and_then(time));
            if !input.keyframe {
                buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
        }
        // A pipeline that failed has said so on its bus.
        let _ = feed.source.push_buffer(buffer);
        true
    }

    /// Whether so much waits in front of the parsers that the source should hold back.
    pub fn is_behind(&self) -> bool {
        self.feeds.iter().flatten().any(|feed| feed.source.current_level_bytes() > BACKLOG)
    }

    /// What it says: [`SourceEvent::Track`], [`SourceEvent::Ended`] or [`SourceEvent::Failed`]; `None` never comes before
    /// it is dropped.
    pub async fn event(&mut self) -> Option<SourceEvent> {
        tokio::select! {
            biased;
            event = self.tracks.recv() => event,
            event = self.pipeline.events.recv() => match event? {
                BusEvent::Eos => Some(SourceEvent::Ended),
                BusEvent::Error(failure) => Some(SourceEvent::Failed(failure)),
            },
        }
    }

    /// Lets what was pushed go through, at most for `deadline`; then stops it and waits until its threads are gone.
    pub async fn finish(mut self, deadline: std::time::Duration) {
        let sources: Vec<&AppSrc> = self.feeds.iter().flatten().map(|feed| &feed.source).collect();
        if !sources.is_empty() {
            sources.into_iter().for_each(|source| {
                let _ = source.end_of_stream();
            });
            // One that fails or hangs has nothing more to give.
            let _ = tokio::time::timeout(deadline, self.pipeline.events.recv()).await;
        }
        self.pipeline.stop().await;
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
