//! A timer for deadlines that move with every message.

use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is moved far more often than it rings. It stays with the runtime from one wait to the next: to be set
/// anew for each message would cost more than much of the message's work.
pub(super) struct Alarm(Pin<Box<Sleep>>);

impl Default for Alarm {
    fn default() -> Self {
        Self(Box::pin(sleep_until(Instant::now())))
    }
}

impl Alarm {
    /// Resolves at a time, or never. Cancelled, it can be asked again, for another time.
    pub(super) async fn at(&mut self, at: Option<Instant>) {
        let Some(at) = at else { return std::future::pending().await };
        if at < self.0.deadline() {
            self.0.as_mut().reset(at);
        }
        loop {
            self.0.as_mut().await;
            if self.0.deadline() >= at {
                return;
            }
            // It was set for a deadline that has moved since.
            self.0.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_the_last_time_that_was_asked_for() {
        let (mut alarm, began) = (Alarm::default(), Instant::now());
        let s = Duration::from_secs;
        // Later and later, then earlier.
        for deadline in [5, 9, 60] {
            assert!(timeout(s(1), alarm.at(Some(began + s(deadline)))).await.is_err());
        }
        assert!(timeout(s(4), alarm.at(None)).await.is_err());
        assert_eq!(began.elapsed(), s(7));
        alarm.at(Some(began + s(8))).await;
        assert_eq!(began.elapsed(), s(8));
        // Further on, over a ring for nothing.
        alarm.at(Some(began + s(20))).await;
        assert_eq!(began.elapsed(), s(20));
        alarm.at(Some(began + s(3))).await;
        assert_eq!(began.elapsed(), s(20));
    }
}
