//! One stream's packets for all its viewers: a payloader into the relay, and a rendition before it where browsers do not
//! play the stream's pictures.
//!
//! ```text
//! stream's fan-out ──┬─ pictures ──► (rendition) ──► payloader ──► relay
//!                    └─ sound ─────────────────────►
//! ```
//!
//! What is carried is decided by the tracks, and anew when they change: a stream may begin without B-frames, and a source
//! that comes back may have another encoder. The relay's stream stays, so viewers see it go on with a keyframe.

use std::num::NonZero;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::play::Tools;
use super::relay::{AudioCodec, RelayStream, RtpPacket, StreamConfig, Tracks, VideoCodec};
use crate::hub::{StreamHandle, StreamView};
use crate::media::{Codec, Failure, Fanout, Filling, Kind, MediaError, Payloader, Rendition, Track};

/// The transcodes in the order of preference; the first whose elements are installed is taken.
const TRANSCODES: [&str; 2] = ["transcode-x264", "transcode-openh264"];
/// `profile-level-id` of what they give: constrained baseline.
const TRANSCODED: u32 = 0x42_e01f;
/// The pause before what failed is started again.
const AGAIN: Duration = Duration::from_secs(1);

/// One stream's packets on their way into the relay.
pub(super) struct Feed {
    /// What viewers join.
    pub(super) stream: Arc<RelayStream>,
    /// Ends the task that owns the pipelines.
    _alive: DropGuard,
}

impl Feed {
    /// Starts one for the tracks of `view`.
    pub(super) async fn start(
        tools: &Tools,
        handle: &StreamHandle,
        view: &StreamView,
        tasks: &TaskTracker,
    ) -> Result<Self, String> {
        let pictures = Arc::new(ArcSwap::from_pointee(handle.fanout().clone()));
        let wishes = pictures.clone();
        let stream = Arc::new(tools.relay.stream(StreamConfig {
            name: view.name.to_string(),
            tracks: tracks(&view.tracks),
            on_keyframe_request: Some(Box::new(move || wishes.load().request_keyframe())),
        }));
        let keeper = Keeper { tools: tools.clone(), handle: handle.clone(), relay: Arc::downgrade(&stream), pictures };
        let carried = keeper.carry(view).await?;
        let alive = CancellationToken::new();
        tasks.spawn(keeper.run(carried, alive.clone()));
        Ok(Self { stream, _alive: alive.drop_guard() })
    }
}

/// What runs for a stream's viewers.
struct Carried {
    payloader: Payloader,
    rendition: Option<Rendition>,
    wanted: Wanted,
    /// What is transcoded, for people.
    transcodes: Vec<String>,
}

/// What of the tracks decides how pictures are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// As they come.
    Original,
    /// Encoded anew, in this size.
    Transcode(u32, u32),
}

impl Wanted {
    fn of(tracks: &[Track]) -> Self {
        let foreign = |track: &&Track| track.kind == Kind::Video && (track.b_frames || track.codec == Codec::H265);
        match tracks.iter().find(foreign) {
            Some(track) => Self::Transcode(track.width, track.height),
            None => Self::Original,
        }
    }
}

/// Owns what is carried, until its feed is dropped.
struct Keeper {
    tools: Tools,
    handle: StreamHandle,
    relay: Weak<RelayStream>,
    /// Where pictures come from: whom to ask for a keyframe.
    pictures: Arc<ArcSwap<Fanout>>,
}

impl Keeper {
    async fn run(self, mut carried: Carried, alive: CancellationToken) {
        let mut view = self.handle.watch();
        loop {
            let wanted = carried.wanted;
            tokio::select! {
                () = alive.cancelled() => break,
                failure = carried.failed() => {
                    tracing::warn!(stream = %self.name(), "what viewers get has failed: {failure}");
                    sleep(AGAIN).await;
                }
                other = others(&mut view, wanted) => if !other {
                    // The stream has ended; its viewers are about to.
                    alive.cancelled().await;
                    break;
                },
            }
            let now = view.borrow().clone();
            self.done(carried);
            carried = loop {
                match self.carry(&now).await {
                    Ok(carried) => break carried,
                    Err(error) => tracing::warn!(stream = %self.name(), "viewers cannot be served: {error}"),
                }
                tokio::select! {
                    () = alive.cancelled() => return,
                    () = sleep(AGAIN) => {}
                }
            };
        }
        self.done(carried);
    }

