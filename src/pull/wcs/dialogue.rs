//! What is said on a connection to another WCS server, without a socket or a clock.
//!
//! ```text
//!            connection ▶             offer ▶             setRemoteSDP ◀           PLAYING ◀
//!  Greeting ─────────────► Ready ──────────────► Offered ───────────────► Answered ─────────► Flowing
//!     │   ◀ getUserData      │ availableStream ▶    │  ◀ PENDING: more time   │                  │
//!     │                      ▼                      │                         │                  │
//!     │                    Asked ◀ availableStream  │                         │                  │
//!     └──────────────────────┴──────────────────────┴─────────────────────────┴──────────────────┴─► Over
//!           deadline, pings unanswered, FAILED, STOPPED, fail, a frame that is none, a path that has us in it
//! ```

use std::time::{Duration, Instant};

use serde_json::Value;

use super::call::Subject;
use crate::message::client::{self, FromServer};
use crate::message::{ping, pong};
use crate::name::{MediaSessionId, StreamName};

/// Longest time a server may take to get the stream itself, from its first `PENDING` on. A weir takes 30 s.
const PENDING: Duration = Duration::from_secs(60);
/// Longest text of a server that is shown.
const MAX_INFO: usize = 200;

/// How long a server may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From an open socket to `getUserData`.
    pub greeting: Duration,
    /// From an offer or a question to its answer.
    pub answer: Duration,
    /// The pause between two pings.
    pub ping: Duration,
    /// How many pings in a row may find no sign of life, at least 1.
    pub probes: u32,
}

/// Which way media is to flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From there to here: `playStream`.
    Play,
    /// From here to there: `publishStream`.
    Publish,
}

/// What is to be done after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Todo {
    /// Send a text frame.
    Send(String),
    /// The connection is established: ask or offer.
    Ready,
    /// The server has answered the offer.
    Answer(String),
    /// The server says that media flows.
    Flowing,
    /// The publishers the stream comes from, the nearest first.
    Path(Vec<String>),
    /// Whether the name that was asked for can be played.
    Available(bool),
    /// It is over.
    Over(End),
}

/// How a conversation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The server, or the way to it: another try may go better.
    Lost(String),
    /// The server has the connection but not the stream; waits need not grow.
    NoStream(String),
    /// The stream would feed itself: no further try.
    Loop(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting,
    Ready,
    Asked,
    Offered,
    Answered,
    Flowing,
    Over,
}

/// One conversation.
#[derive(Debug)]
pub(super) struct Dialogue {
    way: Way,
    limits: Limits,
    /// The media session we chose.
    session: MediaSessionId,
    /// The stream's name there.
    name: StreamName,
    /// The publisher the stream has here; what comes from it must not feed it.
    ours: MediaSessionId,
    /// What is shown there.
    custom: Option<Value>,
    state: State,
    /// When the state must have changed.
    deadline: Option<Instant>,
    next_ping: Instant,
    unanswered: u32,
}

impl Dialogue {
    /// Begins, with an open socket, at `now`.
    pub fn new(subject: Subject, limits: Limits, now: Instant) -> (Self, Vec<Todo>) {
        let Subject { way, name, ours, custom, trusted: _ } = subject;
        let dialogue = Self {
            way,
            limits,
            session: MediaSessionId::random(),
            name,
            ours,
            custom,
            state: State::Greeting,
            deadline: Some(now + limits.greeting),
            next_ping: now + limits.ping,
            unanswered: 0,
        };
        (dialogue, vec![Todo::Send(client::connection())])
    }

    /// The media session's id there.
    pub fn session(&self) -> &MediaSessionId {
        &self.session
    }

    /// Asks whether the stream can be played.
    pub fn ask(&mut self, now: Instant) -> Vec<Todo> {
        self.enter(State::Asked, Some(now + self.limits.answer));
        vec![Todo::Send(client::available_stream(&self.session, &self.name, self.custom.as_ref()))]
    }

    /// Offers to play.
    pub fn play(&mut self, now: Instant, sdp: &str) -> Vec<Todo> {
        self.enter(State::Offered, Some(now + self.limits.answer));
        vec![Todo::Send(client::play_stream(&self.session, &self.name, sdp, self.custom.as_ref()))]
    }

    /// Offers to publish what has pictures, sound, or both, and comes from `path`.
    pub fn publish(&mut self, now: Instant, sdp: &str, tracks: (bool, bool), path: &[String]) -> Vec<Todo> {
        self.enter(State::Offered, Some(now + self.limits.answer));
        vec![Todo::Send(client::publish_stream(&self.session, &self.name, sdp, tracks, path))]
    }

