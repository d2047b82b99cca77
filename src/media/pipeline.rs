//! One running GStreamer graph: parsed, started and stopped off the async threads, each with a deadline.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use gstreamer as gst;
use gstreamer::prelude::*;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::bus::{self, BusEvent, Failure};
use super::packages::package_of;
use super::pipelines::{Entry, Pipelines};
use super::template::Launch;
use crate::name::{StreamName, mask};

/// Longest time a pipeline may take to be parsed, to start, to negotiate or to stop.
pub(super) const TRANSITION: Duration = Duration::from_secs(10);

/// Why a pipeline does not run.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MediaError {
    /// The installation lacks elements.
    #[error("{template}: GStreamer has no element {elements}; install {packages}")]
    Missing {
        /// The template.
        template: String,
        /// Names of the missing elements, separated by commas.
        elements: String,
        /// The Debian packages that have them.
        packages: String,
    },
    /// The line is no launch syntax.
    #[error("{template}: the line cannot be parsed: {reason} (line: {line})")]
    Parse {
        /// The template.
        template: String,
        /// GStreamer's reason.
        reason: String,
        /// The line, masked.
        line: String,
    },
    /// An offer or an answer is of no use.
    #[error("the {what} cannot be used: {reason}")]
    Negotiation {
        /// `offer` or `answer`.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// A transition did not end in time.
    #[error("{template}: {what} took longer than {} s", TRANSITION.as_secs())]
    Deadline {
        /// The template.
        template: String,
        /// What was tried: parsing, starting, stopping.
        what: &'static str,
    },
    /// An element failed.
    #[error("{failure}")]
    Failed {
        /// What the element said.
        failure: Failure,
    },
    /// The line lacks an element weir talks to.
    #[error("{template}: the line has no element named {name}; a template of the operator's must keep it")]
    NoElement {
        /// The template.
        template: String,
        /// The element's name.
        name: String,
    },
}

/// A pipeline and the only right to stop it. Dropping it stops it without waiting; [`Pipeline::stop`] waits.
pub(super) struct Pipeline {
    pub(super) gst: gst::Pipeline,
    pub(super) entry: Arc<Entry>,
    pub(super) events: UnboundedReceiver<BusEvent>,
    registry: Pipelines,
}

/// Which part of a launch is parsed at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Parse {
    /// Head and branches.
    Whole,
    /// The head; branches are attached when their tracks appear.
    Head,
}

/// How many jobs may be under way at a time. Each takes some milliseconds; a thousand recordings that begin their next
/// part at once must not take a thread each. A job that hangs loses its place with its deadline, though not its thread.
static PLACES: Semaphore = Semaphore::const_new(64);

/// Runs `job` where it may block, for at most [`TRANSITION`] from the moment it has a place.
pub(super) async fn blocking<T: Send + 'static>(
    template: &str,
    what: &'static str,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, MediaError> {
    let late = || MediaError::Deadline { template: template.to_owned(), what };
    let _place = PLACES.acquire().await.map_err(|_| late())?;
    match tokio::time::timeout(TRANSITION, tokio::task::spawn_blocking(job)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_)) | Err(_) => Err(late()),
    }
}

impl Pipeline {
    /// Parses a launch and lists the pipeline in `registry`; it does not run yet.
    pub(super) async fn build(
        registry: &Pipelines,
        launch: Launch,
        parse: Parse,
        stream: &StreamName,
    ) -> Result<Self, MediaError> {
        let template = launch.template.clone();
        let text = match parse {
            Parse::Whole => launch.text(),
            Parse::Head => launch.head.clone(),
        };
        let name = template.clone();
        // A template without a head begins as a pipeline with nothing in it.
        let make = move || if text.is_empty() { Ok(gst::Pipeline::new()) } else { parsed(&name, &text) };
        let gst = blocking(&template, "parsing", make).await??;
        let (sender, events) = unbounded_channel();
        bus::listen(&gst, sender);
        let attached = match parse {
            Parse::Whole => (0..launch.branches.len()).collect(),
            Parse::Head => BTreeSet::new(),
        };
        let entry = Arc::new(Entry {
            id: registry.next_id(&template),
            attached: ArcSwap::from_pointee(attached),
            launch,
            stream: stream.clone(),
            since: SystemTime::now(),
            pipeline: gst.downgrade(),
        });
        registry.insert(entry.clone());
        Ok(Self { gst, entry, events, registry: registry.clone() })
    }

