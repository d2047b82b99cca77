//! A browser's media sessions: from the wish to publish or play to the last word.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Signal;
use super::connection::{Connection, MediaSession, Wish};
use super::outbox::Outbox;
use crate::gate::Action;
use crate::hook::{self, Method, Object, Verdict};
use crate::hub::{
    Player, PublishError, Publisher, Recorded, STOPPED_BY_SHUTDOWN, STOPPED_BY_USER, Shown, StreamHandle,
    SubscribeError, Subscriber, is_last_word,
};
use crate::message::{self, Status, StreamCall};
use crate::name::{MediaSessionId, StreamName};
use crate::webrtc::play::{PlayNews, Viewing};
use crate::webrtc::publish::{self, Ending, Offer, PublishNews};
use crate::webrtc::{LastWord, SdpError};

/// The longest wish to publish or play, bytes: what a hook server is asked about is held meanwhile. An offer with every
/// codec there is has some 10,000.
const WISH: usize = 256 << 10;

/// Why a media session does not begin: WCS's `info`.
type Info = String;

impl Connection {
    /// Begins to publish or to play, in a task of its own; what becomes of it is told as its status.
    pub(super) fn begin(&mut self, wish: Wish, published: bool) -> Result<(), String> {
        if wish.len > WISH {
            self.refuse(&wish.call, published, "Failed to add stream to proxy");
            return Ok(());
        }
        let Ok((id, hook)) = self.open(&wish.call, published) else { return Ok(()) };
        let action = if published { Action::Publish } else { Action::Play };
        if let Err(info) = self.admit(action, &wish) {
            self.refuse(&wish.call, published, &info);
            return Ok(());
        }
        let Wish { said, call, .. } = wish;
        let mut wanted = Shown::wanted(published);
        wanted.extend(said);
        hook.remember(&id, &wanted);
        let over = CancellationToken::new();
        let teller = Arc::new(Teller {
            outbox: self.outbox.clone(),
            over: over.clone(),
            hook,
            id: id.clone(),
            asked: call.name.unwrap_or_default(),
            published,
            weir: self.weir,
            stream: OnceLock::new(),
            shown: Mutex::new(first_shown(&wanted)),
        });
        let session = MediaSession {
            teller: teller.clone(),
            stop: CancellationToken::new(),
            stopped_by: Arc::default(),
            over,
            told: CancellationToken::new(),
        };
        let opening = Opening {
            signal: self.signal.clone(),
            connection: self.id.clone(),
            teller,
            login: self.login.clone(),
            id: id.clone(),
            wanted,
            stop: session.stop.clone(),
            stopped_by: session.stopped_by.clone(),
            _told: session.told.clone().drop_guard(),
            _over: session.over.clone().drop_guard(),
        };
        self.sessions.insert(id, session);
        self.signal.tasks.spawn(opening.run(published));
        Ok(())
    }

    /// The checks every new media session has to pass; failures are told as its FAILED.
    fn open(&self, call: &StreamCall, published: bool) -> Result<(MediaSessionId, Arc<hook::Session>), ()> {
        let id = call.media_session_id.as_deref().and_then(|id| MediaSessionId::new(id).ok());
        let named = call.name.as_deref().is_some_and(|name| StreamName::new(name).is_ok());
        let info = match (&id, &self.hook) {
            (None, _) => "MediaSessionId is null".into(),
            _ if !named => "Stream not found".into(),
            (_, None) => "Session not ready".into(),
            (Some(id), _) if self.in_use(id) => "MediaSessionId is already in use".into(),
            _ if call.sdp.is_none() => "Failed to add stream to proxy".into(),
            (Some(id), Some(hook)) => match self.signal.admission.session(self.sessions.len()) {
                Ok(()) => return Ok((id.clone(), hook.clone())),
                Err(refused) => refused.to_string(),
            },
        };
        self.refuse(call, published, &info);
        Err(())
    }