    /// What is said at the end of one's own accord; nothing where the server knows of no media session.
    pub fn bye(&self) -> Option<String> {
        match (self.state, self.way) {
            (State::Offered | State::Answered | State::Flowing, Way::Play) => {
                Some(client::stop_stream(&self.session, &self.name))
            }
            (State::Offered | State::Answered | State::Flowing, Way::Publish) => {
                Some(client::unpublish_stream(&self.session, &self.name))
            }
            _ => None,
        }
    }

    /// When [`Dialogue::tick`] is due.
    pub fn due(&self) -> Instant {
        self.deadline.map_or(self.next_ping, |deadline| deadline.min(self.next_ping))
    }

    /// The clock has come to [`Dialogue::due`].
    pub fn tick(&mut self, now: Instant) -> Vec<Todo> {
        if self.state == State::Over {
            return Vec::new();
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return self.over(End::Lost(self.late().into()));
        }
        if now < self.next_ping {
            return Vec::new();
        }
        if self.unanswered >= self.limits.probes {
            return self.over(End::Lost("the server does not answer pings".into()));
        }
        self.unanswered += 1;
        self.next_ping = now + self.limits.ping;
        vec![Todo::Send(ping())]
    }

    /// Anything came in: the server lives.
    pub fn alive(&mut self) {
        self.unanswered = 0;
    }

    /// A text frame came in.
    pub fn heard(&mut self, now: Instant, frame: &str) -> Vec<Todo> {
        self.alive();
        if self.state == State::Over {
            return Vec::new();
        }
        let message = match FromServer::parse(frame) {
            Ok(message) => message,
            Err(reason) => {
                return self.over(End::Lost(format!("the server does not speak WCS's protocol: {reason}")));
            }
        };
        let ours = |session: &str| session == self.session.as_str();
        match message {
            FromServer::Ping => vec![Todo::Send(pong())],
            FromServer::UserData if self.state == State::Greeting => {
                self.enter(State::Ready, None);
                vec![Todo::Ready]
            }
            FromServer::Available { session, yes, .. } if self.state == State::Asked && ours(&session) => {
                self.enter(State::Ready, None);
                vec![Todo::Available(yes)]
            }
            FromServer::RemoteSdp { session, sdp } if self.state == State::Offered && ours(&session) => {
                self.enter(State::Answered, None);
                vec![Todo::Answer(sdp)]
            }
            FromServer::Status { session, status, info, path } if ours(&session) => {
                self.status(now, &status, &info, path)
            }
            FromServer::Fail { method, session, info } if ours(&session) || self.refuses(&method) => {
                self.over(End::Lost(format!("the server refuses {}: {}", shown(&method), shown(&info))))
            }
            // A second SDP, what is about another session, and what only people want to know.
            _ => Vec::new(),
        }
    }

    /// A `fail` without a session is about what we wait for if it names it.
    fn refuses(&self, method: &str) -> bool {
        match self.state {
            State::Greeting => method == "connection",
            State::Asked => method == "availableStream",
            State::Offered => method == "playStream" || method == "publishStream",
            _ => false,
        }
    }

    fn status(&mut self, now: Instant, status: &str, info: &str, path: Option<Vec<String>>) -> Vec<Todo> {
        let mut todo = Vec::new();
        if let Some(path) = path {
            if path.iter().any(|publisher| publisher == self.ours.as_str()) {
                let reason = format!("a loop: {} there comes from this stream", self.name);
                return self.over(End::Loop(reason));
            }
            todo.push(Todo::Path(path));
        }
        match status {
            "PENDING" if self.state == State::Offered => self.deadline = Some(now + PENDING),
            "PLAYING" | "PUBLISHING" if self.state == State::Answered => {
                self.enter(State::Flowing, None);
                todo.push(Todo::Flowing);
            }
            "FAILED" | "STOPPED" | "UNPUBLISHED" => {
                let info = if info.is_empty() { status } else { info };
                return self.over(End::NoStream(format!("the server says: {}", shown(info))));
            }
            _ => {}
        }
        todo
    }

    fn late(&self) -> &'static str {
        match self.state {
            State::Greeting => "the server does not answer connection (no getUserData)",
            State::Asked => "the server does not answer availableStream",
            _ => "the server does not answer the offer",
        }
    }

    fn enter(&mut self, state: State, deadline: Option<Instant>) {
        self.state = state;
        self.deadline = deadline;
    }

    fn over(&mut self, end: End) -> Vec<Todo> {
        self.enter(State::Over, None);
        vec![Todo::Over(end)]
    }
}

