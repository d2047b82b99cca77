//! What rtspsrc leaves to whoever uses it: where a camera may send it, and whose certificate it takes.
//!
//! rtspsrc (1.22) follows redirects by itself, to more schemes than one wants, with the transport of the first address
//! (so not from `rtsp` to `rtsps`), and for ever where an address makes no sense. Here it is stopped at the first
//! request to another address, and whoever started it decides.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use gio::TlsCertificateFlags;
use gio::prelude::{TlsClientConnectionExt, TlsDatabaseExt};
use gstreamer as gst;
use gstreamer::prelude::*;
use tokio::sync::mpsc::UnboundedSender;

use super::bus::Failure;
use super::source::SourceEvent;

/// Requests until the description is there: OPTIONS and DESCRIBE, each once more with a password, and room. What asks
/// more often goes round in circles.
const REQUESTS: u32 = 10;

/// What a certificate has to be for: the authentication of a server (RFC 5280, 4.2.1.12), as GIO names it.
const SERVER: &str = "1.3.6.1.5.5.7.3.1";

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
    /// Beside the system's.
    ca_file: Option<PathBuf>,
    insecure: bool,
}

impl RtspTrust {
    /// Trusts the certificates of a PEM file beside the system's; or, `insecure`, whatever a camera shows.
    ///
    /// # Errors
    /// A sentence for the operator: the file cannot be used.
    pub fn new(ca_file: Option<PathBuf>, insecure: bool) -> Result<Self, String> {
        let trust = Self { ca_file, insecure };
        trust.anchors().map(|_| trust.clone())
    }

    /// Why a certificate that is wrong by the system's is not taken by the file either; `None` where it is.
    fn judge(
        &self,
        shown: &gio::TlsCertificate,
        host: Option<gio::SocketConnectable>,
        wrongs: Option<TlsCertificateFlags>,
    ) -> Option<String> {
        let anchors = match self.anchors() {
            Ok(Some(anchors)) => anchors,
            Ok(None) => return Some(told(wrongs)),
            Err(reason) => return Some(reason),
        };
        // Without its host's name a certificate would do for any.
        let Some(host) = host else { return Some(told(wrongs)) };
        let (nobody, flags) = (None::<&gio::TlsInteraction>, gio::TlsDatabaseVerifyFlags::NONE);
        match anchors.verify_chain(shown, SERVER, Some(&host), nobody, flags, gio::Cancellable::NONE) {
            Ok(wrongs) if wrongs.is_empty() => None,
            Ok(wrongs) => Some(told(Some(wrongs))),
            Err(error) => Some(error.to_string()),
        }
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
    let trust = trust.clone();
    // Asked about certificates that do not do by the system's, and only about those.
    demux.connect("accept-certificate", false, move |args| {
        let wrongs = args.get(3).and_then(|flags| flags.get::<TlsCertificateFlags>().ok());
        let connection = args.get(1).and_then(|connection| connection.get::<gio::TlsClientConnection>().ok());
        let shown = args.get(2).and_then(|shown| shown.get::<gio::TlsCertificate>().ok());
        let refused = match (trust.insecure, shown) {
            (true, _) => None,
            (false, Some(shown)) => trust.judge(&shown, connection.and_then(|c| c.server_identity()), wrongs),
            (false, None) => Some(told(wrongs)),
        };
        if let Some(reason) = &refused {
            // The receiver goes with the source.
            let _ = events.send(failed(&format!("the camera's certificate is not accepted: {reason}")));
        }
        Some(refused.is_none().to_value())
    });
}

fn told(wrongs: Option<TlsCertificateFlags>) -> String {
    let wrongs = wrongs.unwrap_or_else(TlsCertificateFlags::empty);
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
        assert_eq!(told(Some(both)), "nobody who is trusted has signed it, it is for another host");
        assert_eq!(told(None), "it is broken");
    }
}
