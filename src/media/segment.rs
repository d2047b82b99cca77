//! GStreamer's segments: from a buffer's time stamps to running time.

use gstreamer as gst;

/// A segment in the only format that media have here.
pub(super) type TimeSegment = gst::FormattedSegment<gst::ClockTime>;

/// The running time of `pts`, nanoseconds; negative before the segment's start.
pub(super) fn running_time(segment: &TimeSegment, pts: gst::ClockTime) -> Option<i64> {
    match segment.to_running_time_full(pts)? {
        gst::Signed::Positive(time) => i64::try_from(time.nseconds()).ok(),
        gst::Signed::Negative(time) => i64::try_from(time.nseconds()).ok().map(|t| -t),
    }
}

/// `segment` with running times that are `offset` nanoseconds later.
pub(super) fn shifted(segment: &TimeSegment, offset: i64) -> TimeSegment {
    let mut ours = segment.clone();
    let by = gst::ClockTime::from_nseconds(offset.unsigned_abs());
    let base = ours.base().unwrap_or_default();
    if offset >= 0 {
        ours.set_base(base + by);
    } else if let Some(less) = base.checked_sub(by) {
        ours.set_base(less);
    } else {
        // What the base cannot give, the start does: running time counts from there.
        ours.set_start(ours.start().unwrap_or_default() + (by - base));
        ours.set_base(gst::ClockTime::ZERO);
    }
    ours
}
