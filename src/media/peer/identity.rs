//! The certificate our own calls show.
//!
//! webrtcbin would make an RSA one, which stacks that know elliptic curves only refuse: the relay of another weir is one.

use std::sync::OnceLock;

use gstreamer as gst;
use gstreamer::prelude::*;

/// A certificate with its key.
struct Identity {
    /// PEM of both.
    pem: String,
    /// The value of `a=fingerprint`.
    fingerprint: String,
}

/// One for this process; `None` where none could be made, and webrtcbin's own is shown.
fn identity() -> Option<&'static Identity> {
    static MADE: OnceLock<Option<Identity>> = OnceLock::new();
    MADE.get_or_init(make).as_ref()
}

fn make() -> Option<Identity> {
    let made = rcgen::generate_simple_self_signed(["weir".to_owned()]).ok()?;
    let mut sha = gst::glib::Checksum::new(gst::glib::ChecksumType::Sha256)?;
    sha.update(made.cert.der());
    let digits: Vec<String> = sha.digest().iter().map(|byte| format!("{byte:02X}")).collect();
    let pem = format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem());
    Some(Identity { pem, fingerprint: format!("sha-256 {}", digits.join(":")) })
}

/// Has the transports that `bin` makes from now on show it.
pub(super) fn show(bin: &gst::Element) {
    let (Some(bin), Some(identity)) = (bin.downcast_ref::<gst::Bin>(), identity()) else { return };
    bin.connect_deep_element_added(|_, _, element| {
        if element.factory().is_some_and(|factory| factory.name() == "dtlssrtpdec") {
            element.set_property("pem", &identity.pem);
        }
    });
}

/// A line of a description as it must be: webrtcbin 1.22 takes the fingerprint of certificate and key together.
pub(super) fn announced(line: &str) -> Option<String> {
    let identity = identity().filter(|_| line.starts_with("a=fingerprint:"))?;
    Some(format!("a=fingerprint:{}", identity.fingerprint))
}
