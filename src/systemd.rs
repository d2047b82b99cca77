//! What systemd is told of its service (sd_notify(3)): it is ready, it lives, it stops. Without systemd nobody is told.

use std::convert::Infallible;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinSet;

/// What stopping takes beyond `shutdown_timeout`: threads that hang are waited for a moment, and the process ends.
const FAREWELL: Duration = Duration::from_secs(5);

/// The server listens.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The server stops, which takes at most `limit`: also where the unit's `TimeoutStopSec` is shorter.
pub fn stopping(limit: Duration) {
    let limit = u32::try_from((limit + FAREWELL).as_micros()).unwrap_or(u32::MAX);
    let status = "shutting down: recordings are finished";
    tell(&[NotifyState::Stopping, NotifyState::Status(status), NotifyState::ExtendTimeoutUsec(limit)]);
}

/// Says that the server lives, twice in the unit's `WatchdogSec`. Each time a worker of the runtime has to have done
/// something: where all of them hang, systemd hears nothing and starts the server anew.
pub async fn beat() -> Infallible {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut workers = JoinSet::new();
    loop {
        workers.spawn(async {});
        workers.join_next().await;
        tell(&[NotifyState::Watchdog]);
        tokio::time::sleep(limit / 2).await;
    }
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("systemd cannot be told how the service is: {error}");
    }
}
