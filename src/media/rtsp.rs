//! What rtspsrc leaves to whoever uses it: where a camera may send it, and whose certificate it takes.
//!
//! rtspsrc (1.22) follows redirects by itself, to more schemes than one wants, with the transport of the first address
//! (so not from `rtsp` to `rtsps`), and for ever where an address makes no sense. Here it is stopped at the first
//! request to another address, and whoever started it decides.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use gio::TlsCertificateFlags;
use gstreamer as gst;
use gstreamer::prelude::*;
use tokio::sync::mpsc::UnboundedSender;

use super::bus::Failure;
use super::source::SourceEvent;

/// Requests until the description is there: OPTIONS and DESCRIBE, each once more with a password, and room. What asks
/// more often goes round in circles.
const REQUESTS: u32 = 10;

/// What is wrong with a certificate, for a person.
const WRONGS: [(TlsCertificateFlags, &str); 6] = [
    (TlsCertificateFlags::UNKNOWN_CA, "nobody who is trusted has signed it"),
    (TlsCertificateFlags::BAD_IDENTITY, "it is for another host"),
    (TlsCertificateFlags::NOT_ACTIVATED, "it is not valid yet"),
    (TlsCertificateFlags::EXPIRED, "it has expired"),
    (TlsCertificateFlags::REVOKED, "it was revoked"),
    (TlsCertificateFlags::INSECURE, "its algorithm is not secure"),
];

/// Whose certificates cameras may show. The default are those that the system trusts.
#[derive(Debug, Clone, Default)]
pub struct RtspTrust {
    /// In place of the system's.
    ca_file: Option<PathBuf>,
    insecure: bool,
}

impl RtspTrust {
    /// Trusts the certificates of a PEM file in place of the system's; or, `insecure`, whatever a camera shows.
    ///
    /// # Errors
    /// A sentence for the operator: the file cannot be used.
    pub fn new(ca_file: Option<PathBuf>, insecure: bool) -> Result<Self, String> {
        let trust = Self { ca_file, insecure };
        trust.anchors().map(|_| trust.clone())
    }

    /// Reads the file. What comes of it belongs to one thread, so it is read for each camera.
    fn anchors(&self) -> Result<Option<gio::TlsFileDatabase>, String> {
        let Some(path) = &self.ca_file else { return Ok(None) };
        let unusable = |reason: &dyn std::fmt::Display| format!("rtsp_ca_file {}: {reason}", path.display());
        // A database of a file without a certificate trusts nobody, and says nothing.
        let found = gio::TlsCertificate::list_new_from_file(path).map_err(|error| unusable(&error))?;
        if found.is_empty() {
            return Err(unusable(&"it has no certificate"));
        }
        gio::TlsFileDatabase::new(path).map(Some).map_err(|error| unusable(&error))
    }
}

/// Takes an rtspsrc in hand before it is started; another element is left alone.
pub(super) fn guard(demux: &gst::Element, trust: &RtspTrust, events: &UnboundedSender<SourceEvent>) {
    if demux.factory().is_none_or(|factory| factory.name() != "rtspsrc") {
        return;
    }
    let described = Arc::new(AtomicBool::new(false));
    let (news, known) = (events.clone(), described.clone());
    demux.connect("on-sdp", false, move |_| {
        known.store(true, Relaxed);
        // The receiver goes with the source.
        let _ = news.send(SourceEvent::Described);
        None
    });
    hold_back(demux, described, events.clone());
    check_certificates(demux, trust, events.clone());
}

/// Lets no request go to another address than the one it was started with.
fn hold_back(demux: &gst::Element, described: Arc<AtomicBool>, events: UnboundedSender<SourceEvent>) {
    let dialled = demux.property::<Option<String>>("location");
    let asked = AtomicU32::new(0);
    demux.connect("before-send", false, move |args| {
        let location = args.first()?.get::<gst::Element>().ok()?.property::<Option<String>>("location");
        let going = match location {
            Some(other) if Some(&other) != dialled.as_ref() => Err(SourceEvent::Redirected(other)),
            _ if !described.load(Relaxed) && asked.fetch_add(1, Relaxed) >= REQUESTS => {
                Err(failed("the camera redirects in circles, or to what is no RTSP address"))
            }
            _ => Ok(()),
        };
        let goes = going.is_ok();
        if let Err(event) = going {
            let _ = events.send(event);
        }
        Some(goes.to_value())
    });
}

fn check_certificates(demux: &gst::Element, trust: &RtspTrust, events: UnboundedSender<SourceEvent>) {
    match trust.anchors() {
        Ok(None) => {}
        Ok(Some(anchors)) => demux.set_property("tls-database", &anchors),
        // The receiver goes with the source.
        Err(reason) => drop(events.send(failed(&reason))),
    }
    let insecure = trust.insecure;
    // Asked about certificates that were found wrong, and only about those.
    demux.connect("accept-certificate", false, move |args| {
        if !insecure {
            let wrongs = args
                .get(3)
                .and_then(|flags| flags.get::<TlsCertificateFlags>().ok())
                .unwrap_or_else(TlsCertificateFlags::empty);
            let _ = events.send(failed(&format!("the camera's certificate is not accepted: {}", told(wrongs))));
        }
        Some(insecure.to_value())
    });
}

fn told(wrongs: TlsCertificateFlags) -> String {
    let told: Vec<&str> = WRONGS.iter().filter(|(flag, _)| wrongs.contains(*flag)).map(|(_, text)| *text).collect();
    if told.is_empty() { "it is broken".into() } else { told.join(", ") }
}

fn failed(message: &str) -> SourceEvent {
    SourceEvent::Failed(Failure {
        element: "demux".into(),
        factory: "rtspsrc".into(),
        message: message.into(),
        debug: String::new(),
        no_space: false,
        refused: true,
        not_found: false,
        unexplained: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told() {
        let both = TlsCertificateFlags::UNKNOWN_CA | TlsCertificateFlags::BAD_IDENTITY;
        assert_eq!(told(both), "nobody who is trusted has signed it, it is for another host");
        assert_eq!(told(TlsCertificateFlags::empty()), "it is broken");
    }
}
