//! `GET /metrics`: the figures of the server in Prometheus' text format (OpenMetrics 1.0), without authentication's needs
//! of a page and with few series: labels are words of ours, and only streams that the query names (`?stream=a&stream=b`)
//! get series of their own.
//!
//! What is, is read from the snapshots when somebody asks; what happened comes from the [`crate::meter::Meter`] and the
//! [`ledger`].

pub mod ledger;
mod process;
mod snapshot;

use std::fmt::Error;

use bytes::Bytes;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::Api;
use super::answer::Answer;
use super::error::ApiError;
use super::request::Request;
use ledger::ENGINES;
pub use ledger::Ledger;
pub use process::Process;
pub use snapshot::{Snapshot, StreamFigures};

/// What Prometheus asks for, and takes where it does not.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `/metrics`.
pub async fn metrics(api: &Api, request: &Request) -> Result<Answer, ApiError> {
    let snapshot = snapshot(api, &request.values("stream")?).await?;
    let mut registry = Registry::default();
    api.meter.show(&mut registry);
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .map_err(|error| ApiError::ours(error.to_string()))?;
    Ok(Answer::Data(CONTENT_TYPE, Bytes::from(text)))
}

/// The figures now, those of `streams` apart. The system is asked on a thread that may wait.
pub async fn snapshot(api: &Api, streams: &[String]) -> Result<Snapshot, ApiError> {
    let process =
        tokio::task::spawn_blocking(Process::read).await.map_err(|error| ApiError::ours(error.to_string()))?;
    Ok(Snapshot::of(api, process, streams))
}

/// One series: its labels and its value. A metric has one series without labels, or those with them.
type Row<'a> = (Vec<(&'static str, &'a str)>, f64);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        self.things(&mut encoder)?;
        self.totals(&mut encoder)?;
        self.hooks(&mut encoder)?;
        self.streams(&mut encoder)?;
        self.process(&mut encoder)
    }
}

impl Snapshot {
    fn things(&self, to: &mut DescriptorEncoder) -> Result<(), Error> {
        let version = vec![("version", env!("CARGO_PKG_VERSION")), ("gstreamer", self.gstreamer.as_str())];
        gauge(to, "weir_build_info", "Versions", [(version, 1.0)])?;
        let streams = self.streams.iter().map(|((engine, kind, state), count)| {
            (vec![("engine", *engine), ("kind", *kind), ("state", *state)], *count as f64)
        });
        gauge(to, "weir_streams", "Streams, by their publisher's engine and kind, and their state", streams)?;
        gauge(to, "weir_viewers", "Players, by their engine", labelled("engine", &self.viewers))?;
        gauge(to, "weir_pull_agents", "Pull agents, by their state", labelled("state", &self.agents))?;
        gauge(to, "weir_connections", "Browsers' WebSockets", plain(self.connections as f64))?;
        gauge(to, "weir_recorders", "Recordings that are written", plain(self.recorders as f64))?;
        gauge(to, "weir_transcodes", "Renditions that are made", plain(self.transcodes as f64))?;
        gauge(to, "weir_pipelines", "Running pipelines, by their template", labelled("template", &self.pipelines))?;
        let help = "Streams with players that lost something within two seconds";
        gauge(to, "weir_degraded_streams", help, plain(self.degraded as f64))
    }

    fn totals(&self, to: &mut DescriptorEncoder) -> Result<(), Error> {
        let kinds = ["video", "audio"];
        let received = |figure: fn(&crate::media::TrackFigures) -> u64| {
            let rows = kinds.iter().zip(&self.totals.received);
            rows.map(move |(kind, figures)| (vec![("media", *kind)], figure(figures) as f64))
        };
        counter(to, "weir_received_frames", "Frames that came in", received(|figures| figures.frames))?;
        counter(to, "weir_received_keyframes", "Keyframes that came in", received(|figures| figures.keyframes))?;
        counter(to, "weir_received_bytes", "Payload bytes that came in", received(|figures| figures.bytes))?;
        let engines = |figures: [u64; 3]| {
            ENGINES.into_iter().zip(figures).map(|(engine, n)| (vec![("engine", engine)], n as f64))
        };
        counter(to, "weir_sent_bytes", "Bytes sent to players", engines(self.totals.sent))?;
        let help = "Frames or packets that players lost here because they could not keep up";
        counter(to, "weir_dropped", help, engines(self.totals.dropped))
    }

