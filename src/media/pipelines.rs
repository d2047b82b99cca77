//! The list of running pipelines, as REST shows it: line, shell command, state, caps, properties, graph.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use gstreamer as gst;
use gstreamer::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::graph;
use super::pipeline::{MediaError, blocking};
use super::template::Launch;
use crate::name::{StreamName, mask};

/// A cheap handle on the list. Readers never wait for a pipeline's owner.
#[derive(Clone, Default)]
pub struct Pipelines(Arc<List>);

#[derive(Default)]
struct List {
    entries: ArcSwap<BTreeMap<String, Arc<Entry>>>,
    counter: AtomicU64,
}

pub(super) struct Entry {
    pub(super) id: String,
    pub(super) launch: Launch,
    /// The numbers of the branches that are in the graph by now.
    pub(super) attached: ArcSwap<BTreeSet<usize>>,
    pub(super) stream: StreamName,
    pub(super) since: SystemTime,
    pub(super) pipeline: gst::glib::WeakRef<gst::Pipeline>,
}

/// A pipeline as the list shows it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PipelineView {
    /// Its id: the template's name and a number.
    pub id: String,
    /// The template its line was made from.
    pub template: String,
    /// The line that was parsed, secrets masked.
    pub line: String,
    /// A `gst-launch-1.0` command for a shell, secrets masked.
    pub shell: String,
    /// GStreamer's state: NULL, READY, PAUSED, PLAYING.
    pub state: &'static str,
    /// When it was built, epoch milliseconds.
    pub since: u64,
    /// The stream it works for.
    pub stream: String,
}

/// A pipeline with what is negotiated inside.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PipelineDetails {
    /// What the list shows.
    #[serde(flatten)]
    pub view: PipelineView,
    /// Its elements, sources first.
    pub elements: Vec<ElementView>,
}

/// An element of a pipeline.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ElementView {
    /// Its name.
    pub name: String,
    /// Its factory.
    pub factory: String,
    /// Its state.
    pub state: &'static str,
    /// The caps of each pad that has some.
    pub caps: BTreeMap<String, String>,
    /// Properties that differ from their defaults, secrets masked.
    pub properties: BTreeMap<String, String>,
}

impl Pipelines {
    pub(super) fn next_id(&self, template: &str) -> String {
        format!("{template}-{}", self.0.counter.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(super) fn insert(&self, entry: Arc<Entry>) {
        self.0.entries.rcu(|entries| {
            let mut entries = BTreeMap::clone(entries);
            entries.insert(entry.id.clone(), entry.clone());
            entries
        });
    }

    pub(super) fn remove(&self, id: &str) {
        self.0.entries.rcu(|entries| {
            let mut entries = BTreeMap::clone(entries);
            entries.remove(id);
            entries
        });
    }

    /// Every running pipeline.
    pub fn list(&self) -> Vec<PipelineView> {
        self.0.entries.load().values().map(|entry| entry.view()).collect()
    }

    /// The pipelines of one stream.
    pub fn of_stream(&self, stream: &StreamName) -> Vec<PipelineView> {
        let entries = self.0.entries.load();
        entries.values().filter(|entry| entry.stream == *stream).map(|entry| entry.view()).collect()
    }

    /// One pipeline with caps and properties; `None` when there is none of that id.
    ///
    /// # Errors
    /// [`MediaError::Deadline`] when an element does not answer.
    pub async fn details(&self, id: &str) -> Result<Option<PipelineDetails>, MediaError> {
        self.inspect(id, |entry, pipeline| PipelineDetails { view: entry.view(), elements: elements(pipeline) }).await
    }

    /// The graph in Graphviz's language, secrets masked; `None` when there is none of that id.
    ///
    /// # Errors
    /// [`MediaError::Deadline`] when an element does not answer.
    pub async fn dot(&self, id: &str) -> Result<Option<String>, MediaError> {
        self.inspect(id, |_, pipeline| graph::masked(&pipeline.debug_to_dot_data(gst::DebugGraphDetails::all()))).await
    }

    async fn inspect<T: Send + 'static>(
        &self,
        id: &str,
        look: impl FnOnce(&Entry, &gst::Pipeline) -> T + Send + 'static,
    ) -> Result<Option<T>, MediaError> {
        let Some(entry) = self.0.entries.load().get(id).cloned() else {
            return Ok(None);
        };
        let template = entry.launch.template.clone();
        blocking(&template, "looking into it", move || {
            let pipeline = entry.pipeline.upgrade()?;
            Some(look(&entry, &pipeline))
        })
        .await
    }
}

impl Entry {
    fn view(&self) -> PipelineView {
        let attached = self.attached.load();
        let state = self.pipeline.upgrade().map(|p| p.current_state()).unwrap_or(gst::State::Null);
        PipelineView {
            id: self.id.clone(),
            template: self.launch.template.clone(),
            line: self.launch.shown(|branch| attached.contains(&branch)),
            shell: self.launch.shell(|branch| attached.contains(&branch)),
            state: state_name(state),
            since: crate::event::epoch_ms(self.since),
            stream: self.stream.to_string(),
        }
    }
}

fn state_name(state: gst::State) -> &'static str {
    match state {
        gst::State::Ready => "READY",
        gst::State::Paused => "PAUSED",
        gst::State::Playing => "PLAYING",
        _ => "NULL",
    }
}

