//! The figures of one moment, read from the snapshots of every part.

use std::collections::BTreeMap;

use super::super::Api;
use super::Process;
use super::ledger::{self, Totals};
use crate::hook::Counts;
use crate::hub::{Phase, Role, StreamHandle, StreamView};
use crate::media::{self, Kind, TrackFigures};
use crate::pull::{AgentStatus, Scheme};

/// The figures of one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// GStreamer's version.
    pub gstreamer: String,
    /// Streams by the publisher's engine and kind, in WCS's words, and by state.
    pub streams: BTreeMap<(&'static str, &'static str, &'static str), u64>,
    /// Players by engine.
    pub viewers: BTreeMap<String, u64>,
    /// Pull agents by state.
    pub agents: BTreeMap<String, u64>,
    /// Those of them that dial another weir or WCS.
    pub wcs_agents: u64,
    /// Browsers' WebSockets.
    pub connections: u64,
    /// Recordings that are written.
    pub recorders: u64,
    /// Renditions that are made.
    pub transcodes: u64,
    /// What hook servers were called for, of all applications together.
    pub hooks: Counts,
    /// Pipelines by template.
    pub pipelines: BTreeMap<String, u64>,
    /// Streams with players that lost something just now.
    pub degraded: u64,
    /// What came in and went out since the start.
    pub totals: Totals,
    /// The streams that were asked for by name.
    pub chosen: Vec<StreamFigures>,
    /// What the system says.
    pub process: Process,
}

/// The figures of one stream.
#[derive(Debug)]
pub struct StreamFigures {
    /// Its name, secrets masked.
    pub name: String,
    /// Media flows.
    pub live: bool,
    /// Players.
    pub viewers: usize,
    /// What came in, video and sound.
    pub received: [TrackFigures; 2],
    /// Bytes sent to its present players.
    pub sent: u64,
    /// What its present players lost.
    pub dropped: u64,
}

impl Snapshot {
    /// Reads everything but what the system says. `chosen` names the streams that are shown one by one.
    pub(super) fn of(api: &Api, process: Process, chosen: &[String]) -> Self {
        let streams = api.hub.streams();
        let mut snapshot = Self {
            gstreamer: media::version(),
            streams: BTreeMap::new(),
            viewers: ledger::ENGINES.map(|engine| (engine.to_owned(), 0)).into(),
            agents: BTreeMap::new(),
            wcs_agents: 0,
            connections: api.connections.list().len() as u64,
            recorders: 0,
            transcodes: 0,
            hooks: Counts::default(),
            pipelines: BTreeMap::new(),
            degraded: api.ledger.degraded() as u64,
            totals: api.ledger.totals(&streams),
            chosen: Vec::new(),
            process,
        };
        for (name, handle) in streams.iter() {
            let view = handle.view();
            snapshot.stream(&view);
            if chosen.iter().any(|chosen| chosen == name.as_str() || *chosen == name.to_string()) {
                snapshot.chosen.push(StreamFigures::of(handle, &view));
            }
        }
        for counts in api.hooks.counts().values() {
            snapshot.hooks.add(counts);
        }
        for agent in api.pulls.all() {
            snapshot.wcs_agents += u64::from(agent.scheme() == Scheme::Wcs);
            *snapshot.agents.entry(state_of(agent.view().status).to_owned()).or_insert(0) += 1;
        }
        for pipeline in api.pipelines.list() {
            *snapshot.pipelines.entry(pipeline.template).or_insert(0) += 1;
        }
        snapshot
    }

    fn stream(&mut self, view: &StreamView) {
        let state = match view.phase {
            Phase::Waiting => "waiting",
            Phase::Live => "live",
            Phase::Interrupted => "interrupted",
        };
        if let Some(publisher) = view.publisher() {
            *self.streams.entry((publisher.provider, publisher.media_type, state)).or_insert(0) += 1;
        }
        for player in view.sessions.iter().filter(|session| session.role == Role::Player) {
            let engine = ledger::ENGINES[ledger::engine(player.provider)];
            *self.viewers.entry(engine.to_owned()).or_insert(0) += 1;
        }
        self.recorders += u64::from(view.record_name.is_some());
        self.transcodes += view.renditions.len() as u64;
    }

    /// How many streams have publishers of this engine and kind.
    pub fn publishers(&self, engine: &str, kind: &str) -> u64 {
        let fits = |key: &(&str, &str, &str)| key.0 == engine && key.1 == kind;
        self.streams.iter().filter(|(key, _)| fits(key)).map(|(_, count)| count).sum()
    }
}

impl Snapshot {
    /// How many streams have publishers of this kind.
    pub fn of_kind(&self, kind: &str) -> u64 {
        self.streams.iter().filter(|(key, _)| key.1 == kind).map(|(_, count)| count).sum()
    }
}

impl StreamFigures {
    fn of(handle: &StreamHandle, view: &StreamView) -> Self {
        let players = || view.sessions.iter().filter(|session| session.role == Role::Player);
        let sum = |figure: fn(&crate::hub::Figures) -> u64| {
            players().filter_map(|player| player.figures.as_ref()).map(figure).sum()
        };
        Self {
            name: view.name.to_string(),
            live: view.phase == Phase::Live,
            viewers: players().count(),
            received: [Kind::Video, Kind::Audio].map(|kind| handle.fanout().figures(kind)),
            sent: sum(ledger::sent),
            dropped: sum(ledger::dropped),
        }
    }
}

fn state_of(status: AgentStatus) -> &'static str {
    match status {
        AgentStatus::New => "new",
        AgentStatus::ProcessedLocal => "processed_local",
        AgentStatus::ProcessedRemote => "processed_remote",
        AgentStatus::Reconnecting => "reconnecting",
        AgentStatus::Failed => "failed",
    }
}