    /// Tells the FAILED of a media session that is none.
    fn refuse(&self, call: &StreamCall, published: bool, info: &str) {
        let status = Status {
            session: call.media_session_id.as_deref().unwrap_or_default(),
            name: call.name.as_deref().unwrap_or_default(),
            published,
            status: "FAILED",
            info: Some(info),
            record_name: None,
            muted: None,
        };
        self.outbox.text(message::stream_status(message::status_fields(&status)));
    }

    fn in_use(&self, id: &MediaSessionId) -> bool {
        let elsewhere = |stream: &StreamHandle| stream.look(|view| view.sessions.iter().any(|other| other.id == *id));
        self.sessions.get(id).is_some_and(|session| !session.over.is_cancelled())
            || self.signal.hub.streams().values().any(elsewhere)
    }

    /// The browser has left a media session; its hook server is told, and cannot keep it from that.
    pub(super) fn stop_session(&mut self, wish: Wish, published: bool) -> Result<(), String> {
        let Wish { said, call, .. } = wish;
        let id = call.media_session_id.as_deref().and_then(|id| MediaSessionId::new(id).ok());
        match id.as_ref().and_then(|id| self.sessions.get(id)) {
            Some(session) => {
                session.teller.leaves(if published { Method::UnPublishStream } else { Method::StopStream }, said);
                session.stop(LastWord { failed: false, info: STOPPED_BY_USER });
            }
            // The browser waits for the last word all the same.
            None => self.refuse(&call, published, "Stream not found"),
        }
        Ok(())
    }
}

/// A media session on its way.
struct Opening {
    signal: Signal,
    connection: String,
    /// Who the page said it is as it connected.
    login: Option<String>,
    teller: Arc<Teller>,
    id: MediaSessionId,
    /// What the browser wants, in its own words.
    wanted: Object,
    stop: CancellationToken,
    stopped_by: Arc<OnceLock<LastWord>>,
    _over: DropGuard,
    _told: DropGuard,
}

impl Opening {
    async fn run(self, published: bool) {
        let begun = match published {
            true => self.publish().await,
            false => self.play().await,
        };
        if let Err(info) = begun {
            self.teller.status("FAILED", Some(&info), None);
        }
        self.teller.ended();
    }