fn elements(pipeline: &gst::Pipeline) -> Vec<ElementView> {
    let mut views: Vec<ElementView> = pipeline
        .iterate_recurse()
        .into_iter()
        .flatten()
        .filter(|element| !element.is::<gst::Bin>())
        .map(|element| element_view(&element))
        .collect();
    // GStreamer lists sinks first; people read from the source.
    views.reverse();
    views
}

fn element_view(element: &gst::Element) -> ElementView {
    let caps = element.pads().into_iter().filter_map(|pad| {
        let caps = pad.current_caps()?;
        Some((pad.name().to_string(), caps.to_string()))
    });
    ElementView {
        name: element.name().to_string(),
        factory: element.factory().map(|f| f.name().to_string()).unwrap_or_default(),
        state: state_name(element.current_state()),
        caps: caps.collect(),
        properties: properties(element),
    }
}

fn properties(element: &gst::Element) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    for spec in element.list_properties() {
        let plain = spec.flags().contains(gst::glib::ParamFlags::READABLE)
            && !matches!(spec.name(), "name" | "parent" | "last-sample");
        if !plain {
            continue;
        }
        let value = element.property_value(spec.name());
        if value.type_().is_a(gst::glib::Type::OBJECT) || value.type_().is_a(gst::glib::Type::POINTER) {
            continue;
        }
        let Some(now) = serialized(&value) else { continue };
        if serialized(spec.default_value()).is_some_and(|default| default == now) {
            continue;
        }
        let shown = if crate::name::is_secret(spec.name()) { "***".into() } else { mask(&now) };
        properties.insert(spec.name().to_owned(), shown);
    }
    properties
}

/// A text as it is, any other value as GStreamer writes it; `None` for what it cannot write.
///
/// What may be nothing is asked first: GStreamer's writers of these types end the program (a critical) on nothing.
fn serialized(value: &gst::glib::Value) -> Option<String> {
    if let Ok(text) = value.get::<Option<String>>() {
        return Some(text.unwrap_or_default());
    }
    if let Ok(structure) = value.get::<Option<gst::Structure>>() {
        return structure.map(|structure| structure.to_string());
    }
    if let Ok(caps) = value.get::<Option<gst::Caps>>() {
        return caps.map(|caps| caps.to_string());
    }
    if let Ok(tags) = value.get::<Option<gst::TagList>>() {
        return tags.map(|tags| tags.to_string());
    }
    value.serialize().ok().map(|text| text.to_string())
}
