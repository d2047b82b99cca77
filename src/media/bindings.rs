//! What stands in a template's holes: in the server the elements weir feeds and reads, in a shell test sources and sinks.

use gstreamer as gst;

use super::template::{Filling, Template};

/// A hole, what the server puts there, and what a shell does.
type Binding = (&'static str, &'static str, InShell);

enum InShell {
    /// A test source in the branch's codec.
    Source,
    /// A sink that drops what comes.
    Sink,
}

// What goes out of a pipeline must not wait for a clock; what goes in is bounded where it is pushed, never by blocking.
const BINDINGS: [Binding; 11] = [
    (
        "video_out",
        "appsink name=video_out sync=false async=false wait-on-eos=false enable-last-sample=false",
        InShell::Sink,
    ),
    (
        "audio_out",
        "appsink name=audio_out sync=false async=false wait-on-eos=false enable-last-sample=false",
        InShell::Sink,
    ),
    (
        "sound_out",
        "appsink name=sound_out sync=false async=false wait-on-eos=false enable-last-sample=false",
        InShell::Sink,
    ),
    (
        "image_out",
        "appsink name=image_out sync=false async=false wait-on-eos=false enable-last-sample=false",
        InShell::Sink,
    ),
    (
        "video_rtp",
        "appsink name=video_rtp sync=false async=false wait-on-eos=false enable-last-sample=false buffer-list=true",
        InShell::Sink,
    ),
    (
        "audio_rtp",
        "appsink name=audio_rtp sync=false async=false wait-on-eos=false enable-last-sample=false buffer-list=true",
        InShell::Sink,
    ),
    ("video_in", "appsrc name=video_in format=time handle-segment-change=true max-bytes=0", InShell::Source),
    ("audio_in", "appsrc name=audio_in format=time handle-segment-change=true max-bytes=0", InShell::Source),
    ("sound_in", "appsrc name=sound_in format=time handle-segment-change=true max-bytes=0", InShell::Source),
    ("video_feed", "identity name=video_feed", InShell::Source),
    ("audio_feed", "identity name=audio_feed", InShell::Source),
];

/// Elements that do the same, where an operator may choose: a hole, what stands there, and what stands there if it is
/// chosen and installed.
const CHOICES: [(&str, &str, &str); 1] = [("aac_decoder", "avdec_aac", "fdkaacdec")];

/// Values that a template may ask for and a caller may replace.
const DEFAULTS: [(&str, &str); 2] = [("audio_caps", "audio/x-raw,rate=44100"), ("protocols", "tcp")];

/// The bindings and defaults `template` has holes for; `chosen`: with the operator's choices in them.
pub(super) fn standing(template: &Template, chosen: bool) -> Filling {
    let holes = template.holes();
    let mut filling = Filling::new();
    for (hole, server, shell) in BINDINGS.iter().filter(|(hole, ..)| holes.contains(hole)) {
        filling = match shell {
            InShell::Sink => filling.fragment(hole, server, "fakesink sync=false async=false"),
            InShell::Source => filling.input(hole, server, test_source),
        };
    }
    for (hole, usual, choice) in CHOICES.into_iter().filter(|(hole, ..)| holes.contains(hole)) {
        let there = chosen && gst::ElementFactory::find(choice).is_some();
        let element = if there { choice } else { usual };
        filling = filling.fragment(hole, element, element);
    }
    let asked = DEFAULTS.iter().filter(|(hole, _)| holes.contains(hole));
    asked.fold(filling, |filling, (hole, value)| filling.value(hole, *value))
}

/// Ten seconds of picture or sound in a codec, for a shell. The encoders are those that need no GPL plugin; H.265 has none,
/// so a file stands there.
fn test_source(codec: Option<&str>) -> &'static str {
    match codec {
        Some("vp8") => {
            "videotestsrc num-buffers=300 ! video/x-raw,width=640,height=360,framerate=30/1 ! vp8enc deadline=1"
        }
        Some("h265") => "filesrc location=pictures.h265",
        Some("opus") => "audiotestsrc num-buffers=480 ! audio/x-raw,rate=48000 ! opusenc ! opusparse",
        Some("pcma") => "audiotestsrc num-buffers=80 ! audio/x-raw,rate=8000,channels=1 ! alawenc",
        Some("pcmu") => "audiotestsrc num-buffers=80 ! audio/x-raw,rate=8000,channels=1 ! mulawenc",
        Some("aac") => "audiotestsrc num-buffers=430 ! audio/x-raw,rate=44100 ! voaacenc ! aacparse",
        _ => "videotestsrc num-buffers=300 ! video/x-raw,width=640,height=360,framerate=30/1 ! openh264enc ! h264parse",
    }
}
