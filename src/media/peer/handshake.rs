//! A handshake over a path that loses datagrams.
//!
//! DTLS sends a flight again when its answer does not come within a second, then two, then four (RFC 6347, 4.2.4.1;
//! OpenSSL's timer cannot be set from outside its element). Two losses, and a viewer or a server waits for seven seconds. A
//! handshake is a dozen datagrams: each is sent three times, far enough apart that a burst of losses does not take all.
//! Whoever gets one twice drops it (RFC 6347, 4.1.2.6 and 4.2.2).

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;

/// When a handshake's datagram is sent again, counted from the first time.
pub const HANDSHAKE_REPEATS: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(150)];
/// Most datagrams of one handshake that are sent again: a remote side that starts over and over does not multiply them.
pub const MAX_REPEATED: usize = 64;

/// DTLS records of these types make a handshake: change_cipher_spec and handshake (RFC 5246, 6.2.1). Alerts go once.
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;

/// Whether a datagram is of a DTLS handshake; its first byte tells DTLS from STUN and RTP (RFC 7983).
pub fn is_handshake(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(&(CHANGE_CIPHER_SPEC | HANDSHAKE)))
}

/// Sends again what `element` sends of a handshake, if it is what makes one.
pub(super) fn repeat(element: &gst::Element) {
    if element.factory().is_none_or(|factory| factory.name() != "dtlsenc") {
        return;
    }
    let Some(pad) = element.static_pad("src") else { return };
    let sent = AtomicUsize::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        if let Some(datagram) = info.buffer()
            && begins(datagram)
            && sent.fetch_add(1, Relaxed) < MAX_REPEATED
            && let Some(next) = pad.peer()
        {
            HANDSHAKE_REPEATS.into_iter().for_each(|wait| later(&next, datagram, wait));
        }
        gst::PadProbeReturn::Ok
    });
}

fn begins(datagram: &gst::BufferRef) -> bool {
    let mut first = [0];
    datagram.copy_to_slice(0, &mut first).is_ok() && is_handshake(&first)
}

/// Gives `pad` a datagram after `wait`.
fn later(pad: &gst::Pad, datagram: &gst::BufferRef, wait: Duration) {
    let clock = gst::SystemClock::obtain();
    let at = clock.time() + gst::ClockTime::from_nseconds(wait.as_nanos() as u64);
    let (pad, datagram) = (pad.downgrade(), datagram.to_owned());
    // The clock's thread must not wait for a socket: the element's own pool does.
    let on_time = move |_: &gst::Clock, _: Option<gst::ClockTime>, _: &gst::ClockId| {
        let element = pad.upgrade().and_then(|pad| pad.parent_element());
        if let Some(element) = element {
            element.call_async(move |_| {
                if let Some(pad) = pad.upgrade() {
                    // Where the way has been shut meanwhile, there is nobody left to shake hands with.
                    let _ = pad.chain(datagram);
                }
            });
        }
    };
    // A clock that is gone means that the process is.
    let _ = clock.new_single_shot_id(at).wait_async(on_time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_told_from_all_else() {
        let record = |kind: u8| is_handshake(&[kind, 0xFE, 0xFD, 0, 0]);
        assert!(record(22) && record(20));
        // Alerts, application data, STUN, RTP, nothing.
        assert!(!record(21) && !record(23) && !record(0) && !record(0x80) && !is_handshake(&[]));
    }
}
