//! Where Debian has the elements of weir's templates.

/// The Debian package that has an element of weir's templates.
pub(super) fn package_of(element: &str) -> &'static str {
    match element {
        "appsrc" | "appsink" | "videotestsrc" | "audiotestsrc" | "audioconvert" | "audioresample" | "videoconvert" => {
            "gstreamer1.0-plugins-base"
        }
        "flvdemux" | "mp4mux" | "webmmux" | "matroskamux" | "splitmuxsink" | "rtspsrc" => "gstreamer1.0-plugins-good",
        "x264enc" => "gstreamer1.0-plugins-ugly",
        "avenc_aac" | "avdec_aac" | "avdec_h264" | "avdec_h265" => "gstreamer1.0-libav",
        "nicesrc" | "nicesink" => "gstreamer1.0-nice",
        "queue" | "fakesink" | "fakesrc" | "filesink" | "filesrc" | "tee" | "identity" | "capsfilter" => {
            "libgstreamer1.0-0"
        }
        _ => "gstreamer1.0-plugins-bad",
    }
}