    /// Asks the hook server; gives what it made of the browser's wish. `Ok(None)`: the browser did not wait.
    async fn ask(&self, method: Method) -> Result<Option<(StreamName, StreamCall)>, Info> {
        let verdict = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ok(None),
            verdict = self.teller.hook.ask(method, self.wanted.clone()) => verdict,
        };
        let mut wanted = self.wanted.clone();
        match verdict {
            Verdict::Refused(info) => return Err(info),
            Verdict::Go(replaced) => wanted.extend(replaced),
        }
        let unusable = |_| "REST answer cannot be used: a field is of the wrong type".to_owned();
        let call: StreamCall = serde_json::from_value(Value::Object(wanted)).map_err(unusable)?;
        let name = call.name.as_deref().and_then(|name| StreamName::new(name).ok());
        Ok(Some((name.ok_or("Stream not found")?, call)))
    }

    fn last_word(&self) -> LastWord {
        self.stopped_by.get().copied().unwrap_or(LastWord { failed: false, info: STOPPED_BY_USER })
    }

    /// The browser did not wait for the media session to begin: `stopped` is the status of one that was stopped.
    fn not_begun(&self, stopped: &str) {
        let LastWord { failed, info } = self.last_word();
        self.teller.status(if failed { "FAILED" } else { stopped }, Some(info), None);
    }

    async fn publish(&self) -> Result<(), Info> {
        let Some((name, call)) = self.ask(Method::PublishStream).await? else {
            self.not_begun("UNPUBLISHED");
            return Ok(());
        };
        let tools = self.signal.publish.clone();
        let offer =
            Offer::read(call.sdp.as_deref().unwrap_or_default(), &tools.codecs).map_err(|error| info_of(&error))?;
        let publisher = Publisher {
            name: name.clone(),
            session: self.id.clone(),
            app_key: self.teller.hook.app_key().to_owned(),
            connection: self.connection.clone(),
            login: login(self.wanted.get("custom")).or_else(|| self.login.clone()),
            provider: "WebRTC",
            media_type: "publish",
            transport: "UDP",
            record: (call.record == Some(true) && self.signal.record).then_some(Recorded::Everything),
            by: "a browser".into(),
        };
        let publication = self.signal.hub.publish(publisher).await.map_err(|error| match error {
            PublishError::NameTaken(_) => "Stream name is already in use".into(),
            PublishError::Refused(refused) => refused.to_string(),
            PublishError::Closing => STOPPED_BY_SHUTDOWN.into(),
        })?;
        if let Some(path) = call.weir_path.as_ref().and_then(message::client::path) {
            publication.comes_from(path);
        }
        if let Some(stream) = self.signal.hub.streams().get(&name) {
            self.teller.follow(stream);
        }
        let news = |news| self.teller.publisher(news);
        publish::run(tools, publication, offer, self.stop.clone(), || self.last_word(), news).await;
        Ok(())
    }

    async fn play(&self) -> Result<(), Info> {
        let Some((name, call)) = self.ask(Method::PlayStream).await? else {
            self.not_begun("STOPPED");
            return Ok(());
        };
        if call.wants_transcoding() {
            return Err("Transcoding required, but disabled".to_owned());
        }
        let stream = self.signal.pulls.stream_for(&name).await?;
        let player = Player {
            session: self.id.clone(),
            app_key: self.teller.hook.app_key().to_owned(),
            connection: self.connection.clone(),
            provider: "WebRTC",
            transport: "UDP",
        };
        let subscription = stream.subscribe(Subscriber::Player(player)).map_err(|error| match error {
            SubscribeError::Gone => "Stream not found".to_owned(),
            SubscribeError::Refused(refused) => refused.to_string(),
        })?;
        self.teller.follow(&stream);
        let mut signals = stream.signals();
        let viewing = Viewing {
            plays: self.signal.plays.clone(),
            stream,
            subscription,
            offer: call.sdp.unwrap_or_default(),
            server: self.teller.weir,
            stop: self.stop.clone(),
        };
        let playing = viewing.run(|| self.last_word(), |news| self.teller.player(news));
        tokio::pin!(playing);
        loop {
            // The publisher's own events go on to this player.
            let signal = tokio::select! {
                () = &mut playing => return Ok(()),
                Ok(signal) = signals.recv() => signal,
            };
            self.teller.event(&signal.kind, &signal.payload);
        }
    }
}

/// Tells the browser and the hook server what becomes of a media session.
pub(super) struct Teller {
    outbox: Outbox,
    /// Cancelled with the last status.
    over: CancellationToken,
    hook: Arc<hook::Session>,
    id: MediaSessionId,
    /// The name the browser asked for. A hook may have put another in its place, which the browser need not know.
    asked: String,
    published: bool,
    /// The player is a weir, which is told where the stream comes from.
    weir: bool,
    /// The stream, once there is one.
    stream: OnceLock<StreamHandle>,
    /// The session as it was last seen, for when it is gone.
    shown: Mutex<Object>,
}

impl Teller {
    fn follow(&self, stream: &StreamHandle) {
        let _ = self.stream.set(stream.clone());
    }

    fn status(&self, status: &str, info: Option<&str>, record_name: Option<&str>) {
        let (session, name, published) = (self.id.as_str(), self.asked.as_str(), self.published);
        self.told(&Status { session, name, published, status, info, record_name, muted: None });
    }

    /// PLAYING, and whether the publisher has switched sound and picture off.
    fn playing(&self, muted: (bool, bool)) {
        let (session, name, published) = (self.id.as_str(), self.asked.as_str(), self.published);
        let (status, info, record_name) = ("PLAYING", None, None);
        self.told(&Status { session, name, published, status, info, record_name, muted: Some(muted) });
    }

