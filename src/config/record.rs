//! Settings of recordings.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::source::Layers;
use super::value::{self, InvalidValue, NameEncoding, RecordPolicy, Rotation};

/// The sample rates of AAC that its encoder has.
const SAMPLE_RATES: [u32; 9] = [8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];

/// Settings of recordings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The directory of recordings, maybe relative to the working directory (`record_dir`).
    pub dir: PathBuf,
    /// When a new part starts (`record_rotation`).
    pub rotation: Rotation,
    /// Where a file's name comes from (`stream_record_policy`).
    pub policy: RecordPolicy,
    /// The template of file names, not empty, without an extension (`stream_record_policy_template`).
    pub template: String,
    /// How a file's name is encoded (`encode_record_name`).
    pub name_encoding: NameEncoding,
    /// The characters left out of file names (`exclude_record_name_characters`).
    pub excluded_characters: String,
    /// Whether browsers may have their streams recorded (`record_streams`).
    pub browsers: bool,
    /// Whether every stream that comes over RTMP, published or pulled, is recorded (`record_flash_published_streams`).
    pub every_rtmp: bool,
    /// Whether every stream that is captured from RTSP is recorded (`record_rtsp_streams`).
    pub every_rtsp: bool,
    /// What files recordings are (`record_formats`).
    pub formats: RecordFormats,
    /// What becomes of the sound in a WebM (`record_webm_audio`).
    pub webm_audio: WebmAudio,
    /// The sample rate of sound that is transcoded, Hz (`record_audio_codec_sample_rate`).
    pub sample_rate: u32,
    /// The program that sees every finished file; `None` for none (`on_record_hook_script`).
    pub hook_script: Option<PathBuf>,
    /// How long it may run (`on_record_hook_timeout`).
    pub hook_timeout: Duration,
    /// How long a recording is kept; `None` for ever (`record_max_age`).
    pub max_age: Option<Duration>,
    /// The bytes of all recordings together; `None` for no limit (`record_max_total_size`).
    pub max_total: Option<u64>,
    /// The free bytes of the file system below which nothing is recorded; 0 never looks (`record_min_free_space`).
    pub min_free_space: u64,
}

impl Record {
    pub(super) fn read(layers: &mut Layers) -> Option<Self> {
        let dir = layers.get("record_dir", value::directory);
        let rotation = layers.get("record_rotation", str::parse);
        let policy = layers.get("stream_record_policy", str::parse);
        let template = layers.get("stream_record_policy_template", value::template);
        let name_encoding = layers.get("encode_record_name", str::parse);
        let excluded = layers.get_verbatim("exclude_record_name_characters", |text| Ok(text.to_owned()));
        let browsers = layers.get("record_streams", value::switch);
        let every_rtmp = layers.get("record_flash_published_streams", value::switch);
        let every_rtsp = layers.get("record_rtsp_streams", value::switch);
        let formats = layers.get("record_formats", str::parse);
        let webm_audio = layers.get("record_webm_audio", str::parse);
        let sample_rate = layers.get("record_audio_codec_sample_rate", sample_rate);
        let hook_script = layers.get("on_record_hook_script", value::path);
        let hook_timeout = layers.get("on_record_hook_timeout", value::time);
        let max_age = layers.get("record_max_age", age);
        let max_total = layers.get("record_max_total_size", value::size);
        let min_free_space = layers.get("record_min_free_space", value::size);
        Some(Self {
            dir: dir?,
            rotation: rotation?,
            policy: policy?,
            template: template?,
            name_encoding: name_encoding?,
            excluded_characters: excluded?,
            browsers: browsers?,
            every_rtmp: every_rtmp?,
            every_rtsp: every_rtsp?,
            formats: formats?,
            webm_audio: webm_audio?,
            sample_rate: sample_rate?,
            hook_script: hook_script?,
            hook_timeout: hook_timeout?,
            max_age: max_age?,
            max_total: max_total.map(|bytes| (bytes > 0).then_some(bytes))?,
            min_free_space: min_free_space?,
        })
    }

    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        let path = |path: &Path| path.display().to_string();
        vec![
            ("record_dir", path(&self.dir)),
            ("record_rotation", self.rotation.to_string()),
            ("stream_record_policy", self.policy.to_string()),
            ("stream_record_policy_template", self.template.clone()),
            ("encode_record_name", self.name_encoding.to_string()),
            ("exclude_record_name_characters", self.excluded_characters.clone()),
            ("record_streams", self.browsers.to_string()),
            ("record_flash_published_streams", self.every_rtmp.to_string()),
            ("record_rtsp_streams", self.every_rtsp.to_string()),
            ("record_formats", self.formats.to_string()),
            ("record_webm_audio", self.webm_audio.to_string()),
            ("record_audio_codec_sample_rate", self.sample_rate.to_string()),
            ("on_record_hook_script", self.hook_script.as_deref().map(path).unwrap_or_default()),
            ("on_record_hook_timeout", value::show_time(self.hook_timeout)),
            ("record_max_age", self.max_age.map_or("0".into(), show_age)),
            ("record_max_total_size", value::show_size(self.max_total.unwrap_or(0))),
            ("record_min_free_space", value::show_size(self.min_free_space)),
        ]
    }
}