    /// Lets running time begin now, before the pipeline starts, so that it is right for the first frame too. (By itself
    /// a pipeline has its clock first and its base time a little later, on its way to PLAYING, while its source sends
    /// already: between the two, running time is the hours the machine is up.)
    pub(super) fn set_clock(&self) {
        let clock = gst::SystemClock::obtain();
        self.gst.use_clock(Some(&clock));
        // Elements have it at once; none of them can refuse the clock of the system.
        let _ = self.gst.set_clock(Some(&clock));
        self.gst.set_start_time(gst::ClockTime::NONE);
        self.gst.set_base_time(clock.time());
    }

    /// Asks for PLAYING. A live or push source reaches it later; failures arrive as events.
    pub(super) async fn play(&mut self) -> Result<(), MediaError> {
        let gst = self.gst.clone();
        let started = blocking(&self.entry.launch.template, "starting", move || gst.set_state(gst::State::Playing));
        match started.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(self.why_not()),
            Err(late) => {
                self.log_graph();
                Err(late)
            }
        }
    }

    /// The failure an element posted when the state change was refused, or a general one.
    fn why_not(&mut self) -> MediaError {
        while let Ok(event) = self.events.try_recv() {
            if let BusEvent::Error(failure) = event {
                return MediaError::Failed { failure };
            }
        }
        let failure = Failure::of(&self.entry.launch.template, "pipeline", "an element refused to start");
        MediaError::Failed { failure }
    }

    fn log_graph(&self) {
        let dot = self.gst.debug_to_dot_data(gst::DebugGraphDetails::all());
        tracing::error!(pipeline = %self.entry.id, graph = %super::graph::masked(&dot), "a transition hangs");
    }

    /// An element by its name in the line.
    pub(super) fn element<T: IsA<gst::Element>>(&self, name: &str) -> Result<T, MediaError> {
        let found = self.gst.by_name(name).and_then(|element| element.downcast::<T>().ok());
        found.ok_or_else(|| MediaError::NoElement {
            template: self.entry.launch.template.clone(),
            name: name.to_owned(),
        })
    }

    /// Stops the pipeline and waits until its threads are gone.
    pub(super) async fn stop(self) {
        let gst = self.gst.clone();
        let stopped = blocking(&self.entry.launch.template, "stopping", move || to_null(&gst)).await;
        if let Err(late) = stopped {
            tracing::error!(pipeline = %self.entry.id, "{late}");
            self.log_graph();
        }
    }
}

fn to_null(gst: &gst::Pipeline) {
    // NULL cannot be refused; an element that says so is gone all the same.
    let _ = gst.set_state(gst::State::Null);
    if let Some(bus) = gst.bus() {
        bus.unset_sync_handler();
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.registry.remove(&self.entry.id);
        // GStreamer's own pool: a drop may happen in a thread of the pipeline or outside the runtime.
        self.gst.call_async(to_null);
    }
}

/// Parses a line into a pipeline.
pub(super) fn parsed(template: &str, text: &str) -> Result<gst::Pipeline, MediaError> {
    let mut context = gst::ParseContext::new();
    let element = gst::parse::launch_full(text, Some(&mut context), gst::ParseFlags::FATAL_ERRORS)
        .map_err(|error| parse_error(template, text, &error, &context))?;
    match element.downcast::<gst::Pipeline>() {
        Ok(pipeline) => Ok(pipeline),
        Err(single) => {
            let pipeline = gst::Pipeline::new();
            pipeline.add(&single).map_err(|error| MediaError::Parse {
                template: template.to_owned(),
                reason: error.to_string(),
                line: mask(text),
            })?;
            Ok(pipeline)
        }
    }
}

