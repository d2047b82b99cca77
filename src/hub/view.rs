//! What a stream and its sessions are, as everybody may see them.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;

use super::figures::Figures;
use super::phase::Phase;
use super::shown::Shown;
use crate::media::Track;
use crate::name::{MediaSessionId, StreamName};

/// Who wants to publish what.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// The stream's name.
    pub name: StreamName,
    /// The publisher's media session.
    pub session: MediaSessionId,
    /// The application its hooks belong to.
    pub app_key: String,
    /// The connection it came by, as REST shows it.
    pub connection: String,
    /// Who its page says it is, for the names of recordings.
    pub login: Option<String>,
    /// WCS's word for the engine, for example `Flash` for RTMP.
    pub provider: &'static str,
    /// WCS's word for the kind of stream, for example `rtmp`.
    pub media_type: &'static str,
    /// `UDP` or `TCP`.
    pub transport: &'static str,
    /// Which of its tracks to record as soon as it is live; `None`: do not record it.
    pub record: Option<Recorded>,
    /// For the log: `rtmp pull of rtmp://…`.
    pub by: String,
}

/// Which tracks a recording takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// All.
    Everything,
    /// Sound only: what the source's SDP file asks for.
    SoundOnly,
}

/// Publisher or subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Feeds the stream.
    Publisher,
    /// Takes from it.
    Player,
}

/// One media session as REST shows it.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// Its id.
    pub id: MediaSessionId,
    /// Publisher or player.
    pub role: Role,
    /// WCS's status word.
    pub status: &'static str,
    /// The application.
    pub app_key: String,
    /// The connection.
    pub connection: String,
    /// Who a publisher's page says it is.
    pub login: Option<String>,
    /// WCS's word for the engine.
    pub provider: &'static str,
    /// WCS's word for the kind of stream.
    pub media_type: &'static str,
    /// `UDP` or `TCP`.
    pub transport: &'static str,
    /// When it began.
    pub since: SystemTime,
    /// What it counts by itself, beside what its stream counts.
    pub figures: Option<Figures>,
}

/// A stream as it is.
#[derive(Debug, Clone)]
pub struct StreamView {
    /// Its name.
    pub name: StreamName,
    /// Where it is in its life.
    pub phase: Phase,
    /// Its tracks; empty while unknown.
    pub tracks: Arc<[Track]>,
    /// What its publisher wants recorded.
    pub record: Option<Recorded>,
    /// The file a recorder writes now.
    pub record_name: Option<String>,
    /// The file of its last recording that is over.
    pub recorded: Option<String>,
    /// Its publisher has switched the sound off.
    pub audio_muted: bool,
    /// Its publisher has switched the picture off.
    pub video_muted: bool,
    /// What is transcoded for its subscribers now, for people: `mpeg4-generic to opus`.
    pub renditions: Vec<String>,
    /// The publishers on other servers it comes from, by their media sessions, the nearest first, where they are known.
    pub upstream: Arc<[String]>,
    /// Its publisher, then its players in the order they came.
    pub sessions: Vec<SessionView>,
    /// What its publisher has left with, once it has.
    pub farewell: Option<String>,
}

impl StreamView {
    /// One of its sessions as WCS shows it.
    pub fn shown(&self, id: &MediaSessionId) -> Option<Shown> {
        let session = self.sessions.iter().find(|session| session.id == *id)?;
        Some(Shown::of(self, session))
    }

    /// The publisher's session.
    pub fn publisher(&self) -> Option<&SessionView> {
        self.sessions.iter().find(|session| session.role == Role::Publisher)
    }
}

/// Something a publisher tells its subscribers: `audioMuted`, or `data` of its own.
#[derive(Debug, Clone)]
pub struct StreamSignal {
    /// WCS's word for it.
    pub kind: String,
    /// What it carries.
    pub payload: Value,
}

/// Who wants to take a stream.
#[derive(Debug, Clone)]
pub enum Subscriber {
    /// A recorder: not a media session of its own.
    Recorder,
    /// A player, shown as a media session.
    Player(Player),
}

/// A player of a stream.
#[derive(Debug, Clone)]
pub struct Player {
    /// Its media session.
    pub session: MediaSessionId,
    /// The application its hooks belong to.
    pub app_key: String,
    /// The connection it came by, as REST shows it.
    pub connection: String,
    /// WCS's word for the engine, for example `WebRTC`.
    pub provider: &'static str,
    /// `UDP` or `TCP`.
    pub transport: &'static str,
}

/// A publisher as it begins.
pub(super) fn publisher_view(publisher: &Publisher) -> SessionView {
    SessionView {
        id: publisher.session.clone(),
        role: Role::Publisher,
        status: Phase::Waiting.publisher_status(),
        app_key: publisher.app_key.clone(),
        connection: publisher.connection.clone(),
        login: publisher.login.clone(),
        provider: publisher.provider,
        media_type: publisher.media_type,
        transport: publisher.transport,
        since: SystemTime::now(),
        figures: None,
    }
}

/// A player as it begins.
pub(super) fn player_view(player: Player) -> SessionView {
    SessionView {
        id: player.session,
        role: Role::Player,
        status: "PENDING",
        app_key: player.app_key,
        connection: player.connection,
        login: None,
        provider: player.provider,
        media_type: "play",
        transport: player.transport,
        since: SystemTime::now(),
        figures: None,
    }
}

/// A stream as its publisher begins.
pub(super) fn first_view(publisher: &Publisher) -> StreamView {
    let session = publisher_view(publisher);
    StreamView {
        name: publisher.name.clone(),
        phase: Phase::Waiting,
        tracks: Arc::from([]),
        record: publisher.record,
        record_name: None,
        recorded: None,
        audio_muted: false,
        video_muted: false,
        renditions: Vec::new(),
        upstream: Arc::from([]),
        sessions: vec![session],
        farewell: None,
    }
}