/// A container of recordings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Container {
    /// MP4, ISO/IEC 14496-14.
    Mp4,
    /// WebM.
    WebM,
    /// Matroska.
    Mkv,
    /// MPEG transport stream.
    Ts,
}

impl Container {
    /// All.
    pub const ALL: [Container; 4] = [Container::Mp4, Container::WebM, Container::Mkv, Container::Ts];

    /// The extension of its files, and its name in `record_formats`.
    pub fn extension(self) -> &'static str {
        match self {
            Container::Mp4 => "mp4",
            Container::WebM => "webm",
            Container::Mkv => "mkv",
            Container::Ts => "ts",
        }
    }
}

/// Which container a codec goes into: `record_formats` (wcs.md 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordFormats {
    /// For H.264: MP4, Matroska or a transport stream.
    pub h264: Container,
    /// For VP8: WebM or Matroska.
    pub vp8: Container,
}

impl Default for RecordFormats {
    fn default() -> Self {
        Self { h264: Container::Mp4, vp8: Container::WebM }
    }
}

impl FromStr for RecordFormats {
    type Err = InvalidValue;

    /// Reads a list; a codec that is not in it has its default.
    ///
    /// # Errors
    /// What is allowed, if an item of the list is not, or a codec is in it twice.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let (mut h264, mut vp8) = (None, None);
        for item in text.split(',').map(|item| item.trim().to_ascii_lowercase()).filter(|item| !item.is_empty()) {
            let (place, container) = match item.as_str() {
                "h264-mp4" => (&mut h264, Container::Mp4),
                "h264-mkv" => (&mut h264, Container::Mkv),
                "h264-ts" => (&mut h264, Container::Ts),
                "vp8-webm" => (&mut vp8, Container::WebM),
                "vp8-mkv" => (&mut vp8, Container::Mkv),
                _ => return value::expected(FORMATS),
            };
            if place.replace(container).is_some() {
                return value::expected(FORMATS);
            }
        }
        let default = Self::default();
        Ok(Self { h264: h264.unwrap_or(default.h264), vp8: vp8.unwrap_or(default.vp8) })
    }
}

/// What `record_formats` may be.
const FORMATS: &str = "one of h264-mp4, h264-mkv, h264-ts and one of vp8-webm, vp8-mkv, with a comma between them";

impl fmt::Display for RecordFormats {
    /// Writes the list as the setting is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h264-{},vp8-{}", self.h264.extension(), self.vp8.extension())
    }
}

/// What becomes of the sound in a WebM: `record_webm_audio` (wcs.md 14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WebmAudio {
    /// It is transcoded to Vorbis.
    #[default]
    Vorbis,
    /// Opus stays as it is; other sound becomes Opus.
    Opus,
}

impl FromStr for WebmAudio {
    type Err = InvalidValue;

    /// Reads a codec's name; the case of letters does not matter.
    ///
    /// # Errors
    /// What is allowed, if the text is neither.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text.trim().to_ascii_lowercase().as_str() {
            "vorbis" => Ok(Self::Vorbis),
            "opus" => Ok(Self::Opus),
            _ => value::expected("vorbis or opus"),
        }
    }
}

