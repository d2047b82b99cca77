//! A pipeline that brings a stream in: its head is started, and the branch of each track is attached when the track
//! appears, so that the line has exactly the tracks the source has.

use std::sync::Arc;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::AppSink;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::announced;
use super::bus::{BusEvent, Failure};
use super::fanout::Fanout;
use super::pipeline::{MediaError, Parse, Pipeline, branch_body, parsed_branch};
use super::pipelines::{Entry, Pipelines};
use super::rtsp::{self, RtspTrust};
use super::template::Launch;
use super::track::{Kind, Track};
use crate::name::StreamName;

/// Judges a track by its caps: `Err` is the reason why it is left out. Runs in a streaming thread; must not wait.
pub type Accept = Arc<dyn Fn(&Track) -> Result<(), String> + Send + Sync>;

/// What a source may do, and be.
pub struct SourceRules {
    /// Which tracks it may bring.
    pub accept: Accept,
    /// How long the sound of an FLV stream that announces pictures is held back until they come; `None` not at all.
    pub pictures: Option<Duration>,
    /// Whose certificates a camera that is called over TLS may show.
    pub trust: RtspTrust,
}

/// What a source said.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceEvent {
    /// The remote server has described the stream; tracks come.
    Described,
    /// The remote server has answered with a first track.
    Answered,
    /// The source's metadata announces pictures; until they come its sound is held back.
    PicturesAwaited,
    /// A track's facts are known or have changed.
    Track(Track),
    /// A track is left out.
    Refused {
        /// Which.
        kind: Kind,
        /// Why.
        reason: String,
    },
    /// There will be no more tracks.
    AllTracks,
    /// The remote server sends its client to another address, where nothing was asked yet.
    Redirected(String),
    /// The source has ended.
    Ended,
    /// The source has failed.
    Failed(Failure),
}

/// A running source. Dropping it stops it without waiting.
pub struct Source {
    pipeline: Pipeline,
    tracks: UnboundedReceiver<SourceEvent>,
}

impl Source {
    /// Starts a source whose frames go to `fanout`. The head needs an element named `demux` that adds a pad a track.
    ///
    /// # Errors
    /// See [`MediaError`]. A remote server that does not answer is no error here: it arrives as an event.
    pub async fn start(
        pipelines: &Pipelines,
        launch: Launch,
        stream: &StreamName,
        fanout: &Fanout,
        rules: SourceRules,
    ) -> Result<Self, MediaError> {
        let SourceRules { accept, pictures, trust } = rules;
        fanout.expect_source();
        let mut pipeline = Pipeline::build(pipelines, launch, Parse::Head, stream).await?;
        let demux: gst::Element = pipeline.element("demux")?;
        let is = |name: &str| demux.factory().is_some_and(|factory| factory.name() == name);
        let (flv, rtsp) = (is("flvdemux"), is("rtspsrc"));
        if flv {
            super::flv_clock::correct(&demux);
        }
        let (events, tracks) = unbounded_channel();
        let grafter = Grafter::new(&pipeline, fanout, accept, events.clone());
        demux.connect_pad_added(move |demux, pad| {
            if rtsp {
                place_latecomer(demux, pad);
            }
            if flv && pad.name() == "video" {
                super::flv_clock::tell_apart(pad);
            }
            grafter.graft(pad);
        });
        rtsp::guard(&demux, &trust, &events);
        if let Some(longest) = pictures {
            let news = events.clone();
            announced::hold_sound(&demux, longest, move || {
                let _ = news.send(SourceEvent::PicturesAwaited);
            });
        }
        demux.connect_no_more_pads(move |_| {
            let _ = events.send(SourceEvent::AllTracks);
        });
        pipeline.set_clock();
        pipeline.play().await?;
        Ok(Self { pipeline, tracks })
    }

    /// The next event; `None` never comes before the source is dropped.
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

    /// Bytes the source's network element has read; `None` where it does not count.
    pub fn bytes_in(&self) -> Option<u64> {
        let stats = self.pipeline.gst.iterate_sources().into_iter().flatten().find_map(|source| {
            source.has_property("stats").then(|| source.property::<Option<gst::Structure>>("stats")).flatten()
        })?;
        stats.get::<u64>("in-bytes-total").ok()
    }

    /// Stops it and waits until its threads are gone and its feeders are home.
    pub async fn stop(self) {
        self.pipeline.stop().await;
    }
}

/// A track that begins later than this after the others is not moved to them by rtpbin (its max-ts-offset).
const LATE: gst::ClockTime = gst::ClockTime::from_seconds(3);

/// rtspsrc puts the first packet of every interleaved track where the first packet of all was, whenever it comes. One
/// that comes late is put where it belongs: now.
fn place_latecomer(demux: &gst::Element, pad: &gst::Pad) {
    let demux = demux.downgrade();
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let place = || {
            let segment = pad.sticky_event::<gst::event::Segment>(0)?;
            let segment = segment.segment().downcast_ref::<gst::ClockTime>()?;
            let demux = demux.upgrade()?;
            let late = demux.current_running_time()?.checked_sub(segment.to_running_time(info.buffer()?.pts()?)?)?;
            (late > LATE).then(|| pad.set_offset(i64::try_from(late.nseconds()).unwrap_or(0)))
        };
        place();
        gst::PadProbeReturn::Remove
    });
}

/// Attaches branches as pads appear.
pub(super) struct Grafter {
    pipeline: gst::glib::WeakRef<gst::Pipeline>,
    entry: Arc<Entry>,
    fanout: Fanout,
    accept: Accept,
    events: UnboundedSender<SourceEvent>,
}

