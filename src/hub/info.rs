//! Why a media session ends, in the words WCS has for it (`info`).

/// What a session that REST ends is told. Source: WebSDK `constants.js`.
pub const STOPPED_BY_REST: &str = "Stopped by rest /terminate";
/// What a session is told that a hook has ended at its keep-alive. Source: WebSDK `constants.js`.
pub const TERMINATED_BY_KEEP_ALIVE: &str = "Terminated by keep-alive";
/// What a session is told that has asked for its end. Source: WebSDK `constants.js`.
pub const STOPPED_BY_USER: &str = "Stopped by user";
/// What a session is told that ends with the server. Source: WebSDK `constants.js`.
pub const STOPPED_BY_SHUTDOWN: &str = "Requested stream shutdown";
/// What a session is told that ends with its browser's connection. Source: WebSDK `constants.js`.
pub const STOPPED_BY_DISCONNECT: &str = "Stopped by session disconnect";
/// What a subscriber is told when its publisher is gone. Source: WebSDK `constants.js`.
pub const STOPPED_BY_PUBLISHER: &str = "Stopped by publisher stop";