    fn name(&self) -> String {
        self.handle.view().name.to_string()
    }

    async fn carry(&self, view: &StreamView) -> Result<Carried, String> {
        let wanted = Wanted::of(&view.tracks);
        let playable: Vec<&Track> = view.tracks.iter().filter(|track| playable(&track.codec)).collect();
        let rendition = match wanted {
            Wanted::Original => None,
            Wanted::Transcode(width, height) => Some(self.transcode(view, most_bits(width, height)).await?),
        };
        let own = self.handle.fanout();
        let pictures = rendition.as_ref().map_or(own, Rendition::fanout);
        let launch = self.tools.catalog.launch("play-webrtc", |filling| {
            playable.iter().fold(filling, |filling, track| filling.track_in(track.kind, given(track, wanted)))
        });
        let launch = launch.map_err(|error| error.to_string())?;
        let relay = self.relay.clone();
        let deliver = move |kind, packets: Vec<RtpPacket>| {
            if let Some(relay) = relay.upgrade() {
                relay.push_list(kind, packets);
            }
        };
        let fanouts = (pictures, own);
        // The payloader begins with pictures of the past.
        if let Some((relay, latest)) = self.relay.upgrade().zip(NonZero::new(own.latest())) {
            relay.stands_at(Duration::from_nanos(latest.get()));
        }
        let started =
            Payloader::start(&self.tools.pipelines, launch, &view.name, fanouts, RtpPacket::parse, deliver).await;
        let payloader = started.map_err(|error| error.to_string())?;
        self.pictures.store(Arc::new(pictures.clone()));
        let transcodes = transcodes(&playable, wanted);
        transcodes.iter().for_each(|what| self.handle.rendition(what, true));
        Ok(Carried { payloader, rendition, wanted, transcodes })
    }

    /// Starts the first transcode whose elements are installed, for at most `bps` bits a second.
    async fn transcode(&self, view: &StreamView, bps: u32) -> Result<Rendition, String> {
        let codec = view.tracks.iter().find(|track| track.kind == Kind::Video).map(|track| &track.codec);
        let codec = codec.ok_or("the stream has no pictures")?;
        let mut missing = String::new();
        for template in TRANSCODES {
            let holes = self.tools.catalog.get(template).map(|template| template.holes());
            let holes = holes.map_err(|error| error.to_string())?;
            let rate = |filling: Filling| match holes.contains("kbps") {
                true => filling.value("kbps", (bps / 1000).to_string()),
                false if holes.contains("bps") => filling.value("bps", bps.to_string()),
                false => filling,
            };
            let launch = self.tools.catalog.launch(template, |filling| rate(filling).track_in(Kind::Video, codec));
            let launch = launch.map_err(|error| error.to_string())?;
            match Rendition::pictures(&self.tools.pipelines, launch, &view.name, self.handle.fanout()).await {
                Ok(rendition) => return Ok(rendition),
                Err(error @ MediaError::Missing { .. }) => missing = error.to_string(),
                Err(error) => return Err(error.to_string()),
            }
        }
        Err(missing)
    }

    fn done(&self, carried: Carried) {
        carried.transcodes.iter().for_each(|what| self.handle.rendition(what, false));
        let dropped = carried.payloader.dropped();
        if dropped > 0 {
            tracing::info!(stream = %self.name(), dropped, "frames came faster than viewers' packets could be made");
        }
    }
}

