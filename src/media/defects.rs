//! Known defects of GStreamer that touch what weir does, by the releases that mended them. Source: the release notes and
//! the history of gstreamer.git.

use serde::Serialize;

/// A defect of the GStreamer in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Defect {
    /// The element or library.
    pub part: &'static str,
    /// What goes wrong.
    pub what: &'static str,
    /// The first release of each series that has it mended; later series have it from their start. Empty where none is
    /// known.
    pub mended_in: &'static [(u32, u32, u32)],
}

const fn defect(part: &'static str, what: &'static str, mended_in: &'static [(u32, u32, u32)]) -> Defect {
    Defect { part, what, mended_in }
}

const KNOWN: [Defect; 15] = [
    defect("webrtcbin", "memory leaks by an early return", &[(1, 22, 2), (1, 24, 0)]),
    defect("webrtcbin", "resolved ICE addresses leak", &[(1, 22, 3), (1, 24, 0)]),
    defect("webrtcbin", "deadlock when it is closed before data has come", &[(1, 22, 3), (1, 24, 0)]),
    defect("webrtcbin", "deadlock when its bin is cleaned up", &[(1, 24, 11), (1, 26, 0)]),
    defect("webrtcbin", "use after free and a leak with libnice", &[(1, 26, 7), (1, 28, 0)]),
    defect("nice", "one thread leaks for each agent", &[(1, 28, 2)]),
    defect("rtpsession", "statistics of transport-wide congestion control leak", &[(1, 24, 11), (1, 26, 0)]),
    defect("sctp", "a mutex leaks for each association", &[(1, 26, 9), (1, 28, 0)]),
    defect("splitmuxsink", "race when fragments are switched asynchronously", &[(1, 26, 0)]),
    defect("splitmuxsink", "the message of a closed fragment may come twice", &[(1, 26, 3), (1, 28, 0)]),
    defect("rtspsrc", "leak when it is closed after the server's end of file", &[(1, 26, 11), (1, 28, 1)]),
    defect("rtspsrc", "no keep-alive in interleaved mode", &[(1, 26, 7), (1, 28, 0)]),
    defect("rtmp2src", "endless retries, and no timeout after the handshake", &[(1, 28, 5)]),
    defect("rtmp2src", "its connection leaks (two descriptors) when it is stopped before the server has answered", &[]),
    defect("core", "an event that a probe drops logs a critical", &[(1, 26, 0)]),
];

/// The known defects of the GStreamer in use.
pub fn defects() -> Vec<Defect> {
    let (major, minor, micro, _) = gstreamer::version();
    of((major, minor, micro))
}

fn of(version: (u32, u32, u32)) -> Vec<Defect> {
    KNOWN.into_iter().filter(|defect| !is_mended(defect, version)).collect()
}

fn is_mended(defect: &Defect, version: (u32, u32, u32)) -> bool {
    let same_series = defect.mended_in.iter().find(|(major, minor, _)| (*major, *minor) == (version.0, version.1));
    match (same_series, defect.mended_in.last()) {
        (Some(mended), _) => version >= *mended,
        (None, Some(newest)) => version > *newest,
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mend_counts_from_its_release_in_each_series() {
        let has = |version, what: &str| of(version).iter().any(|defect| defect.what.contains(what));
        for (version, what, there) in [
            ((1, 22, 0), "closed before data", true),
            ((1, 22, 3), "closed before data", false),
            ((1, 24, 0), "closed before data", false),
            ((1, 24, 10), "bin is cleaned up", true),
            ((1, 24, 11), "bin is cleaned up", false),
            ((1, 26, 0), "bin is cleaned up", false),
            // An odd series and what comes after the last one that is known.
            ((1, 25, 1), "bin is cleaned up", true),
            ((1, 30, 0), "one thread leaks", false),
            ((1, 28, 1), "one thread leaks", true),
        ] {
            assert_eq!(has(version, what), there, "{what} in {version:?}");
        }
        assert_eq!(of((1, 22, 0)).len(), KNOWN.len());
        assert!(of((1, 30, 0)).iter().all(|defect| defect.mended_in.is_empty()));
    }
}
