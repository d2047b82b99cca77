//! A browser's sending side: webrtcbin with a test picture.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_sdp::SDPMessage;
use gstreamer_webrtc::{WebRTCSDPType, WebRTCSessionDescription};

use crate::support::SOON;

pub struct Sender {
    pipeline: gst::Pipeline,
    peer: gst::Element,
    asked: Arc<AtomicUsize>,
    /// webrtcbin forgets its agent where nobody holds it.
    _ice: gst::Object,
}

impl Sender {
    pub fn new() -> Self {
        gst::init().unwrap();
        let line = "webrtcbin name=peer bundle-policy=max-bundle videotestsrc is-live=true ! \
             video/x-raw,width=160,height=120,framerate=15/1 ! vp8enc name=encoder deadline=1 keyframe-max-dist=15 ! rtpvp8pay ! \
             application/x-rtp,media=video,encoding-name=VP8,payload=96 ! valve name=valve ! peer.";
        let pipeline = gst::parse::launch(line).unwrap().downcast::<gst::Pipeline>().unwrap();
        // An unread bus keeps what its messages refer to.
        pipeline.bus().unwrap().set_sync_handler(|_, _| gst::BusSyncReply::Drop);
        let peer = pipeline.by_name("peer").unwrap();
        let asked = count_keyframe_requests(&pipeline.by_name("encoder").unwrap());
        let ice: gst::Object = peer.property("ice-agent");
        // It would look for a router on the local network.
        ice.property::<gst::glib::Object>("agent").set_property("upnp", false);
        assert!(ice.emit_by_name::<bool>("add-local-ip-address", &[&"127.0.0.1"]));
        Self { pipeline, peer, asked, _ice: ice }
    }

    /// The offer; sending begins once it is answered.
    pub fn offer(&self) -> String {
        let (sender, offers) = mpsc::channel();
        self.peer.connect("on-negotiation-needed", false, move |values| {
            let peer = values[0].get::<gst::Element>().unwrap();
            let (sender, again) = (sender.clone(), peer.clone());
            let promise = gst::Promise::with_change_func(move |reply| {
                let offer = reply.unwrap().unwrap().get::<WebRTCSessionDescription>("offer").unwrap();
                again.emit_by_name::<()>("set-local-description", &[&offer, &None::<gst::Promise>]);
                sender.send(offer.sdp().as_text().unwrap()).unwrap();
            });
            peer.emit_by_name::<()>("create-offer", &[&None::<gst::Structure>, &promise]);
            None
        });
        self.pipeline.set_state(gst::State::Playing).unwrap();
        offers.recv_timeout(SOON).unwrap().replace("a=sendrecv", "a=sendonly")
    }

    pub fn answered(&self, answer: &str) {
        let sdp = SDPMessage::parse_buffer(answer.as_bytes()).unwrap();
        let answer = WebRTCSessionDescription::new(WebRTCSDPType::Answer, sdp);
        self.peer.emit_by_name::<()>("set-remote-description", &[&answer, &None::<gst::Promise>]);
    }

    /// How often the other side has asked for a keyframe.
    pub fn keyframes_asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    /// Whether no picture goes out; the connection stays.
    pub fn hold(&self, held: bool) {
        self.pipeline.by_name("valve").unwrap().set_property("drop", held);
    }
}

fn count_keyframe_requests(encoder: &gst::Element) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let count = move |_: &gst::Pad, info: &mut gst::PadProbeInfo| {
        let wish = info.event().and_then(|event| event.structure()).map(|structure| structure.name().as_str());
        if wish == Some("GstForceKeyUnit") {
            counter.fetch_add(1, SeqCst);
        }
        gst::PadProbeReturn::Ok
    };
    encoder.static_pad("src").unwrap().add_probe(gst::PadProbeType::EVENT_UPSTREAM, count);
    asked
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}
