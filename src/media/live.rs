//! What GStreamer objects are alive, where its leaks tracer counts them (`GST_TRACERS=leaks`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;

/// What the plugin dtls makes once for the process, with its first element, and keeps (gstdtlsdec.c,
/// `generated_cert_agent`).
const KEPT: &str = "GstDtlsAgent /GstDtlsAgent:dtlsagent0";
/// How often is looked.
const LOOK: Duration = Duration::from_millis(50);

/// Objects that are alive, by their types and, for elements and pads, names; waits up to `limit` for the last of them to
/// go. `None` where nobody counts.
pub fn live_objects(limit: Duration) -> Option<BTreeMap<String, usize>> {
    let tracer = gst::active_tracers().into_iter().find(|tracer| tracer.type_().name() == "GstLeaksTracer")?;
    let until = Instant::now() + limit;
    loop {
        let list = tracer.emit_by_name::<gst::Structure>("get-live-objects", &[]);
        let alive = count(&list);
        // The tracer (1.22) puts its objects into the list without a reference for it; freeing it would take theirs.
        std::mem::forget(list);
        if alive.is_empty() || Instant::now() >= until {
            return Some(alive);
        }
        std::thread::sleep(LOOK);
    }
}

/// The tracer's list has a structure for each object.
fn count(list: &gst::Structure) -> BTreeMap<String, usize> {
    let mut alive = BTreeMap::new();
    let objects = list.get::<gst::List>("live-objects-list");
    for object in objects.iter().flat_map(|list| list.iter()) {
        let Ok(about) = object.get::<gst::Structure>() else { continue };
        if let Some(what) = shown(&about).filter(|what| what != KEPT) {
            *alive.entry(what).or_default() += 1;
        }
    }
    alive
}

/// `None` for what GStreamer's registry keeps for the life of the process.
fn shown(about: &gst::Structure) -> Option<String> {
    let value = about.value("object").ok()?;
    match value.get::<gst::Object>() {
        Ok(object) if object.is::<gst::PluginFeature>() || object.is::<gst::Plugin>() => None,
        Ok(object) => Some(format!("{} {}", object.type_().name(), object.path_string())),
        Err(_) => Some(value.type_().name().to_owned()),
    }
}
