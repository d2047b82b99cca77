//! The border to GStreamer: outside this folder none of its types can be named.
//!
//! Across it go text ([`template`]), values ([`track`], events) and handles ([`Source`], [`Part`], [`Fanout`]).
//! A source's frames go `Source → Fanout → consumers`; a recording is one consumer ([`Feed`]) that fills one
//! [`Part`] after another. Protocols of weir's own push frames into an [`Ingest`] and take them from a [`Tap`].

mod announced;
mod bindings;
mod bus;
mod catalog;
mod defects;
mod encoded;
mod fanout;
mod flv_clock;
pub mod graph;
mod ingest;
mod live;
mod packages;
mod payloader;
mod peer;
mod pipeline;
mod pipelines;
mod recording;
mod rendition;
mod rtsp;
mod segment;
mod snapshot;
mod source;
mod tap;
mod template;
mod timeline;
mod track;

pub use bus::{BusEvent, Failure};
pub use catalog::{Catalog, CatalogError, Verdict};
pub use defects::{Defect, defects};
pub use encoded::{Format, Input, Output};
pub use fanout::{Fanout, ORIGIN, TrackFigures};
pub use ingest::Ingest;
pub use live::live_objects;
pub use payloader::Payloader;
pub use peer::{Agreed, Peer, PeerEvent, PeerOptions, Receive, Sending};
pub(crate) use peer::{CLOCK_BEGINS, CLOCK_LINES, HANDSHAKE_REPEATS, MAX_REPEATED, is_handshake};
pub use pipeline::MediaError;
pub use pipelines::{ElementView, PipelineDetails, PipelineView, Pipelines};
pub use recording::{Beginning, CutRule, Feed, FeedEvent, Part, PartEvent, Rest};
pub use rendition::Rendition;
pub use rtsp::RtspTrust;
pub use snapshot::snapshot;
pub use source::{Accept, Source, SourceEvent, SourceRules};
pub use tap::{Tap, Tapped};
pub use template::{Filling, Launch, Template, TemplateError};
pub use track::{Codec, Kind, Track};

/// Loads GStreamer. Must come first; does nothing the second time.
///
/// # Errors
/// GStreamer's reason when it cannot start.
pub fn init() -> Result<(), String> {
    gstreamer::init().map_err(|error| error.to_string())
}

/// GStreamer's version, for example `GStreamer 1.22.0`.
pub fn version() -> String {
    gstreamer::version_string().to_string()
}