impl fmt::Display for WebmAudio {
    /// Writes the codec as the setting is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vorbis => "vorbis",
            Self::Opus => "opus",
        })
    }
}

fn sample_rate(text: &str) -> value::Parsed<u32> {
    match text.parse().ok().filter(|rate| SAMPLE_RATES.contains(rate)) {
        Some(rate) => Ok(rate),
        None => value::expected("a sample rate of AAC: 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100 or 48000"),
    }
}

/// The longest age, seconds: a hundred years.
const LONGEST_AGE: u64 = 36_500 * 86_400;

/// Reads how long something is kept: seconds, or a number with m, h or d; 0 for ever.
pub(super) fn age(text: &str) -> value::Parsed<Option<Duration>> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let (digits, unit) =
        units.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit))).unwrap_or((text, 1));
    let seconds = digits.parse::<u64>().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
    match seconds.and_then(|count| count.checked_mul(unit)) {
        Some(0) => Ok(None),
        Some(seconds) if seconds <= LONGEST_AGE => Ok(Some(Duration::from_secs(seconds))),
        _ => value::expected("seconds, or a number with m, h or d (30d), up to 36500d; 0 for ever"),
    }
}

/// Writes an age so that [`age`] reads it back.
fn show_age(age: Duration) -> String {
    let seconds = age.as_secs();
    let units = [("d", 86_400), ("h", 3600), ("m", 60)];
    let unit = units.iter().find(|(_, unit)| seconds.is_multiple_of(*unit));
    unit.map_or(seconds.to_string(), |(suffix, unit)| format!("{}{suffix}", seconds / unit))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn formats() {
        let with = |h264, vp8| Some(RecordFormats { h264, vp8 });
        for (text, want) in [
            ("h264-mp4,vp8-webm", with(Container::Mp4, Container::WebM)),
            (" VP8-MKV , H264-mkv ", with(Container::Mkv, Container::Mkv)),
            ("h264-ts", with(Container::Ts, Container::WebM)),
            ("vp8-mkv", with(Container::Mp4, Container::Mkv)),
            ("", with(Container::Mp4, Container::WebM)),
            ("h264-webm", None),
            ("vp8-mp4", None),
            ("vp8-ts", None),
            ("h264-mp4,h264-mkv", None),
            ("mp4", None),
            ("h264-mp4;vp8-webm", None),
        ] {
            assert_eq!(text.parse::<RecordFormats>().ok(), want, "{text:?}");
        }
        for h264 in [Container::Mp4, Container::Mkv, Container::Ts] {
            for vp8 in [Container::WebM, Container::Mkv] {
                let formats = RecordFormats { h264, vp8 };
                assert_eq!(formats.to_string().parse(), Ok(formats));
            }
        }
    }

    #[test]
    fn sound() {
        assert_eq!((" Opus ".parse(), "vorbis".parse()), (Ok(WebmAudio::Opus), Ok(WebmAudio::Vorbis)));
        assert!("aac".parse::<WebmAudio>().is_err() && "".parse::<WebmAudio>().is_err());
        assert_eq!((sample_rate("48000"), sample_rate("44100")), (Ok(48_000), Ok(44_100)));
        assert!(["", "0", "44101", "96000", "48k", "-1", "99999999999"].iter().all(|text| sample_rate(text).is_err()));
    }

    #[test]
    fn ages() {
        for (text, seconds) in [
            ("0", Some(None)),
            ("0d", Some(None)),
            ("30d", Some(Some(2_592_000))),
            ("12h", Some(Some(43_200))),
            ("90m", Some(Some(5400))),
            ("7", Some(Some(7))),
            ("7s", Some(Some(7))),
            ("36501d", None),
            ("+7", None),
            ("", None),
            ("d", None),
            ("1.5d", None),
            ("99999999999999999999d", None),
        ] {
            assert_eq!(age(text).ok(), seconds.map(|age| age.map(Duration::from_secs)), "{text:?}");
            if let Some(Some(seconds)) = seconds {
                assert_eq!(age(&show_age(Duration::from_secs(seconds))), Ok(Some(Duration::from_secs(seconds))));
            }
        }
    }
}