/// Parses a branch into a bin whose open end is a pad of the bin.
pub(super) fn parsed_branch(template: &str, text: &str) -> Result<gst::Bin, MediaError> {
    let mut context = gst::ParseContext::new();
    let flags = gst::ParseFlags::FATAL_ERRORS | gst::ParseFlags::PLACE_IN_BIN;
    gst::parse::bin_from_description_full(text, true, Some(&mut context), flags)
        .map_err(|error| parse_error(template, text, &error, &context))?
        .downcast::<gst::Bin>()
        .map_err(|_| MediaError::Parse {
            template: template.to_owned(),
            reason: "a branch is one chain of elements".into(),
            line: mask(text),
        })
}

fn parse_error(template: &str, text: &str, error: &gst::glib::Error, context: &gst::ParseContext) -> MediaError {
    let missing = context.missing_elements();
    if missing.is_empty() {
        return MediaError::Parse { template: template.to_owned(), reason: mask(error.message()), line: mask(text) };
    }
    let packages = missing.iter().map(|element| package_of(element)).collect::<BTreeSet<_>>();
    MediaError::Missing {
        template: template.to_owned(),
        elements: missing.iter().map(|e| e.to_string()).collect::<Vec<_>>().join(", "),
        packages: packages.into_iter().collect::<Vec<_>>().join(", "),
    }
}

/// A branch's text without the pad it hangs on: `demux.video ! h264parse ! …` gives `h264parse ! …`.
pub(super) fn branch_body(launch: &Launch, branch: usize) -> Option<&str> {
    launch.branches.get(branch)?.text.split_once('!').map(|(_, body)| body.trim())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use super::super::template::{Filling, Template};
    use super::*;

    /// Whatever state its element is in when it comes.
    #[tokio::test]
    async fn the_first_frame_has_a_running_time() {
        crate::media::init().unwrap();
        let line = "fakesrc num-buffers=1 name=source ! fakesink";
        let launch = Template::parse("t", line).unwrap().fill(&Filling::new()).unwrap();
        let stream = StreamName::new("a").unwrap();
        let mut pipeline = Pipeline::build(&Pipelines::default(), launch, Parse::Whole, &stream).await.unwrap();
        let source: gst::Element = pipeline.element("source").unwrap();
        let (tell, first) = mpsc::channel();
        source.static_pad("src").unwrap().add_probe(gst::PadProbeType::BUFFER, move |pad, _| {
            tell.send(pad.parent_element().and_then(|source| source.current_running_time())).unwrap();
            gst::PadProbeReturn::Ok
        });
        pipeline.set_clock();
        pipeline.play().await.unwrap();
        assert_eq!(pipeline.events.recv().await, Some(BusEvent::Eos));
        let running_time = first.recv().unwrap();
        assert!(running_time.is_some_and(|time| time < gst::ClockTime::from_seconds(60)), "{running_time:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_hangs_keeps_no_place() {
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(std::sync::Mutex::new(held));
        let hung: Vec<_> = (0..200)
            .map(|_| {
                let held = held.clone();
                tokio::spawn(blocking("t", "starting", move || held.lock().unwrap().recv().is_ok()))
            })
            .collect();
        let healthy = tokio::spawn(blocking("t", "starting", || 7));
        // Each round of 64 has its own deadline. The clock is moved by hand: it does not move by itself beside threads.
        let mut rounds = 0;
        while !healthy.is_finished() && rounds < 2000 {
            tokio::time::advance(TRANSITION / 200).await;
            tokio::task::yield_now().await;
            std::thread::sleep(Duration::from_millis(1));
            rounds += 1;
        }
        let late = hung.iter().filter(|job| job.is_finished()).count();
        drop(release);
        // Whoever is behind 200 that hang has a place once 64 are left; other tests take places too.
        assert!(late >= 200 - 64, "{late} of 200 have been given up after {rounds} rounds");
        assert_eq!(healthy.await.unwrap().unwrap(), 7);
    }
}
