//! One picture of a stream: decodes from the cached keyframe up to now and keeps the first picture that is new.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSrc};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

use super::bus::BusEvent;
use super::fanout::{Consumer, Fanout, Frame};
use super::pipeline::{MediaError, Parse, Pipeline, TRANSITION};
use super::pipelines::Pipelines;
use super::template::Launch;
use crate::name::StreamName;

/// Takes a picture, as PNG.
///
/// # Errors
/// See [`MediaError`]; [`MediaError::Deadline`] when no picture came in time.
pub async fn snapshot(
    pipelines: &Pipelines,
    launch: Launch,
    stream: &StreamName,
    fanout: &Fanout,
) -> Result<Vec<u8>, MediaError> {
    let template = launch.template.clone();
    let mut pipeline = Pipeline::build(pipelines, launch, Parse::Whole, stream).await?;
    let pictures: gst::Element = pipeline.element("pictures")?;
    drop_before(&pictures, fanout.latest());
    let sink: AppSink = pipeline.element("image_out")?;
    let (sender, mut images) = unbounded_channel();
    let callbacks = gstreamer_app::AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let bytes = sample.buffer().and_then(|buffer| Some(buffer.map_readable().ok()?.to_vec()));
        let _ = sender.send(bytes.unwrap_or_default());
        Ok(gst::FlowSuccess::Ok)
    });
    sink.set_callbacks(callbacks.build());
    let input: AppSrc = pipeline.element("video_in")?;
    pipeline.play().await?;
    let link = fanout.join(Box::new(Into(input)), Box::new(Nothing));
    fanout.request_keyframe();
    // A source that cannot be asked for a keyframe may need a while for its next one.
    let taken = timeout(TRANSITION, first(&mut images, &mut pipeline)).await;
    drop(link);
    pipeline.stop().await;
    taken.map_err(|_| MediaError::Deadline { template, what: "taking a picture" })?
}

async fn first(
    images: &mut tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>,
    pipeline: &mut Pipeline,
) -> Result<Vec<u8>, MediaError> {
    loop {
        tokio::select! {
            biased;
            Some(image) = images.recv() => return Ok(image),
            event = pipeline.events.recv() => if let Some(BusEvent::Error(failure)) = event {
                return Err(MediaError::Failed { failure });
            },
        }
    }
}

/// Drops what reaches `element` with a time before `now` (nanoseconds of the stream's time line).
pub(super) fn drop_before(element: &gst::Element, now: u64) {
    let Some(pad) = element.static_pad("sink") else { return };
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let segment = pad.sticky_event::<gst::event::Segment>(0);
        let time = segment.as_ref().and_then(|event| {
            let segment = event.segment().downcast_ref::<gst::ClockTime>()?;
            segment.to_running_time(info.buffer()?.pts()?)
        });
        match time {
            // Drop makes GStreamer 1.22 unref what the binding has taken already.
            Some(time) if time.nseconds() < now => gst::PadProbeReturn::Handled,
            _ => gst::PadProbeReturn::Ok,
        }
    });
}

struct Into(AppSrc);

impl Consumer for Into {
    fn take(&mut self, frame: &Frame) {
        // After its picture the pipeline takes no more, which is no fault.
        let _ = self.0.push_sample(&frame.sample);
    }
}

struct Nothing;

impl Consumer for Nothing {
    fn take(&mut self, _: &Frame) {}
}
