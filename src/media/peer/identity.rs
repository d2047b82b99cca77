//! The certificate our own calls show.
//!
//! webrtcbin would make an RSA one, which stacks that know elliptic curves only refuse: the relay of another weir is one.
//!
//! It is as small as it gets. OpenSSL cuts a flight of the handshake into datagrams of 256 bytes, and cuts it otherwise when
//! it sends it again; the stack of the relay (dimpl 0.9) does not join pieces of two cuts, and a handshake that lost a
//! packet would never end. With a small certificate the cuts are the same.

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
    let (certificate, key) = small()?;
    let mut sha = gst::glib::Checksum::new(gst::glib::ChecksumType::Sha256)?;
    sha.update(certificate.der());
    let digits: Vec<String> = sha.digest().iter().map(|byte| format!("{byte:02X}")).collect();
    let pem = format!("{}{}", certificate.pem(), key.serialize_pem());
    Some(Identity { pem, fingerprint: format!("sha-256 {}", digits.join(":")) })
}

/// A certificate without alternative names, and with a short one of its own; its key.
fn small() -> Option<(rcgen::Certificate, rcgen::KeyPair)> {
    let key = rcgen::KeyPair::generate().ok()?;
    let mut facts = rcgen::CertificateParams::default();
    facts.distinguished_name = rcgen::DistinguishedName::new();
    facts.distinguished_name.push(rcgen::DnType::CommonName, "weir");
    Some((facts.self_signed(&key).ok()?, key))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    /// What a datagram holds of a certificate, beside the heads of record, message and list (13, 12 and 6 bytes).
    const FIRST: usize = 255 - 31;
    /// The rest of the flight that must go with the rest of the certificate: key exchange and the longest signature.
    const AFTER: usize = 58 + 103;

    #[test]
    fn a_flight_is_cut_once_only() {
        let (certificate, _) = super::small().unwrap();
        let second = certificate.der().len() - FIRST + 25 + AFTER;
        assert!(second <= 256, "{} bytes of certificate, {second} in the second datagram", certificate.der().len());
    }
}