    fn told(&self, of: &Status<'_>) {
        let Status { status, info, record_name, .. } = *of;
        let mut told = message::status_fields(of);
        self.hook.policy(Method::StreamStatusEvent).told(&mut told);
        if let Some(stream) = self.stream.get().filter(|_| self.weir && !self.published) {
            told.insert("weirPath".into(), stream.look(|view| view.path()).into());
        }
        if is_last_word(status) {
            self.ended();
        }
        self.outbox.text(message::stream_status(told));
        if self.hook.calls(Method::StreamStatusEvent) {
            let mut fields = self.shown();
            fields.insert("status".into(), status.into());
            fields.insert("info".into(), info.into());
            fields.extend(record_name.map(|name| ("recordName".to_owned(), name.into())));
            self.hook.tell(Method::StreamStatusEvent, fields);
        }
    }

    /// Tells the hook server what the browser says as it leaves, and what its session was.
    fn leaves(&self, method: Method, said: Object) {
        if self.hook.calls(method) {
            let mut fields = self.shown();
            fields.extend(said);
            self.hook.tell(method, fields);
        }
    }

    /// The session is over: who hears of it may use its id again at once.
    fn ended(&self) {
        if !self.over.is_cancelled() {
            self.hook.forget(&self.id);
            self.over.cancel();
        }
    }

    /// The session as WCS shows it: as it is, or as it last was.
    fn shown(&self) -> Object {
        let mut last = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(now) = self.stream.get().and_then(|stream| stream.look(|view| view.shown(&self.id))) {
            last.extend(now.fields());
        }
        last.remove("sdp");
        last.clone()
    }

    fn event(&self, kind: &str, payload: &Value) {
        self.outbox.text(message::stream_event(self.id.as_str(), kind, payload));
    }

    fn publisher(&self, news: PublishNews) {
        match news {
            PublishNews::Answer(sdp) => self.outbox.text(message::remote_sdp(&self.id, &sdp)),
            PublishNews::Publishing => self.status("PUBLISHING", None, None),
            PublishNews::Ended(Ending { failed, info, record_name }) => {
                let status = if failed { "FAILED" } else { "UNPUBLISHED" };
                self.status(status, Some(&info), record_name.as_deref());
            }
        }
    }

    fn player(&self, news: PlayNews) {
        match news {
            PlayNews::Pending => self.status("PENDING", None, None),
            PlayNews::Answer(sdp) => self.outbox.text(message::remote_sdp(&self.id, &sdp)),
            PlayNews::Playing { size, muted } => {
                self.playing(muted);
                if let Some((width, height)) = size {
                    self.event("resize", &json!({"streamerVideoWidth": width, "streamerVideoHeight": height}));
                }
            }
            PlayNews::NotEnoughBandwidth { stream_bps, estimate_bps } => {
                self.event("notEnoughBandwidth", &json!({"info": format!("{stream_bps}/{estimate_bps}")}));
            }
            PlayNews::Ended { failed, info } => {
                self.status(if failed { "FAILED" } else { "STOPPED" }, Some(&info), None);
            }
        }
    }
}

/// Who a page says it is, in the `custom` of its connection or of a stream, as the pages of WCS's rooms do.
pub(super) fn login(custom: Option<&Value>) -> Option<String> {
    custom?.get("login")?.as_str().map(str::to_owned)
}

/// What is known of a session before it is one.
fn first_shown(said: &Object) -> Object {
    let mut shown = said.clone();
    shown.retain(|field, _| !["sdp", "constraints", "localMediaInfo"].contains(&field.as_str()));
    shown
}

fn info_of(error: &SdpError) -> &'static str {
    match error {
        SdpError::NoCommonCodecs => "No common codecs",
        _ => "Failed to add stream to proxy",
    }
}