impl Carried {
    /// Resolves when something of it can no longer work.
    async fn failed(&mut self) -> String {
        let said = |failure: Option<Failure>| failure.map_or_else(String::new, |failure| failure.to_string());
        let rendition = async {
            match &mut self.rendition {
                Some(rendition) => rendition.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            failure = self.payloader.failed() => said(failure),
            failure = rendition => said(failure),
        }
    }
}

/// Resolves with true when pictures are to be carried in another way, with false when the stream has ended.
async fn others(view: &mut watch::Receiver<StreamView>, wanted: Wanted) -> bool {
    view.wait_for(|view| Wanted::of(&view.tracks) != wanted).await.is_ok()
}

/// The codec a track comes to the payloader in.
fn given(track: &Track, wanted: Wanted) -> &Codec {
    match (track.kind, wanted) {
        (Kind::Video, Wanted::Transcode(..)) => &Codec::H264,
        _ => &track.codec,
    }
}

/// The most bits a second a picture of this size is worth: a tenth of a bit for each pixel of thirty frames, as live
/// streams have it.
fn most_bits(width: u32, height: u32) -> u32 {
    width.saturating_mul(height).saturating_mul(3).clamp(500_000, 12_000_000)
}

/// What is transcoded on the way to browsers, for people.
fn transcodes(playable: &[&Track], wanted: Wanted) -> Vec<String> {
    let of = |track: &&Track| match (&track.codec, track.kind, wanted) {
        (Codec::Aac, ..) => Some("mpeg4-generic to opus".to_owned()),
        (Codec::H264, _, Wanted::Transcode(..)) => Some("H264 with B-frames to H264".to_owned()),
        (codec, Kind::Video, Wanted::Transcode(..)) => Some(format!("{} to H264", codec.encoding_name())),
        _ => None,
    };
    playable.iter().filter_map(of).collect()
}

fn playable(codec: &Codec) -> bool {
    !matches!(codec, Codec::Other(_))
}

/// What viewers are offered.
fn tracks(tracks: &[Track]) -> Tracks {
    let wanted = Wanted::of(tracks);
    let mut offered = Tracks::default();
    for track in tracks {
        match given(track, wanted) {
            Codec::H264 => {
                let own = wanted == Wanted::Original;
                let profile_level_id = if own { track.profile_level_id } else { Some(TRANSCODED) };
                offered.video = Some(VideoCodec::H264 { profile_level_id });
            }
            Codec::Vp8 => offered.video = Some(VideoCodec::Vp8),
            // AAC is turned into Opus on the way.
            Codec::Opus | Codec::Aac => offered.audio = Some(AudioCodec::Opus),
            Codec::Pcma => offered.audio = Some(AudioCodec::Pcma),
            Codec::Pcmu => offered.audio = Some(AudioCodec::Pcmu),
            // Pictures that are not turned into H.264 here.
            Codec::H265 | Codec::Other(_) => {}
        }
    }
    offered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(codec: Codec, b_frames: bool) -> Track {
        Track {
            kind: Kind::Video,
            codec,
            width: 1280,
            height: 720,
            rate: 0,
            channels: 0,
            profile_level_id: Some(0x64_001f),
            b_frames,
            caps: String::new(),
        }
    }

    #[test]
    fn what_browsers_play_is_not_touched() {
        for (track, wanted, offered) in [
            (video(Codec::H264, false), Wanted::Original, Some(0x64_001f)),
            (video(Codec::H264, true), Wanted::Transcode(1280, 720), Some(TRANSCODED)),
            (video(Codec::H265, false), Wanted::Transcode(1280, 720), Some(TRANSCODED)),
        ] {
            assert_eq!(Wanted::of(std::slice::from_ref(&track)), wanted);
            let offers = tracks(&[track]).video;
            assert_eq!(offers, Some(VideoCodec::H264 { profile_level_id: offered }));
        }
        assert_eq!(Wanted::of(&[video(Codec::Vp8, false)]), Wanted::Original);
    }

    #[test]
    fn people_are_told() {
        let track = video(Codec::H264, true);
        assert_eq!(transcodes(&[&track], Wanted::of(std::slice::from_ref(&track))), ["H264 with B-frames to H264"]);
        let h265 = video(Codec::H265, true);
        assert_eq!(transcodes(&[&h265], Wanted::of(std::slice::from_ref(&h265))), ["H265 to H264"]);
        assert!(transcodes(&[&track], Wanted::Original).is_empty());
    }

    #[test]
    fn a_larger_picture_gets_more() {
        assert_eq!(most_bits(1280, 720), 2_764_800);
        assert_eq!(most_bits(0, 0), 500_000);
        assert_eq!(most_bits(u32::MAX, 2), 12_000_000);
    }
}