impl Grafter {
    pub(super) fn new(
        pipeline: &Pipeline,
        fanout: &Fanout,
        accept: Accept,
        events: UnboundedSender<SourceEvent>,
    ) -> Self {
        Self {
            pipeline: pipeline.gst.downgrade(),
            entry: pipeline.entry.clone(),
            fanout: fanout.clone(),
            accept,
            events,
        }
    }

    fn tell(&self, event: SourceEvent) {
        // The receiver goes with the source.
        let _ = self.events.send(event);
    }

    /// Attaches the branch for a pad that has appeared. Runs in a streaming thread.
    pub(super) fn graft(&self, pad: &gst::Pad) {
        self.tell(SourceEvent::Answered);
        let Some(pipeline) = self.pipeline.upgrade() else { return };
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let track = Track::from_caps(&caps);
        let grafted = match &track {
            None => Err("a track without caps".to_owned()),
            Some(track) => (self.accept)(track).and_then(|()| self.attach(&pipeline, pad, track)),
        };
        if let Err(reason) = grafted {
            if let Some(Track { kind, .. }) = track {
                self.tell(SourceEvent::Refused { kind, reason });
            }
            sink_away(&pipeline, pad);
        }
    }

    fn attach(&self, pipeline: &gst::Pipeline, pad: &gst::Pad, track: &Track) -> Result<(), String> {
        let (launch, kind) = (&self.entry.launch, track.kind);
        let branch = launch.branch_for(kind, &track.codec).ok_or("the template has no branch for its codec")?;
        let body = branch_body(launch, branch).ok_or("the template's branch hangs on nothing")?;
        if self.entry.attached.load().iter().any(|other| launch.branches[*other].kind() == kind) {
            return Err("the source has more than one of its kind; the first is used".into());
        }
        let bin = parsed_branch(&launch.template, body).map_err(|error| error.to_string())?;
        drop_unframed(&bin);
        let out = format!("{}_out", kind.label());
        let sink = bin.by_name(&out).and_then(|sink| sink.downcast::<AppSink>().ok());
        let sink = sink.ok_or_else(|| format!("the template's branch must end in {{{out}}}"))?;
        let events = self.events.clone();
        self.fanout.announce(kind);
        let fed = self.fanout.feed(kind, &sink, move |track| {
            // The receiver goes with the source.
            let _ = events.send(SourceEvent::Track(track));
        });
        if !fed {
            return Err("the source before this one still runs".into());
        }
        pipeline.add(&bin).map_err(|error| error.to_string())?;
        let open_end = bin.static_pad("sink").ok_or("the template's branch has no open end")?;
        bin.sync_state_with_parent().map_err(|error| error.to_string())?;
        pad.link(&open_end).map_err(|error| error.to_string())?;
        self.entry.attached.rcu(|attached| {
            let mut attached = std::collections::BTreeSet::clone(attached);
            attached.insert(branch);
            attached
        });
        Ok(())
    }
}

/// rtpmp4adepay (1.22) passes a stream's first packet on as it is, with the length before its frame, and says so in the
/// caps; the same frame is no AAC.
fn drop_unframed(bin: &gst::Bin) {
    let of_factory = |element: &gst::Element| element.factory().is_some_and(|f| f.name() == "rtpmp4adepay");
    for pad in bin.iterate_elements().into_iter().flatten().filter(of_factory).filter_map(|e| e.static_pad("src")) {
        pad.add_probe(gst::PadProbeType::BUFFER, |pad, _| {
            let caps = pad.current_caps();
            let framed = caps.as_deref().and_then(|caps| caps.structure(0)?.get::<bool>("framed").ok());
            match framed {
                Some(false) => gst::PadProbeReturn::Handled,
                _ => gst::PadProbeReturn::Ok,
            }
        });
    }
}

/// A pad nobody wants must still be linked: an unlinked one ends the source when it is the last.
fn sink_away(pipeline: &gst::Pipeline, pad: &gst::Pad) {
    let Ok(sink) = gst::ElementFactory::make("fakesink").property("sync", false).property("async", false).build()
    else {
        return;
    };
    let linked = pipeline.add(&sink).is_ok() && sink.sync_state_with_parent().is_ok();
    if let Some(open_end) = sink.static_pad("sink").filter(|_| linked) {
        let _ = pad.link(&open_end);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The offset of a pad of an element whose base time is `base`, when a first frame at 0 has gone through it.
    fn offset_of_the_first_frame(base: gst::ClockTime) -> Duration {
        let demux = gst::ElementFactory::make("identity").build().unwrap();
        demux.set_clock(Some(&gst::SystemClock::obtain())).unwrap();
        demux.set_base_time(base);
        demux.set_state(gst::State::Paused).unwrap();
        let (sink, pad) = (demux.static_pad("sink").unwrap(), demux.static_pad("src").unwrap());
        place_latecomer(&demux, &pad);
        assert!(sink.send_event(gst::event::StreamStart::new("a")));
        assert!(sink.send_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
        let mut frame = gst::Buffer::with_size(1).unwrap();
        frame.get_mut().unwrap().set_pts(gst::ClockTime::ZERO);
        // Nothing is behind the pad.
        let _ = sink.chain(frame);
        let offset = pad.offset();
        demux.set_state(gst::State::Null).unwrap();
        Duration::from_nanos(offset.try_into().unwrap())
    }

    #[test]
    fn a_track_that_comes_late_is_put_where_the_clock_is() {
        gst::init().unwrap();
        let now = || gst::SystemClock::obtain().time();
        let offset = offset_of_the_first_frame(now() - 5 * gst::ClockTime::SECOND);
        assert!(offset >= Duration::from_secs(5) && offset < Duration::from_secs(60), "{offset:?}");
        assert_eq!(offset_of_the_first_frame(now()), Duration::ZERO);
    }
}
