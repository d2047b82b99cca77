//! How much there may be at once, and who is refused: counts, descriptors, requests of an address.
//!
//! Every part asks before it begins something, and gets room or a [`Refused`] that names the setting; each refusal is
//! counted. A count of 0 in the settings is no limit. The answer costs no lock on a frame's path: it is asked when
//! something comes, never while it runs.

mod rate;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use rate::Rates;

use crate::config::Limits;
use crate::meter::Meter;

/// How long a count of the open descriptors is good for.
const COUNTED: Duration = Duration::from_millis(50);

/// For how long refusals of one kind are not said again.
const SILENCE: Duration = Duration::from_secs(60);

/// There is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server has no room for more: {limit} is {most}")]
pub struct Refused {
    /// The setting.
    pub limit: &'static str,
    /// Its value.
    pub most: u64,
}

/// Counts refusals, and says the first of each kind in the log.
#[derive(Clone)]
struct Refusals {
    meter: Meter,
    told: Arc<Mutex<HashMap<&'static str, Instant>>>,
}

impl Refusals {
    fn refuse(&self, limit: &'static str, most: u64) -> Refused {
        let refused = Refused { limit, most };
        self.meter.refused(limit);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(limit).is_none_or(|at| at.elapsed() >= SILENCE) {
            told.insert(limit, Instant::now());
            tracing::warn!("refused: {refused}; for a minute further ones are only counted (weir_refusals)");
        }
        refused
    }
}

/// Places of one kind. Dropping what [`Places::take`] gives makes the place free. A cheap handle.
#[derive(Clone)]
pub struct Places {
    limit: &'static str,
    most: u64,
    free: Arc<Semaphore>,
    refusals: Refusals,
}

/// A place that is taken; free when it is dropped.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit);

impl Places {
    /// Takes a place.
    ///
    /// # Errors
    /// [`Refused`] when none is free.
    pub fn take(&self) -> Result<Place, Refused> {
        let free = self.free.clone().try_acquire_owned();
        free.map(Place).map_err(|_| self.refusals.refuse(self.limit, self.most))
    }
}

/// The limits of the server. A cheap handle.
#[derive(Clone)]
pub struct Admission {
    limits: Arc<Limits>,
    refusals: Refusals,
    descriptors: Arc<Mutex<Option<(Instant, u64)>>>,
    streams: Places,
    agents: Places,
    recordings: Places,
    browsers: Places,
    calls: Places,
    rates: Arc<Rates>,
}

impl Default for Admission {
    /// With the limits of the default settings.
    fn default() -> Self {
        Self::new(crate::config::Config::default().limits, Meter::default())
    }
}

impl Admission {
    /// With these limits.
    pub fn new(limits: Limits, meter: Meter) -> Self {
        let refusals = Refusals { meter, told: Arc::default() };
        let places = |limit, most| places(limit, most, &refusals);
        Self {
            descriptors: Arc::default(),
            streams: places("max_streams", limits.streams),
            agents: places("max_pull_agents", limits.agents),
            recordings: places("max_recordings", limits.recordings),
            browsers: places("ws_max_connections", limits.browsers),
            calls: places("rest_max_connections", limits.calls),
            rates: Arc::new(Rates::new(limits.requests)),
            limits: Arc::new(limits),
            refusals,
        }
    }

