//! One clock for a viewer that is another server.
//!
//! A browser is shown the frames of the past at once, under timestamps that say "now" ([`super::backlog`]). A server
//! records and passes on: it is told of every frame's own time. As it gets pictures of the past and sound of the present,
//! it could not know how far the two are apart; so the timestamps of both count from one zero, and the answer says so in
//! the words of RFC 7273. A server that lost pictures and is started again at the last keyframe knows by their times which it
//! has.

use std::time::Duration;

use super::timeline::ticks;
use crate::media::CLOCK_BEGINS;

/// A viewer's clock; its first frame sets it.
#[derive(Debug, Default)]
pub(super) struct OneClock {
    /// Running time of the first frame.
    first: Option<Duration>,
}

impl OneClock {
    /// The timestamp of a frame at this running time, in ticks of `rate` Hz.
    pub fn ticks(&mut self, time: Duration, rate: u32) -> u32 {
        let first = *self.first.get_or_insert(time);
        ticks((CLOCK_BEGINS + time).saturating_sub(first), rate) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_count_from_one_zero_however_long_the_stream_runs() {
        let days = Duration::from_secs(40 * 86_400);
        let mut clock = OneClock::default();
        let picture = clock.ticks(days, 90_000);
        let sound = clock.ticks(days + Duration::from_millis(2_500), 48_000);
        let before = clock.ticks(days - Duration::from_millis(20), 8_000);
        assert_eq!((picture, sound, before), (3600 * 90_000, 3600 * 48_000 + 120_000, 3600 * 8_000 - 160));
    }
}