    fn hooks(&self, to: &mut DescriptorEncoder) -> Result<(), Error> {
        let hooks = &self.hooks;
        gauge(to, "weir_hook_waiting", "Events that wait for their hook server", plain(hooks.waiting as f64))?;
        for (name, help, value) in [
            ("weir_hook_dropped", "Events for hook servers that were given up", hooks.dropped),
            ("weir_hook_beats", "Keep-alive questions", hooks.beats),
            ("weir_hook_beats_missed", "Keep-alive questions that were left out", hooks.beats_missed),
            ("weir_hook_beats_ended", "Streams that a keep-alive has ended", hooks.beats_ended),
        ] {
            counter(to, name, help, plain(value as f64))?;
        }
        Ok(())
    }

    fn streams(&self, to: &mut DescriptorEncoder) -> Result<(), Error> {
        if self.chosen.is_empty() {
            return Ok(());
        }
        let each = |figure: fn(&StreamFigures) -> f64| {
            self.chosen.iter().map(move |stream| (vec![("stream", stream.name.as_str())], figure(stream)))
        };
        gauge(to, "weir_stream_live", "Whether media flows", each(|stream| f64::from(u8::from(stream.live))))?;
        gauge(to, "weir_stream_viewers", "Players of the stream", each(|stream| stream.viewers as f64))?;
        let tracks = |figure: fn(&crate::media::TrackFigures) -> u64| {
            self.chosen.iter().flat_map(move |stream| {
                let rows = ["video", "audio"].into_iter().zip(&stream.received);
                let name = stream.name.as_str();
                rows.map(move |(media, figures)| (vec![("stream", name), ("media", media)], figure(figures) as f64))
            })
        };
        counter(to, "weir_stream_received_frames", "Frames that came in", tracks(|figures| figures.frames))?;
        counter(to, "weir_stream_received_bytes", "Payload bytes that came in", tracks(|figures| figures.bytes))?;
        gauge(to, "weir_stream_sent_bytes", "Bytes sent to its present players", each(|stream| stream.sent as f64))?;
        gauge(to, "weir_stream_dropped", "What its present players lost here", each(|stream| stream.dropped as f64))
    }

    fn process(&self, to: &mut DescriptorEncoder) -> Result<(), Error> {
        let process = &self.process;
        counter(to, "process_cpu_seconds", "CPU time, user and system", plain(process.cpu_seconds))?;
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Memory in use", process.resident as f64),
            ("process_virtual_memory_bytes", "Address space", process.virtual_size as f64),
            ("process_threads", "Threads", process.threads as f64),
            ("process_open_fds", "Open descriptors", process.descriptors as f64),
            ("process_max_fds", "Most descriptors there may be, 0 for no limit", process.max_descriptors as f64),
            ("process_start_time_seconds", "When it was started, seconds since 1970", process.started),
        ] {
            gauge(to, name, help, plain(value))?;
        }
        Ok(())
    }
}

fn plain(value: f64) -> [Row<'static>; 1] {
    [(Vec::new(), value)]
}

fn labelled<'a>(
    label: &'static str,
    counts: &'a std::collections::BTreeMap<String, u64>,
) -> impl Iterator<Item = Row<'a>> {
    counts.iter().map(move |(value, count)| (vec![(label, value.as_str())], *count as f64))
}

fn gauge<'a>(
    to: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = Row<'a>>,
) -> Result<(), Error> {
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in rows {
        if labels.is_empty() {
            return ConstGauge::new(value).encode(metric);
        }
        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

/// The encoder adds `_total` to the name.
fn counter<'a>(
    to: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = Row<'a>>,
) -> Result<(), Error> {
    let mut metric = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in rows {
        if labels.is_empty() {
            return ConstCounter::new(value).encode(metric);
        }
        ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}