    /// The settings.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Room for a stream. It takes pipelines, threads and descriptors, so those are looked at too.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn stream(&self) -> Result<Place, Refused> {
        self.descriptors()?;
        self.streams.take()
    }

    /// The places of one stream's players.
    pub fn viewers(&self) -> Places {
        places("max_viewers_per_stream", self.limits.viewers, &self.refusals)
    }

    /// The places of the RTMP server's clients.
    pub fn rtmp(&self, most: u64) -> Places {
        places("rtmp_max_connections", most, &self.refusals)
    }

    /// Room for a pull agent.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn agent(&self) -> Result<Place, Refused> {
        self.agents.take()
    }

    /// Room for a recording.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn recording(&self) -> Result<Place, Refused> {
        self.descriptors()?;
        self.recordings.take()
    }

    /// Room for a browser's WebSocket.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn browser(&self) -> Result<Place, Refused> {
        self.descriptors()?;
        self.browsers.take()
    }

    /// Room for one more media session of a browser that has `have`.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn session(&self, have: usize) -> Result<(), Refused> {
        let most = self.limits.sessions;
        if most == 0 || (have as u64) < most {
            return Ok(());
        }
        Err(self.refusals.refuse("ws_max_sessions", most))
    }

    /// A browser's message was larger than `ws_max_message`.
    pub fn message_refused(&self) {
        self.refusals.meter.refused("ws_max_message");
    }

    /// Room for a connection of REST's. The last descriptors are for these.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn call(&self) -> Result<Place, Refused> {
        self.calls.take()
    }

    /// Room for a request from an address.
    ///
    /// # Errors
    /// [`Refused`] when it sends more than there may be in a second.
    pub fn request(&self, from: std::net::IpAddr) -> Result<(), Refused> {
        if self.rates.take(from, Instant::now()) {
            return Ok(());
        }
        Err(self.refusals.refuse("rest_max_requests", self.limits.requests))
    }

    /// Whether descriptors are left beside those that are reserved.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn descriptors(&self) -> Result<(), Refused> {
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let reserved = self.limits.descriptors;
        let Some(most) = most.filter(|_| reserved > 0) else { return Ok(()) };
        if self.open() + reserved < most {
            return Ok(());
        }
        Err(self.refusals.refuse("reserved_descriptors", reserved))
    }

    /// How many descriptors are open, as of a moment ago.
    fn open(&self) -> u64 {
        let mut counted = self.descriptors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, open)) = *counted
            && at.elapsed() < COUNTED
        {
            return open;
        }
        let open = procfs::process::Process::myself().and_then(|own| own.fd_count()).unwrap_or(0) as u64;
        *counted = Some((Instant::now(), open));
        open
    }
}

/// Lets the process open as many descriptors as the system allows it; gives how many that is.
pub fn raise_descriptors() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    // What cannot be raised stays as it is; admission goes by what is in effect.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
    getrlimit(Resource::Nofile).current
}

fn places(limit: &'static str, most: u64, refusals: &Refusals) -> Places {
    let permits = if most == 0 { Semaphore::MAX_PERMITS } else { usize::try_from(most).unwrap_or(usize::MAX) };
    let free = Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
    Places { limit, most, free, refusals: refusals.clone() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Config;

    fn admission(change: impl FnOnce(&mut Limits)) -> Admission {
        let mut limits = Config::default().limits;
        change(&mut limits);
        Admission::new(limits, Meter::default())
    }

    #[test]
    fn places_are_taken_and_given_back() {
        let admission = admission(|limits| (limits.streams, limits.agents, limits.sessions) = (2, 0, 3));
        let (one, _two) = (admission.stream().unwrap(), admission.stream().unwrap());
        let refused = admission.stream().unwrap_err();
        assert_eq!(refused, Refused { limit: "max_streams", most: 2 });
        assert_eq!(refused.to_string(), "the server has no room for more: max_streams is 2");
        drop(one);
        admission.stream().unwrap();
        let all: Vec<_> = (0..10_000).map(|_| admission.agent().unwrap()).collect();
        assert_eq!(all.len(), 10_000, "0 is no limit");
        assert!(admission.session(2).is_ok() && admission.session(3).is_err());
    }

    #[test]
    fn the_last_descriptors_are_reserved() {
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap();
        let none_left = admission(|limits| limits.descriptors = most);
        assert_eq!(none_left.stream().unwrap_err().limit, "reserved_descriptors");
        assert!(none_left.call().is_ok(), "REST has those that are reserved");
        assert!(admission(|limits| limits.descriptors = 0).stream().is_ok());
        assert!(admission(|limits| limits.descriptors = 1).stream().is_ok());
    }
}
