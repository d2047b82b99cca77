//! The life of a stream. Pure.
//!
//! ```text
//!            media flows          source or publisher lost
//! Waiting ─────────────────► Live ────────────────► Interrupted
//!    │                        ▲                          │ │
//!    │                        └──────── media flows ─────┘ │
//!    └──────────────┬─────────┴──────────────┬─────────────┘
//!      publisher leaves for good, or is ended from outside ─► (gone)
//! ```

/// Where a stream is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A publisher has the name; no media yet.
    Waiting,
    /// Media flows.
    Live,
    /// The source is lost and its publisher tries to get it back, or the publisher is lost and may come back.
    Interrupted,
}

/// What moves a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Media flows, from here on with these tracks.
    Flows,
    /// The source is lost.
    Lost,
    /// The publisher has left, and the stream waits for it.
    Left,
}

impl Phase {
    /// The phase after a step. A source lost before media came leaves a stream waiting.
    pub fn after(self, step: Step) -> Phase {
        match (self, step) {
            (_, Step::Flows) => Phase::Live,
            (Phase::Waiting, Step::Lost | Step::Left) => Phase::Waiting,
            (Phase::Live | Phase::Interrupted, Step::Lost | Step::Left) => Phase::Interrupted,
        }
    }

    /// The publisher's status in a WCS `Stream` object. A stream that waits for its source to come back keeps its
    /// viewers, so it stays PUBLISHING for them.
    pub fn publisher_status(self) -> &'static str {
        match self {
            Phase::Waiting => "PENDING",
            Phase::Live | Phase::Interrupted => "PUBLISHING",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_from_every_phase() {
        use Phase::{Interrupted, Live, Waiting};
        use Step::{Flows, Left, Lost};
        for (from, step, to) in [
            (Waiting, Flows, Live),
            (Waiting, Lost, Waiting),
            (Live, Flows, Live),
            (Live, Lost, Interrupted),
            (Waiting, Left, Waiting),
            (Live, Left, Interrupted),
            (Interrupted, Left, Interrupted),
            (Interrupted, Flows, Live),
            (Interrupted, Lost, Interrupted),
        ] {
            assert_eq!(from.after(step), to, "{from:?} after {step:?}");
        }
    }
}
