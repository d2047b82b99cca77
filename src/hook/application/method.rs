//! The methods of hooks, by the names WCS has for them (wcs.md 4.5).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::Invalid;

/// Declares the methods once: variant, the name on the wire, whether weir has an occasion to call it.
macro_rules! methods {
    ($($variant:ident $name:literal $called:literal,)*) => {
        /// A method a hook server may be called with.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Method {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl Method {
            /// All of them, in the order of the documents.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// Its name, which is the last part of the URL that is called.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether weir has an occasion to call it. The others concern what weir does not do, telephony above all;
            /// they may be enabled, so that scripts written for WCS go on working.
            pub fn is_called(self) -> bool {
                match self { $(Self::$variant => $called,)* }
            }
        }
    };
}

methods! {
    Connect "connect" true,
    ConnectionStatusEvent "ConnectionStatusEvent" true,
    RegistrationStatusEvent "RegistrationStatusEvent" false,
    PublishStream "publishStream" true,
    UnPublishStream "unPublishStream" true,
    PlayStream "playStream" true,
    PauseStream "pauseStream" false,
    StopStream "stopStream" true,
    Snapshot "snapshot" true,
    StreamStatusEvent "StreamStatusEvent" true,
    StreamKeepAliveEvent "StreamKeepAliveEvent" true,
    StreamEvent "StreamEvent" true,
    SendData "sendData" true,
    OnDataEvent "OnDataEvent" true,
    DataStatusEvent "DataStatusEvent" true,
    PushLogs "pushLogs" true,
    SubmitBugReport "submitBugReport" true,
    BugReportStatusEvent "BugReportStatusEvent" false,
    SessionDebug "sessionDebug" false,
    SessionDebugStatusEvent "SessionDebugStatusEvent" false,
    Call "call" false,
    Answer "answer" false,
    Hold "hold" false,
    Unhold "unhold" false,
    Transfer "transfer" false,
    Hangup "hangup" false,
    SendDtmf "sendDtmf" false,
    OnCallEvent "OnCallEvent" false,
    CallStatusEvent "CallStatusEvent" false,
    TransferStatusEvent "TransferStatusEvent" false,
    SendMessage "sendMessage" false,
    MessageStatusEvent "MessageStatusEvent" false,
    OnMessageEvent "OnMessageEvent" false,
    ErrorEvent "ErrorEvent" false,
    ErrorStatusEvent "ErrorStatusEvent" false,
}

impl FromStr for Method {
    type Err = Invalid;

    /// Reads a name; the case of letters does not matter, as no two names differ in it alone.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|method| method.name().eq_ignore_ascii_case(text)).ok_or(Invalid::Method)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Method {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Reads the methods that are known; those a later weir has written are passed over.
pub(super) fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<Method>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_in_any_case() {
        for method in Method::ALL {
            assert_eq!(method.name().parse::<Method>().unwrap(), method);
            assert_eq!(method.name().to_uppercase().parse::<Method>().unwrap(), method);
        }
        assert_eq!(Method::ALL.iter().collect::<BTreeSet<_>>().len(), Method::ALL.len());
        for wrong in ["", "connects", "conn ect", "StreamStatus"] {
            assert_eq!(wrong.parse::<Method>(), Err(Invalid::Method));
        }
    }
}
