//! A pipeline's messages, taken off its bus the moment they are posted.
//!
//! Nothing ever stays on a bus: the handler runs in the posting thread, sends what weir reads and drops the message.
//! (An unread bus keeps what its messages refer to: threads and descriptors of elements that are gone.)

use gstreamer as gst;
use gstreamer::prelude::*;
use tokio::sync::mpsc::UnboundedSender;

use crate::name::mask;

/// What a pipeline said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusEvent {
    /// It failed. Texts are masked.
    Error(Failure),
    /// Every sink has seen the end of its stream.
    Eos,
}

/// An element's failure, with secrets masked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{element}: {message}")]
pub struct Failure {
    /// The element's name.
    pub element: String,
    /// The element's factory, for example `rtmp2src`.
    pub factory: String,
    /// The sentence.
    pub message: String,
    /// Where in GStreamer, for the log.
    pub debug: String,
    /// The file system is full.
    pub no_space: bool,
    /// The remote side says that what was asked for does not exist or may not be had.
    pub refused: bool,
    /// The remote side says that what was asked for does not exist.
    pub not_found: bool,
    /// The element does not know the reason itself.
    pub unexplained: bool,
}

impl Failure {
    /// One that weir itself has a sentence for.
    pub(super) fn of(element: &str, factory: &str, message: &str) -> Self {
        Self {
            element: element.to_owned(),
            factory: factory.to_owned(),
            message: message.to_owned(),
            debug: String::new(),
            no_space: false,
            refused: false,
            not_found: false,
            unexplained: false,
        }
    }
}

/// Reads every message of `pipeline` from now on into `events`.
pub(super) fn listen(pipeline: &gst::Pipeline, events: UnboundedSender<BusEvent>) {
    let Some(bus) = pipeline.bus() else { return };
    bus.set_sync_handler(move |_, message| {
        use gst::MessageView::{Eos, Error};
        // A receiver that is gone reads no more: its pipeline is being torn down.
        let _ = match message.view() {
            Eos(_) => events.send(BusEvent::Eos),
            Error(error) => {
                close_refused(error);
                events.send(BusEvent::Error(failure(error)))
            }
            _ => Ok(()),
        };
        gst::BusSyncReply::Drop
    });
}

/// Closes the connection of an rtmp2src that was refused, which the element (1.22 to 1.28) forgets: the GLib source that
/// reads it holds it, and would for ever. The element posts its error from within that very source, so that it can be
/// ended here; the element's loop is at its end then.
fn close_refused(error: &gst::message::Error) {
    let element = error.src().and_then(|source| source.downcast_ref::<gst::Element>());
    if element.and_then(|element| element.factory()).is_some_and(|factory| factory.name() == "rtmp2src")
        && let Some(reading) = gst::glib::main_current_source()
    {
        reading.destroy();
    }
}

fn failure(error: &gst::message::Error) -> Failure {
    let source = error.src();
    let factory = source.and_then(|s| s.downcast_ref::<gst::Element>()).and_then(|e| e.factory());
    let cause = error.error();
    let debug = mask(&error.debug().unwrap_or_default());
    let resource = cause.kind::<gst::ResourceError>();
    Failure {
        element: source.map(|s| s.name().to_string()).unwrap_or_default(),
        factory: factory.map(|f| f.name().to_string()).unwrap_or_default(),
        message: sentence(&mask(cause.message()), &debug),
        no_space: resource == Some(gst::ResourceError::NoSpaceLeft),
        refused: matches!(resource, Some(gst::ResourceError::NotFound | gst::ResourceError::NotAuthorized)),
        // What rtspsrc (1.22) says of everything between a name that is not known and a connection that is refused.
        unexplained: debug.contains("(Generic error)"),
        not_found: resource == Some(gst::ResourceError::NotFound),
        debug,
    }
}

/// GStreamer's own sentence is often "Could not open resource for reading." with the cause in the debug text, after
/// the line that names the source file. A person needs the cause.
fn sentence(message: &str, debug: &str) -> String {
    let cause = debug.split_once(":\n").map(|(_, cause)| cause.trim()).unwrap_or("");
    let vague =
        ["Could not", "Internal data", "Failed to", "Error while"].iter().any(|start| message.starts_with(start));
    if vague && !cause.is_empty() && !cause.contains(message) {
        format!("{} ({})", message.trim_end_matches('.'), cause.replace('\n', " "))
    } else {
        message.to_owned()
    }
}
