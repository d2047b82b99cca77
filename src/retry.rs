//! When to try again: capped exponential back-off with jitter. Pure; the caller brings the random number.

use std::time::Duration;

/// How a failing job is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub initial: Duration,
    /// The longest wait.
    pub max: Duration,
    /// How many tries in a row may fail; 0 for no end.
    pub attempts: u32,
}

impl Backoff {
    /// The wait after `failed` tries in a row, or `None` when that was the last. `random` is uniform in 0..1; the wait
    /// is between half of the nominal one and all of it, so that many agents of one dead server do not come in step.
    pub fn wait(&self, failed: u32, random: f64) -> Option<Duration> {
        if self.attempts != 0 && failed >= self.attempts {
            return None;
        }
        let doublings = failed.saturating_sub(1).min(20);
        let nominal = self.initial.saturating_mul(1 << doublings).min(self.max);
        Some(nominal.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BACKOFF: Backoff = Backoff { initial: Duration::from_millis(500), max: Duration::from_secs(30), attempts: 0 };

    #[test]
    fn doubles_to_the_cap_and_ends_when_told() {
        let full = |failed| BACKOFF.wait(failed, 1.0).map(|w| w.as_millis());
        assert_eq!([full(1), full(2), full(3)], [Some(500), Some(1000), Some(2000)]);
        assert_eq!(full(99), Some(30_000));
        let three = Backoff { attempts: 3, ..BACKOFF };
        assert!(three.wait(2, 0.0).is_some());
        assert_eq!(three.wait(3, 0.0), None);
    }

    proptest! {
        #[test]
        fn a_wait_is_within_its_bounds(failed in 1u32.., random in 0.0..1.0) {
            let wait = BACKOFF.wait(failed, random).unwrap_or_default();
            prop_assert!(wait >= BACKOFF.initial / 2 && wait <= BACKOFF.max);
        }
    }
}
