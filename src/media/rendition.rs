//! A stream's sound in another codec: one pipeline between the stream's fan-out and one of its own, on the same time line.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use gstreamer_app::{AppSink, AppSrc};

use super::bus::{BusEvent, Failure};
use super::fanout::{Fanout, Link};
use super::payloader::{Into, Nothing};
use super::pipeline::{MediaError, Parse, Pipeline};
use super::pipelines::Pipelines;
use super::template::Launch;
use super::track::Kind;
use crate::name::StreamName;

/// A running rendition. Dropping it ends it without waiting.
pub struct Rendition {
    pipeline: Pipeline,
    fanout: Fanout,
    _link: Link,
}

impl Rendition {
    /// Starts one that takes the sound of `from`.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub async fn start(
        pipelines: &Pipelines,
        launch: Launch,
        stream: &StreamName,
        from: &Fanout,
    ) -> Result<Self, MediaError> {
        let mut pipeline = Pipeline::build(pipelines, launch, Parse::Whole, stream).await?;
        let sink: AppSink = pipeline.element("sound_out")?;
        let input: AppSrc = pipeline.element("sound_in")?;
        let fanout = Fanout::on_the_same_time_line();
        fanout.feed(Kind::Audio, &sink, |_| ());
        pipeline.play().await?;
        // What it cannot keep up with is lost, as sound that comes late is of no use.
        let input = Into { input, dropped: Arc::new(AtomicU64::new(0)) };
        let link = from.join(Box::new(Nothing), Box::new(input));
        Ok(Self { pipeline, fanout, _link: link })
    }

    /// Where its frames come from, on the time line of the stream.
    pub fn fanout(&self) -> &Fanout {
        &self.fanout
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
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use gstreamer as gst;
    use gstreamer::prelude::*;

    use super::*;
    use crate::media::{Catalog, Format, Tap, Tapped};

    #[tokio::test]
    async fn opus_becomes_aac_on_the_same_time_line() {
        crate::media::init().unwrap();
        let stream = StreamName::new("a").unwrap();
        let catalog = Catalog::load(None).unwrap();
        let opus = |filling: crate::media::Filling| filling.track_in(Kind::Audio, &crate::media::Codec::Opus);
        let launch = catalog.launch("play-rtmp", opus).unwrap();
        let from = Fanout::default();
        let line = "audiotestsrc num-buffers=150 samplesperbuffer=960 is-live=true ! audio/x-raw,rate=48000,channels=1 \
                    ! opusenc ! appsink name=out sync=false";
        let source = gst::parse::launch(line).unwrap().downcast::<gst::Pipeline>().unwrap();
        let sink = source.by_name("out").unwrap().downcast::<AppSink>().unwrap();
        assert!(from.feed(Kind::Audio, &sink, |_| ()));
        source.set_state(gst::State::Playing).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;

        let rendition = Rendition::start(&Pipelines::default(), launch, &stream, &from).await.unwrap();
        let mut tap = Tap::default();
        tap.take(rendition.fanout(), &[Kind::Audio]);
        let mut times = Vec::new();
        let mut format = None;
        while times.len() < 80 {
            match tokio::time::timeout(Duration::from_secs(10), tap.next()).await.unwrap().unwrap() {
                Tapped::Format(this) => format = Some(this),
                Tapped::Frame(frame) => times.push(frame.pts),
            }
        }
        source.set_state(gst::State::Null).unwrap();
        assert!(matches!(format, Some(Format::Aac { .. })), "{format:?}");
        // It begins where the stream's cached sound does, and has a frame of 1024 samples every 21.3 ms.
        assert!(times[0] < 50_000_000, "{}", times[0]);
        let steps = times.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(steps.clone().all(|step| (20_000_000..23_000_000).contains(&step)), "{:?}", steps.collect::<Vec<_>>());
    }
}