/// A server's text as it may be logged: one line, not long, secrets masked.
fn shown(text: &str) -> String {
    let line: String = text.chars().filter(|c| !c.is_control()).take(MAX_INFO).collect();
    crate::name::mask(&line)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const LIMITS: Limits = Limits {
        greeting: Duration::from_secs(5),
        answer: Duration::from_secs(10),
        ping: Duration::from_secs(4),
        probes: 2,
    };

    struct Talk {
        dialogue: Dialogue,
        now: Instant,
    }

    impl Talk {
        fn new(way: Way) -> Self {
            let now = Instant::now();
            let (name, ours) = (StreamName::new("s").unwrap(), MediaSessionId::new("OURS").unwrap());
            let subject = Subject { way, name, ours, custom: None, trusted: false };
            let (dialogue, first) = Dialogue::new(subject, LIMITS, now);
            assert!(matches!(&first[..], [Todo::Send(hello)] if hello.contains(r#""message":"connection""#)));
            Self { dialogue, now }
        }

        fn ready(way: Way) -> Self {
            let mut talk = Self::new(way);
            assert_eq!(talk.hears("getUserData", json!([{}])), [Todo::Ready]);
            talk
        }

        fn offered() -> Self {
            let mut talk = Self::ready(Way::Play);
            assert!(sent(&talk.dialogue.play(talk.now, "v=0"), "playStream"));
            talk
        }

        fn hears(&mut self, message: &str, data: Value) -> Vec<Todo> {
            let text = data.to_string().replace("\"SESSION\"", &format!("\"{}\"", self.dialogue.session));
            self.dialogue.heard(self.now, &format!(r#"{{"message":"{message}","data":{text}}}"#))
        }

        fn status(&mut self, status: &str) -> Vec<Todo> {
            self.hears(
                "notifyStreamStatusEvent",
                json!([{"mediaSessionId": "SESSION", "status": status, "info": "why"}]),
            )
        }

        fn later(&mut self, seconds: u64) -> Vec<Todo> {
            let end = self.now + Duration::from_secs(seconds);
            let mut all = Vec::new();
            while self.dialogue.due() <= end && self.dialogue.state != State::Over {
                self.now = self.dialogue.due();
                all.extend(self.dialogue.tick(self.now));
            }
            self.now = end;
            all
        }
    }

    fn sent(todo: &[Todo], message: &str) -> bool {
        matches!(todo, [Todo::Send(text)] if text.contains(&format!(r#""message":"{message}""#)))
    }

    fn lost(todo: &[Todo], words: &str) -> bool {
        matches!(todo.last(), Some(Todo::Over(End::Lost(reason))) if reason.contains(words))
    }

    #[test]
    fn a_stream_is_played_to_its_end() {
        let mut talk = Talk::offered();
        assert_eq!(talk.status("PENDING"), []);
        assert_eq!(talk.hears("setRemoteSDP", json!(["SESSION", "v=1"])), [Todo::Answer("v=1".into())]);
        assert_eq!(talk.status("PLAYING"), [Todo::Flowing]);
        assert_eq!(talk.status("PLAYING"), [], "said again, it is no news");
        assert!(sent(&talk.hears("ping", json!([null])), "pong"));
        assert!(talk.dialogue.bye().unwrap().contains("stopStream"));
        assert_eq!(talk.status("FAILED"), [Todo::Over(End::NoStream("the server says: why".into()))]);
        assert_eq!(talk.dialogue.bye(), None);
        assert_eq!(talk.status("PLAYING"), [], "nothing comes after the end");
    }

    #[test]
    fn a_stream_is_published() {
        let mut talk = Talk::ready(Way::Publish);
        assert_eq!(talk.dialogue.bye(), None);
        assert!(sent(&talk.dialogue.publish(talk.now, "v=0", (true, true), &[]), "publishStream"));
        talk.hears("setRemoteSDP", json!(["SESSION", "v=1"]));
        assert_eq!(talk.status("PUBLISHING"), [Todo::Flowing]);
        assert!(talk.dialogue.bye().unwrap().contains("unPublishStream"));
    }

    #[test]
    fn a_name_is_asked_for() {
        for (status, yes) in [(json!("true"), true), (json!("false"), false), (json!(true), false)] {
            let mut talk = Talk::ready(Way::Play);
            assert!(sent(&talk.dialogue.ask(talk.now), "availableStream"));
            assert_eq!(talk.hears("availableStream", json!([{"id": "other", "status": "true"}])), []);
            assert_eq!(
                talk.hears("availableStream", json!([{"id": "SESSION", "status": status}])),
                [Todo::Available(yes)]
            );
            assert_eq!(talk.later(3), []);
        }
    }

    #[test]
    fn every_wait_has_an_end() {
        assert!(lost(&Talk::new(Way::Play).later(6), "getUserData"));
        let mut asked = Talk::ready(Way::Play);
        asked.dialogue.ask(asked.now);
        // Pings are answered: the server lives, and says nothing.
        let mut end = Vec::new();
        for _ in 0..4 {
            end.extend(asked.later(3));
            asked.dialogue.alive();
        }
        assert!(lost(&end, "availableStream"), "{end:?}");
        let mut pending = Talk::offered();
        pending.status("PENDING");
        for second in 0..70 {
            pending.dialogue.alive();
            let todo = pending.later(1);
            assert_eq!(lost(&todo, "answer the offer"), second == 59, "{second}: {todo:?}");
            if second == 59 {
                break;
            }
        }
    }

    #[test]
    fn a_server_that_vanishes_is_noticed() {
        let mut talk = Talk::offered();
        talk.hears("setRemoteSDP", json!(["SESSION", "v=1"]));
        talk.status("PLAYING");
        let todo = talk.later(13);
        assert_eq!(todo.iter().filter(|todo| sent(std::slice::from_ref(todo), "ping")).count(), 2);
        assert!(lost(&todo, "pings"));
        let mut lives = Talk::ready(Way::Play);
        for _ in 0..100 {
            lives.dialogue.alive();
            assert!(!lives.later(4).iter().any(|todo| matches!(todo, Todo::Over(_))));
        }
    }

    #[test]
    fn a_loop_is_refused() {
        let mut talk = Talk::offered();
        let data = |path: Value| json!([{"mediaSessionId": "SESSION", "status": "PENDING", "weirPath": path}]);
        let path = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(talk.hears("notifyStreamStatusEvent", data(json!(["a", "b"]))), [Todo::Path(path)]);
        let todo = talk.hears("notifyStreamStatusEvent", data(json!(["a", "OURS"])));
        assert!(matches!(&todo[..], [Todo::Over(End::Loop(reason))] if reason.contains("loop")), "{todo:?}");
    }

    #[test]
    fn a_refusal_ends_it() {
        let mut early = Talk::new(Way::Play);
        assert_eq!(early.hears("fail", json!([{"apiMethod": "pushLogs", "info": "x"}])), []);
        assert!(lost(&early.hears("fail", json!([{"apiMethod": "connection", "info": "go\u{7}away"}])), "goaway"));
        assert!(lost(&Talk::offered().hears("fail", json!([{"apiMethod": "playStream", "id": ""}])), "playStream"));
        assert!(lost(&Talk::offered().hears("fail", json!([{"apiMethod": "x", "id": "SESSION"}])), "refuses"));
        let long = "x".repeat(9000);
        let todo = Talk::offered().hears("fail", json!([{"apiMethod": "playStream", "info": long}]));
        assert!(matches!(&todo[..], [Todo::Over(End::Lost(reason))] if reason.len() < 300));
    }

    #[test]
    fn garbage_ends_it_and_what_is_unknown_does_not() {
        for garbage in ["", "hello", "{}", r#"{"message":"setRemoteSDP","data":[]}"#] {
            let mut talk = Talk::offered();
            assert!(lost(&talk.dialogue.heard(talk.now, garbage), "WCS's protocol"), "{garbage}");
        }
        let mut talk = Talk::offered();
        assert_eq!(talk.hears("inboundVideoRate", json!([{}])), []);
        assert_eq!(talk.hears("setRemoteSDP", json!(["another", "v=1"])), []);
        assert_eq!(talk.hears("getUserData", json!([{}])), [], "a second greeting is none");
        talk.hears("setRemoteSDP", json!(["SESSION", "v=1"]));
        assert_eq!(talk.hears("setRemoteSDP", json!(["SESSION", "v=2"])), [], "one answer to one offer");
    }

    proptest! {
        /// Whatever a server says in whatever order: it ends at most once, and waits stay bounded.
        #[test]
        fn no_order_of_messages_confuses_it(steps in prop::collection::vec(0..9_usize, 0..40)) {
            let mut talk = Talk::offered();
            let mut ends = 0;
            for step in steps {
                let todo = match step {
                    0 => talk.hears("getUserData", json!([{}])),
                    1 => talk.hears("setRemoteSDP", json!(["SESSION", "v=1"])),
                    2 => talk.status("PENDING"),
                    3 => talk.status("PLAYING"),
                    4 => talk.status("FAILED"),
                    5 => talk.hears("ping", json!([null])),
                    6 => talk.hears("availableStream", json!([{"id": "SESSION", "status": "true"}])),
                    7 => talk.later(1),
                    _ => talk.hears("x", json!([1])),
                };
                ends += todo.iter().filter(|todo| matches!(todo, Todo::Over(_))).count();
            }
            prop_assert!(ends <= 1);
            prop_assert!(talk.dialogue.due() <= talk.now + PENDING.max(LIMITS.ping));
        }
    }
}
