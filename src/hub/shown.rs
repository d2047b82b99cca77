//! A media session as WCS shows it, over REST and in hooks: the `Stream` object of wcs.md 1.4. Pure.

use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Role, SessionView, StreamView};
use crate::event::epoch_ms;
use crate::media::{Kind, Track};

/// The `Stream` object. A field with nothing behind it has the value WCS shows in that case.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Stream")]
pub struct Shown {
    /// The application.
    pub app_key: String,
    /// The connection.
    pub session_id: String,
    /// The media session.
    pub media_session_id: String,
    /// The stream's name as it is; mask it where it is shown to anybody.
    pub name: String,
    /// Publisher, not player.
    pub published: bool,
    has_video: bool,
    has_audio: bool,
    /// WCS's word.
    pub status: &'static str,
    sdp: &'static str,
    audio_codec: Option<String>,
    video_codec: Option<String>,
    record: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_name: Option<String>,
    width: u32,
    height: u32,
    bitrate: u32,
    min_bitrate: u32,
    max_bitrate: u32,
    quality: u32,
    history: bool,
    gop: u32,
    fps: u32,
    audio_bitrate: u32,
    codec_impl: &'static str,
    transport: &'static str,
    cvo_extension: bool,
    create_date: u64,
    media_type: &'static str,
    media_provider: &'static str,
    audio_state: Muted,
    video_state: Muted,
    renditions: Vec<String>,
    /// What it counts, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Map<String, Value>>,
}

/// Whether a status is the last of its media session.
pub fn is_last_word(status: &str) -> bool {
    matches!(status, "UNPUBLISHED" | "STOPPED" | "FAILED")
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Muted {
    muted: bool,
}

impl Shown {
    /// One session of a stream.
    pub fn of(view: &StreamView, session: &SessionView) -> Self {
        let track = |kind| view.tracks.iter().find(|track| track.kind == kind);
        let (video, audio) = (track(Kind::Video), track(Kind::Audio));
        let published = session.role == Role::Publisher;
        Self {
            app_key: session.app_key.clone(),
            session_id: session.connection.clone(),
            media_session_id: session.id.to_string(),
            name: view.name.as_str().to_owned(),
            published,
            has_video: video.is_some(),
            has_audio: audio.is_some(),
            status: session.status,
            sdp: "",
            audio_codec: audio.map(Track::wcs_codec),
            video_codec: video.map(Track::wcs_codec),
            record: published && (view.record.is_some() || view.record_name.is_some()),
            record_name: view.record_name.clone().filter(|_| published),
            width: video.map_or(0, |track| track.width),
            height: video.map_or(0, |track| track.height),
            bitrate: 0,
            min_bitrate: 0,
            max_bitrate: 0,
            quality: 0,
            history: false,
            gop: 0,
            fps: 0,
            audio_bitrate: 0,
            codec_impl: "",
            transport: session.transport,
            cvo_extension: false,
            create_date: epoch_ms(session.since),
            media_type: session.media_type,
            media_provider: session.provider,
            audio_state: Muted { muted: view.audio_muted },
            video_state: Muted { muted: view.video_muted },
            renditions: view.renditions.clone(),
            metrics: None,
        }
    }

    /// All of its fields.
    pub fn fields(self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields,
            // Numbers and texts cannot fail to be JSON.
            _ => Map::new(),
        }
    }

    /// The fields of a session that somebody wants to begin: what is said of it goes over them.
    pub fn wanted(published: bool) -> Map<String, Value> {
        let fields = json!({
            "published": published,
            "status": "PENDING",
            "record": false,
            "width": 0,
            "height": 0,
            "bitrate": 0,
            "minBitrate": 0,
            "maxBitrate": 0,
            "quality": 0,
            "history": false,
            "gop": 0,
            "fps": 0,
            "audioBitrate": 0,
            "codecImpl": "",
            "transport": "UDP",
            "cvoExtension": false,
            "createDate": epoch_ms(SystemTime::now()),
            "mediaType": if published { "publish" } else { "play" },
            "audioState": {"muted": false},
            "videoState": {"muted": false},
            "mediaProvider": "WebRTC",
        });
        fields.as_object().cloned().unwrap_or_default()
    }
}
