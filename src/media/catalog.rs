//! The templates: compiled in, each replaceable by a file of the operator's, and checked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::bindings::standing;
use super::pipeline::{MediaError, parsed};
use super::template::{Filling, Launch, Template, TemplateError};
use super::track::Kind;

const BUILT_IN: [(&str, &str); 16] = [
    ("push-wcs", include_str!("../../pipelines/push-wcs.launch")),
    ("pull-wcs", include_str!("../../pipelines/pull-wcs.launch")),
    ("transcode-x264", include_str!("../../pipelines/transcode-x264.launch")),
    ("transcode-openh264", include_str!("../../pipelines/transcode-openh264.launch")),
    ("play-rtmp", include_str!("../../pipelines/play-rtmp.launch")),
    ("ingest-rtmp", include_str!("../../pipelines/ingest-rtmp.launch")),
    ("snapshot", include_str!("../../pipelines/snapshot.launch")),
    ("play-webrtc", include_str!("../../pipelines/play-webrtc.launch")),
    ("record-webm", include_str!("../../pipelines/record-webm.launch")),
    ("record-webm-opus", include_str!("../../pipelines/record-webm-opus.launch")),
    ("record-mkv", include_str!("../../pipelines/record-mkv.launch")),
    ("record-ts", include_str!("../../pipelines/record-ts.launch")),
    ("pull-rtmp", include_str!("../../pipelines/pull-rtmp.launch")),
    ("pull-rtsp", include_str!("../../pipelines/pull-rtsp.launch")),
    ("publish-webrtc", include_str!("../../pipelines/publish-webrtc.launch")),
    ("record-mp4", include_str!("../../pipelines/record-mp4.launch")),
];

/// The templates in use. A cheap handle.
#[derive(Debug, Clone)]
pub struct Catalog {
    templates: Arc<BTreeMap<String, Template>>,
    /// AAC is decoded with FDK's decoder where that is installed.
    fdk_aac: bool,
}

/// Templates of which the first that can run is taken.
const INSTEAD: [(&str, &str); 1] = [("transcode-x264", "transcode-openh264")];

/// Whether a template can run here.
#[derive(Debug)]
pub enum Verdict {
    /// It can.
    Works,
    /// Elements of it are missing, and another one is taken.
    Replaced {
        /// The other one.
        by: &'static str,
        /// What is missing.
        problem: MediaError,
    },
    /// It cannot.
    Fails(MediaError),
}

/// Why the templates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The folder or a file of it cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file or folder.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is no template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A file of the operator's overrides nothing.
    #[error("{path} overrides no template; there are: {known}")]
    Unknown {
        /// The file.
        path: String,
        /// The names there are, separated by commas.
        known: String,
    },
    /// There is no template of that name.
    #[error("there is no template {name}; there are: {known}")]
    NoTemplate {
        /// The name that was asked for.
        name: String,
        /// The names there are, separated by commas.
        known: String,
    },
}

impl Catalog {
    /// The compiled-in templates, with the `.launch` files of `overrides` in place of those of the same name.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn load(overrides: Option<&Path>) -> Result<Self, CatalogError> {
        let mut templates = BTreeMap::new();
        for (name, text) in BUILT_IN {
            templates.insert(name.to_owned(), Template::parse(name, text)?);
        }
        for (path, name, text) in overrides.map(launch_files).transpose()?.unwrap_or_default() {
            if !templates.contains_key(&name) {
                let known = names(&templates);
                return Err(CatalogError::Unknown { path, known });
            }
            let template = Template::parse(&name, &text)?.of_the_operator();
            templates.insert(name, template);
        }
        Ok(Self { templates: Arc::new(templates), fdk_aac: false })
    }

    /// The same, with AAC decoded by FDK's decoder (`fdkaacdec`) where GStreamer has it.
    pub fn with_fdk_aac(self, fdk_aac: bool) -> Self {
        Self { fdk_aac, ..self }
    }

    /// The names of the templates.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.templates.keys().map(String::as_str)
    }

    /// A template by its name.
    ///
    /// # Errors
    /// [`CatalogError::NoTemplate`].
    pub fn get(&self, name: &str) -> Result<&Template, CatalogError> {
        self.templates
            .get(name)
            .ok_or_else(|| CatalogError::NoTemplate { name: name.to_owned(), known: names(&self.templates) })
    }

    /// Fills a template for a job: what stands in its holes anyway, and what `add` puts beside it.
    ///
    /// # Errors
    /// [`CatalogError::NoTemplate`], or [`TemplateError`] for a hole that is missing or not there.
    pub fn launch(&self, name: &str, add: impl FnOnce(Filling) -> Filling) -> Result<Launch, CatalogError> {
        let template = self.get(name)?;
        Ok(template.fill(&add(standing(template, self.fdk_aac)))?)
    }

    /// Fills a template for a person at a terminal: `key=value` pairs for its values, weir's own fragments for the
    /// rest, the first branch of each kind.
    ///
    /// # Errors
    /// [`CatalogError::NoTemplate`], or [`TemplateError`] for a hole that is missing or not there.
    pub fn line(&self, name: &str, values: &[(String, String)]) -> Result<Launch, CatalogError> {
        self.launch(name, |filling| {
            let filling = filling.first(Kind::Video).first(Kind::Audio);
            values.iter().fold(filling, |filling, (key, value)| filling.value(key, value))
        })
    }

    /// Parses every template as `gst-launch-1.0` would.
    pub fn check(&self) -> Vec<(String, Verdict)> {
        let problems: BTreeMap<&str, Option<MediaError>> =
            self.templates.values().map(|template| (template.name(), problem(template))).collect();
        let other = |name: &str| {
            let (_, by) = INSTEAD.into_iter().find(|(of, _)| *of == name)?;
            problems.get(by).is_some_and(Option::is_none).then_some(by)
        };
        let verdict = |name: &str, problem: &Option<MediaError>| match (problem, other(name)) {
            (None, _) => Verdict::Works,
            (Some(problem @ MediaError::Missing { .. }), Some(by)) => {
                Verdict::Replaced { by, problem: problem.clone() }
            }
            (Some(problem), _) => Verdict::Fails(problem.clone()),
        };
        problems.iter().map(|(name, problem)| ((*name).to_owned(), verdict(name, problem))).collect()
    }
}

