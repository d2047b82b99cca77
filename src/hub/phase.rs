//! The life of a stream. Pure.
//!
//! ```text
//!            media flows               source lost
//! Waiting ─────────────────► Live ────────────────► Interrupted
//!    │                        ▲                          │ │
//!    │                        └──────── media flows ─────┘ │
//!    └──────────────┬─────────┴──────────────┬─────────────┘
//!                publisher leaves, or is ended from outside ─► (gone)
//! ```

/// Where a stream is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A publisher has the name; no media yet.
    Waiting,
    /// Media flows.
    Live,
    /// The source is lost and its publisher tries to get it back.
    Interrupted,
}

/// What moves a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Media flows, from here on with these tracks.
    Flows,
    /// The source is lost.
    Lost,
}

impl Phase {
    /// The phase after a step. A source lost before media came leaves a stream waiting.
    pub fn after(self, step: Step) -> Phase {
        match (self, step) {
            (_, Step::Flows) => Phase::Live,
            (Phase::Waiting, Step::Lost) => Phase::Waiting,
            (Phase::Live | Phase::Interrupted, Step::Lost) => Phase::Interrupted,
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
        use Step::{Flows, Lost};
        for (from, step, to) in [
            (Waiting, Flows, Live),
            (Waiting, Lost, Waiting),
            (Live, Flows, Live),
            (Live, Lost, Interrupted),
            (Interrupted, Flows, Live),
            (Interrupted, Lost, Interrupted),
        ] {
            assert_eq!(from.after(step), to, "{from:?} after {step:?}");
        }
    }
}
