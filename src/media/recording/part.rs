//! One file of a recording: a pipeline that muxes what is handed to it.

use std::collections::VecDeque;
use std::str::FromStr;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSrc;

use super::head;
use crate::media::bus::{BusEvent, Failure};
use crate::media::fanout::Frame;
use crate::media::pipeline::{MediaError, Parse, Pipeline};
use crate::media::pipelines::Pipelines;
use crate::media::template::Launch;
use crate::media::track::{Kind, Track};
use crate::name::StreamName;

/// One file being written.
pub struct Part {
    pipeline: Pipeline,
    pub(super) inputs: Vec<(Kind, Input)>,
    /// How it ended, once that is known.
    end: Option<PartEvent>,
}

/// How a part ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartEvent {
    /// The file is complete.
    Finished,
    /// It could not be written further.
    Failed(Failure),
}

impl Part {
    /// Starts the pipeline of a part whose time stamps begin with `start` of the stream's time line.
    ///
    /// # Errors
    /// See [`MediaError`]: among others a file that cannot be created.
    pub async fn start(
        pipelines: &Pipelines,
        launch: Launch,
        stream: &StreamName,
        tracks: &[Track],
        start: Duration,
    ) -> Result<Self, MediaError> {
        let kinds: Vec<Kind> = launch.branches.iter().map(|branch| branch.kind()).collect();
        let mut pipeline = Pipeline::build(pipelines, launch, Parse::Whole, stream).await?;
        if let Ok(muxer) = pipeline.element("mux") {
            head::complete_written_by(&muxer);
        }
        let mut inputs = Vec::new();
        for kind in kinds {
            let source: AppSrc = pipeline.element(&format!("{}_in", kind.label()))?;
            if let Some(pad) = source.static_pad("src") {
                pad.set_offset(-i64::try_from(start.as_nanos()).unwrap_or(i64::MAX));
            }
            let track = tracks.iter().find(|track| track.kind == kind);
            let caps = track.and_then(|track| gst::Caps::from_str(&track.caps).ok());
            inputs.push((kind, Input { source, caps }));
        }
        pipeline.play().await?;
        Ok(Self { pipeline, inputs, end: None })
    }

    /// Frames a feed could not hand over itself; the track ends after them.
    pub fn take(&self, mut rest: Rest) {
        if let Some((_, input)) = self.inputs.iter().find(|(kind, _)| *kind == rest.kind) {
            push_all(input, &mut rest.frames);
            input.close();
        }
    }

    /// Ends every track that has not ended yet.
    pub fn finish(&self) {
        for (_, input) in &self.inputs {
            input.close();
        }
    }

    /// Bytes that wait to be written, or to be transcoded first.
    pub fn queued(&self) -> u64 {
        self.inputs.iter().map(|(_, input)| input.source.current_level_bytes()).sum()
    }

    /// Leaves out the sound that still waits: transcoding it is what takes long. The pictures, and what has been
    /// transcoded, are written. True when there is any.
    pub fn leave_sound_out(&self) -> bool {
        let sound = self.inputs.iter().filter(|(kind, _)| *kind == Kind::Audio).map(|(_, input)| &input.source);
        let late: Vec<_> = sound.filter(|source| source.current_level_buffers() > 0).collect();
        // Behind the source's own pad: there the list that is just being worked through comes buffer by buffer.
        for pad in late.iter().filter_map(|source| source.static_pad("src")?.peer()) {
            let media = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
            pad.add_probe(media, |_, _| gst::PadProbeReturn::Handled);
        }
        !late.is_empty()
    }

    /// How it ends. Whoever asks later hears the same: its end may be seen while it is still being written, before it is
    /// known that nothing more will come.
    pub async fn ended(&mut self) -> PartEvent {
        if self.end.is_none() {
            self.end = Some(match self.pipeline.events.recv().await {
                Some(BusEvent::Error(failure)) => PartEvent::Failed(failure),
                Some(BusEvent::Eos) | None => PartEvent::Finished,
            });
        }
        self.end.clone().unwrap_or(PartEvent::Finished)
    }

    /// Stops the pipeline; the file is closed when this returns.
    pub async fn stop(self) {
        self.pipeline.stop().await;
    }
}

/// Frames on their way into a part; only [`Part::take`] can use them.
pub struct Rest {
    pub(super) kind: Kind,
    pub(super) frames: VecDeque<Frame>,
}

/// One track's way into a part.
#[derive(Clone)]
pub(super) struct Input {
    pub(super) source: AppSrc,
    /// The track's format as the stream tells it.
    caps: Option<gst::Caps>,
}

impl Input {
    /// Ends the track. One that never had a frame says at least what it would have been: a muxer of transport streams
    /// gives up over a track without a format.
    pub(super) fn close(&self) {
        if self.source.caps().is_none() {
            self.source.set_caps(self.caps.as_ref());
        }
        let _ = self.source.end_of_stream();
    }
}

/// Hands the frames over: the first of them as a sample, which brings caps and time line along, and those that share
/// both with it as one list.
pub(super) fn push_all(input: &Input, frames: &mut VecDeque<Frame>) {
    while let Some(first) = frames.pop_front() {
        let sample = &first.sample;
        let alike = |frame: &&Frame| frame.sample.caps() == sample.caps() && frame.sample.segment() == sample.segment();
        let count = frames.iter().take_while(alike).count();
        // A part that failed has said so on its bus.
        let _ = input.source.push_sample(sample);
        if count > 0 {
            let list = frames.drain(..count).filter_map(|frame| frame.sample.buffer_owned()).collect();
            let _ = input.source.push_buffer_list(list);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::media::catalog::Catalog;
    use crate::media::track::Codec;

    /// Who watches the running part may hear of its end first; who finishes it then must not wait for another one.
    #[tokio::test(flavor = "multi_thread")]
    async fn its_end_is_told_to_everybody_who_asks() {
        crate::media::init().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.mp4").to_string_lossy().into_owned();
        let catalog = Catalog::load(None).unwrap();
        let launch = catalog.launch("record-mp4", |filling| {
            let filling = filling.value_for_shell("location", &file, "a.mp4").value("audio_caps", "audio/x-raw");
            filling.track_in(Kind::Video, &Codec::H264)
        });
        let stream = StreamName::new("a").unwrap();
        let pipelines = Pipelines::default();
        let mut part = Part::start(&pipelines, launch.unwrap(), &stream, &[], Duration::ZERO).await.unwrap();
        part.finish();
        for _ in 0..2 {
            let end = tokio::time::timeout(Duration::from_secs(20), part.ended()).await;
            assert!(end.is_ok(), "its end is told once only");
        }
        part.stop().await;
    }
}
