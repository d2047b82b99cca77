//! A track of a stream in another codec: one pipeline between the stream's fan-out and one of its own, on the same time
//! line. Keyframes that are asked for at its fan-out come from its encoder.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use gstreamer as gst;
use gstreamer_app::{AppSink, AppSrc};

use super::bus::{BusEvent, Failure};
use super::fanout::{Consumer, Fanout, Frame, Link};
use super::payloader::{Into, Nothing};
use super::pipeline::{MediaError, Parse, Pipeline};
use super::pipelines::Pipelines;
use super::snapshot::drop_before;
use super::template::Launch;
use super::track::Kind;
use crate::name::StreamName;

/// Bytes of pictures that may wait for the decoder: the cached GOP comes at once.
const PICTURES: u64 = 16 << 20;
/// How far the decoder may be behind once it has caught up with the cached GOP.
const LAG: gst::ClockTime = gst::ClockTime::from_seconds(2);

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
    pub async fn sound(
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
        let input = Into { input, from: 0, dropped: Arc::new(AtomicU64::new(0)) };
        let link = from.join(Box::new(Nothing), Box::new(input));
        Ok(Self { pipeline, fanout, _link: link })
    }

    /// Starts one that takes the pictures of `from` and begins with the newest: those since the cached keyframe are
    /// decoded, and dropped in front of the element `pictures`.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub async fn pictures(
        pipelines: &Pipelines,
        launch: Launch,
        stream: &StreamName,
        from: &Fanout,
    ) -> Result<Self, MediaError> {
        let mut pipeline = Pipeline::build(pipelines, launch, Parse::Whole, stream).await?;
        let sink: AppSink = pipeline.element("video_out")?;
        let input: AppSrc = pipeline.element("video_in")?;
        drop_before(&pipeline.element("pictures")?, from.latest());
        let fanout = Fanout::on_the_same_time_line();
        fanout.announce(Kind::Video);
        fanout.feed(Kind::Video, &sink, |_| ());
        pipeline.play().await?;
        let link = from.join(Box::new(Decoded::new(input)), Box::new(Nothing));
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

/// Hands pictures to a decoder. One that is too slow gets none until the next keyframe: what it had to leave out would be
/// seen in all that follow.
struct Decoded {
    input: AppSrc,
    /// The decoder is through with the cached GOP.
    caught_up: bool,
    behind: bool,
}

impl Decoded {
    fn new(input: AppSrc) -> Self {
        Self { input, caught_up: false, behind: false }
    }
}

impl Consumer for Decoded {
    fn take(&mut self, frame: &Frame) {
        let waiting = self.input.current_level_bytes();
        self.caught_up |= waiting == 0;
        let late = self.caught_up && self.input.current_level_time() > LAG;
        self.behind = late || waiting > PICTURES || self.behind && !frame.keyframe;
        if !self.behind {
            // A pipeline that failed has said so on its bus.
            let _ = self.input.push_sample(&frame.sample);
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

        let rendition = Rendition::sound(&Pipelines::default(), launch, &stream, &from).await.unwrap();
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
        let origin = i64::try_from(crate::media::ORIGIN.as_nanos()).unwrap();
        assert!((times[0] - origin).abs() < 50_000_000, "{}", times[0]);
        let steps = times.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(steps.clone().all(|step| (20_000_000..23_000_000).contains(&step)), "{:?}", steps.collect::<Vec<_>>());
    }

    /// Pictures of a codec, live, through a template; gives (key, dts, pts) of each that comes out, with a keyframe asked
    /// for after twenty of them.
    async fn transcoded(template: &str, codec: &str, encoder: &str) -> Vec<(bool, i64, i64)> {
        crate::media::init().unwrap();
        let stream = StreamName::new("a").unwrap();
        let catalog = Catalog::load(None).unwrap();
        let rate = if template == "transcode-x264" { ("kbps", "500") } else { ("bps", "500000") };
        let filled = |filling: crate::media::Filling| {
            filling.value(rate.0, rate.1).track_in(Kind::Video, &crate::media::Codec::Other(codec.to_owned()))
        };
        let launch = catalog.launch(template, filled).unwrap();
        let from = Fanout::default();
        from.announce(Kind::Video);
        let line = format!(
            "videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=96,framerate=25/1 ! {encoder} \
             ! appsink name=out sync=false"
        );
        let source = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
        let sink = source.by_name("out").unwrap().downcast::<AppSink>().unwrap();
        assert!(from.feed(Kind::Video, &sink, |_| ()));
        source.set_state(gst::State::Playing).unwrap();
        while from.figures(Kind::Video).frames < 10 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let rendition = Rendition::pictures(&Pipelines::default(), launch, &stream, &from).await.unwrap();
        let mut tap = Tap::default();
        tap.take(rendition.fanout(), &[Kind::Video]);
        let mut pictures = Vec::new();
        while pictures.len() < 45 {
            match tokio::time::timeout(Duration::from_secs(20), tap.next()).await.unwrap().unwrap() {
                Tapped::Format(format) => assert!(matches!(format, Format::H264 { .. }), "{format:?}"),
                Tapped::Frame(frame) => pictures.push((frame.keyframe, frame.dts, frame.pts)),
            }
            if pictures.len() == 20 {
                rendition.fanout().request_keyframe();
            }
        }
        source.set_state(gst::State::Null).unwrap();
        pictures
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pictures_become_h264_in_the_order_they_are_shown_in() {
        let h264 = "openh264enc ! h264parse";
        let h265 = "x265enc speed-preset=ultrafast ! h265parse ! video/x-h265,stream-format=hvc1,alignment=au";
        for (template, codec, encoder) in [
            ("transcode-x264", "h264", h264),
            ("transcode-x264", "h265", h265),
            ("transcode-openh264", "h264", h264),
            ("transcode-openh264", "h265", h265),
        ] {
            let pictures = transcoded(template, codec, encoder).await;
            // From now on, not from the cached keyframe.
            assert!(pictures[0].0 && pictures[0].2 >= 300_000_000, "{template} {codec}: {:?}", pictures[0]);
            assert!(pictures.windows(2).all(|pair| pair[1].2 > pair[0].2), "{template} {codec}: {pictures:?}");
            assert!(pictures.iter().all(|(_, dts, pts)| dts == pts), "{template} {codec}: {pictures:?}");
            assert!(pictures[20..].iter().any(|(key, ..)| *key), "{template} {codec}: no keyframe was made");
        }
    }
}