fn problem(template: &Template) -> Option<MediaError> {
    let every = standing(template, false).track(Kind::Video).track(Kind::Audio);
    let filling = template.holes().into_iter().fold(every, |filling, hole| match example(hole) {
        Some(value) => filling.value(hole, value),
        None => filling,
    });
    let launch = match template.fill(&filling) {
        Ok(launch) => launch,
        Err(error) => return Some(parse_problem(template, &error)),
    };
    // Both bindings, with each branch by itself: two of one kind are never in one line.
    let alone = |branch: usize| [launch.terminal_text(branch), launch.text_with(branch)];
    let lines = (0..launch.branches.len().max(1)).flat_map(alone);
    lines.into_iter().find_map(|text| parsed(template.name(), &text).err())
}

fn parse_problem(template: &Template, error: &TemplateError) -> MediaError {
    MediaError::Parse { template: template.name().to_owned(), reason: error.to_string(), line: String::new() }
}

fn example(hole: &str) -> Option<&'static str> {
    match hole {
        "uri" => Some("rtmp://127.0.0.1/live/example"),
        "location" => Some("example.mp4"),
        "kbps" => Some("2000"),
        "bps" => Some("2000000"),
        _ => None,
    }
}

fn names(templates: &BTreeMap<String, Template>) -> String {
    templates.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// (path, template name, text) of each `.launch` file in a folder.
fn launch_files(folder: &Path) -> Result<Vec<(String, String, String)>, CatalogError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        |source| CatalogError::Read { path, source }
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "launch") {
            let text = std::fs::read_to_string(&path).map_err(failed(&path))?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            files.push((path.display().to_string(), name, text));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_template_parses_here() {
        crate::media::init().unwrap();
        for (name, verdict) in Catalog::load(None).unwrap().check() {
            assert!(!matches!(verdict, Verdict::Fails(_)), "{name}: {verdict:?}");
        }
    }

    #[test]
    fn an_override_replaces_and_a_stray_file_is_named() {
        crate::media::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pull-rtmp.launch"), "rtmp2src location={uri} ! nosuchthing name=demux")
            .unwrap();
        let catalog = Catalog::load(Some(folder.path())).unwrap();
        let verdicts = catalog.check();
        let (_, verdict) = verdicts.iter().find(|(name, _)| name == "pull-rtmp").unwrap();
        let Verdict::Fails(problem) = verdict else { panic!("{verdict:?}") };
        let text = problem.to_string();
        assert!(text.contains("no element nosuchthing") && text.contains("install"), "{text}");

        std::fs::write(folder.path().join("pul-rtmp.launch"), "x").unwrap();
        let stray = Catalog::load(Some(folder.path())).unwrap_err().to_string();
        assert!(stray.contains("pul-rtmp.launch overrides no template"), "{stray}");
    }

    #[test]
    fn what_is_missing_is_replaced_where_something_stands_in() {
        crate::media::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let line = "[video] {video_in} ! nosuchthing bitrate={kbps} name=pictures ! {video_out}";
        std::fs::write(folder.path().join("transcode-x264.launch"), line).unwrap();
        let catalog = Catalog::load(Some(folder.path())).unwrap();
        let verdicts = catalog.check();
        let (_, verdict) = verdicts.iter().find(|(name, _)| name == "transcode-x264").unwrap();
        assert!(matches!(verdict, Verdict::Replaced { by: "transcode-openh264", .. }), "{verdict:?}");
    }

    #[test]
    fn a_line_for_the_terminal_is_complete() {
        let catalog = Catalog::load(None).unwrap();
        let uri = ("uri".to_owned(), "rtmp://h/live/a".to_owned());
        let shell = catalog.line("pull-rtmp", &[uri]).unwrap().shell(|_| true);
        assert!(shell.starts_with("gst-launch-1.0 -e rtmp2src 'location=\"rtmp://h/live/a\"'"), "{shell}");
        let missing = catalog.line("pull-rtmp", &[]).unwrap_err().to_string();
        assert!(missing.contains("{uri}"), "{missing}");
        let unknown = catalog.line("pull-x", &[]).unwrap_err().to_string();
        assert!(
            unknown.contains(
                "there are: ingest-rtmp, play-rtmp, play-webrtc, publish-webrtc, pull-rtmp, pull-rtsp, pull-wcs, push-wcs, record-mkv, record-mp4, record-ts, record-webm, record-webm-opus, snapshot, transcode-openh264, transcode-x264"
            ),
            "{unknown}"
        );
    }
}
