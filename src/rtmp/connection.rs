//! One client's connection: a task that owns the socket, the protocol's session and what the client does.
//!
//! Deadlines follow the session's phase. None of them is moved by bytes alone: a client that sends one byte a second is
//! as idle as one that sends nothing.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::alarm::Alarm;
use super::asking::{Asking, Wanted};
use super::playing::{PlayNews, Playing};
use super::publishing::{PublishNews, Publishing, SIGN_OF_LIFE, make_way};
use super::{Connect, Delivery, Event, Phase, Play, Publish, Session, Tools, Violation};
use crate::gate::{Action, Credentials};
use crate::hub::{STOPPED_BY_PUBLISHER, STOPPED_BY_SHUTDOWN, STOPPED_BY_USER};

/// Bytes read at once.
const READ: usize = 32 << 10;
/// Slices written at once.
const SLICES: usize = 64;
/// Longest time to write the last words.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the client does.
enum Role {
    Nobody,
    Publishing(Box<Publishing>),
    Playing(Box<Playing>),
}

/// What a role tells its connection.
enum News {
    Publishing(PublishNews),
    Playing(PlayNews),
}

/// How a publisher leaves its stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// Somebody else ends it.
    ForGood,
    /// It may publish again (`publisher_linger`).
    MayComeBack,
    /// The same, and it did not want to leave.
    Failed,
}

/// How a connection ended.
enum End {
    /// The client has closed it, it is done, or the server shuts down.
    Quiet,
    /// The client broke a limit, or vanished.
    Fault(String),
}

impl From<Violation> for End {
    fn from(violation: Violation) -> Self {
        Self::Fault(violation.to_string())
    }
}

impl From<io::Error> for End {
    /// How a client leaves is its own business.
    fn from(_: io::Error) -> Self {
        Self::Quiet
    }
}

/// A time by which something must have happened.
struct Deadline {
    at: Instant,
    limit: Duration,
    what: &'static str,
}

impl Deadline {
    fn passed(self) -> End {
        End::Fault(format!("{} for {} s", self.what, self.limit.as_secs_f32()))
    }
}

pub(super) struct Connection<S> {
    tools: Tools,
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    /// What was written may lie in TLS's buffer still.
    unflushed: bool,
    /// What came while the client waited for a verdict.
    early: Vec<u8>,
    /// As REST shows it.
    id: String,
    peer: IpAddr,
    session: Session,
    asking: Asking,
    output: VecDeque<Bytes>,
    role: Role,
    clock: Clock,
    alarm: Alarm,
    /// Set: nothing is read any more, and it ends with the last byte written.
    leaving: bool,
}

/// When things happened that deadlines count from.
struct Clock {
    phase: Phase,
    /// When the phase began; the first two count as one.
    phase_since: Instant,
    /// When media last came.
    media: Instant,
    /// When something was last written, or began to wait for it.
    written: Instant,
    /// Since when a publisher is to show that it is there.
    doubted: Option<Instant>,
}

impl Clock {
    fn see(&mut self, phase: Phase) {
        let handshaking = |phase| matches!(phase, Phase::Handshake | Phase::Connect);
        if phase != self.phase {
            if !(handshaking(self.phase) && handshaking(phase)) {
                self.begin(Instant::now());
            }
            self.phase = phase;
        }
    }

    fn begin(&mut self, now: Instant) {
        (self.phase_since, self.media) = (now, now);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(tools: Tools, socket: S, (remote, local): (SocketAddr, SocketAddr)) -> Self {
        let (reader, writer) = tokio::io::split(socket);
        let now = Instant::now();
        let session = Session::new(tools.limits.clone(), now.into_std());
        let id = format!("/{remote}/{local}");
        let asking = Asking::new(tools.hooks.clone(), &id, remote.to_string());
        let clock = Clock { phase: Phase::Handshake, phase_since: now, media: now, written: now, doubted: None };
        Self {
            tools,
            reader,
            writer,
            unflushed: false,
            early: Vec::new(),
            id,
            peer: remote.ip(),
            session,
            asking,
            output: VecDeque::new(),
            role: Role::Nobody,
            clock,
            alarm: Alarm::default(),
            leaving: false,
        }
    }

    /// Runs until somebody closes.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut buffer = vec![0; READ];
        let mut stopped = pin!(stop.cancelled());
        let end = loop {
            if let Err(end) = self.step(&mut buffer, &stop, stopped.as_mut()).await {
                break end;
            }
        };
        if let End::Fault(reason) = &end {
            tracing::warn!(connection = %self.id, "an RTMP client is closed: {reason}");
        }
        match stop.is_cancelled() {
            true => self.leave(STOPPED_BY_SHUTDOWN, Leaving::ForGood).await,
            false => self.leave(STOPPED_BY_PUBLISHER, Leaving::MayComeBack).await,
        }
        self.asking.left(if stop.is_cancelled() { STOPPED_BY_SHUTDOWN } else { "the client left" });
        // TLS says good-bye. Who does not read it has left already.
        let _ = tokio::time::timeout(FAREWELL, self.writer.shutdown()).await;
    }

    /// Ends what it does; `info` and `leaving` are for what it publishes. Returns once everybody sees the end of what it
    /// plays: what is told of the connection after it comes after that.
    async fn leave(&mut self, info: &str, leaving: Leaving) {
        match std::mem::replace(&mut self.role, Role::Nobody) {
            Role::Nobody => {}
            Role::Playing(playing) => playing.leave().await,
            Role::Publishing(publishing) => {
                let waits = leaving != Leaving::ForGood;
                let failed = leaving == Leaving::Failed;
                publishing.leave(info, failed, waits.then_some(&self.tools)).await;
            }
        }
    }

    /// Waits for the next thing that happens, and does what it asks for. `stopped` is when `stop` is.
    async fn step(
        &mut self,
        buffer: &mut [u8],
        stop: &CancellationToken,
        stopped: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), End> {
        self.fill();
        if self.output.is_empty() && !self.unflushed && (self.leaving || self.session.phase() == Phase::Closing) {
            return Err(End::Quiet);
        }
        self.clock.see(self.session.phase());
        let reads = self.session.wants_input() && !self.leaving;
        let room = self.session.output_len() == 0 && self.output.len() < SLICES / 2;
        let deadline = self.deadline();
        if reads && !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            self.read(&early)?;
            return self.events(stop).await;
        }
        tokio::select! {
            biased;
            () = stopped => return Err(End::Quiet),
            written = write(&mut self.writer, &self.output), if self.unflushed || !self.output.is_empty() => {
                self.wrote(written?);
            }
            len = self.reader.read(buffer), if reads => self.read(&buffer[..len?])?,
            news = next(&mut self.role, room), if !self.leaving => self.news(news).await,
            () = self.alarm.at(deadline.as_ref().map(|deadline| deadline.at)) => {
                return Err(deadline.map_or(End::Quiet, Deadline::passed));
            }
        }
        self.events(stop).await
    }

    /// When the client is closed if nothing happens.
    fn deadline(&self) -> Option<Deadline> {
        let (clock, idle) = (&self.clock, self.tools.idle_timeout);
        let after = |since: Instant, limit, what| Some(Deadline { at: since + limit, limit, what });
        match self.session.phase() {
            _ if self.leaving => after(clock.written, FAREWELL, "it reads nothing"),
            Phase::Handshake | Phase::Connect => {
                after(clock.phase_since, self.tools.handshake_timeout, "it has not connected")
            }
            Phase::Idle => after(clock.phase_since, idle, "it neither publishes nor plays"),
            Phase::Publishing => {
                let doubted = clock.doubted.and_then(|since| {
                    after(since, SIGN_OF_LIFE, "its stream is wanted by another client, and it has been silent")
                });
                doubted
                    .into_iter()
                    .chain(after(clock.media, idle, "it publishes and sends no media"))
                    .min_by_key(|deadline| deadline.at)
            }
            Phase::Playing if self.output.is_empty() => None,
            Phase::Playing => after(clock.written, idle, "it plays and reads nothing"),
            Phase::Closing => after(clock.written, FAREWELL, "it reads nothing"),
            Phase::Deciding => None,
        }
    }

    /// Moves what the session has to say to where it is written from. Little at a time: the session's own limit counts.
    fn fill(&mut self) {
        let waited = !self.output.is_empty();
        while self.output.len() < SLICES {
            let Some(slice) = self.session.poll_output() else { break };
            self.output.push_back(slice);
        }
        if !waited && !self.output.is_empty() {
            self.clock.written = Instant::now();
        }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), End> {
        if bytes.is_empty() {
            return Err(End::Quiet);
        }
        if let (Some(_), Role::Publishing(publishing)) = (self.clock.doubted.take(), &mut self.role) {
            publishing.shows();
        }
        Ok(self.session.feed(std::time::Instant::now(), bytes)?)
    }

    /// So many bytes of the output are on their way; without output, all are.
    fn wrote(&mut self, mut written: usize) {
        self.unflushed = !self.output.is_empty();
        self.clock.written = Instant::now();
        while let Some(front) = self.output.front_mut() {
            if front.len() > written {
                let _ = front.split_to(written);
                break;
            }
            written -= front.len();
            self.output.pop_front();
        }
    }

    /// Says a last word and ends.
    fn farewell(&mut self, code: &str, text: &str) {
        self.session.send_status("error", code, text);
        self.clock.written = Instant::now();
        self.leaving = true;
    }

    async fn news(&mut self, news: News) {
        match news {
            News::Publishing(PublishNews::Terminated(reason)) => {
                self.leave(reason, Leaving::ForGood).await;
                self.farewell("NetConnection.Connect.Closed", reason);
            }
            News::Publishing(PublishNews::Failed(reason)) => {
                tracing::warn!(connection = %self.id, "an RTMP publisher is closed: {reason}");
                self.leave(&reason, Leaving::Failed).await;
                self.farewell("NetStream.Publish.Failed", &reason);
            }
            News::Publishing(PublishNews::Doubted) => {
                self.session.ping(0);
                self.clock.doubted.get_or_insert_with(Instant::now);
            }
            News::Playing(PlayNews::Ready) => self.play_out(),
            News::Playing(PlayNews::Over) => {
                self.session.finish_play();
                self.leave(STOPPED_BY_USER, Leaving::ForGood).await;
            }
            News::Playing(PlayNews::Terminated) => {
                self.session.finish_play();
                self.leave(STOPPED_BY_USER, Leaving::ForGood).await;
                self.clock.written = Instant::now();
                self.leaving = true;
            }
        }
    }

    fn play_out(&mut self) {
        let Role::Playing(playing) = &mut self.role else { return };
        for frame in std::mem::take(&mut playing.ready) {
            match self.session.send(&frame) {
                Delivery::Full => playing.lost(),
                Delivery::Queued => playing.sent(frame.wire_len()),
                _ => {}
            }
        }
    }

    async fn events(&mut self, stop: &CancellationToken) -> Result<(), End> {
        while !self.leaving
            && let Some(event) = self.session.poll_event()
        {
            self.event(event, stop).await?;
        }
        Ok(())
    }

    async fn event(&mut self, event: Event, stop: &CancellationToken) -> Result<(), End> {
        // The time that an answer takes is not the client's.
        let decided = matches!(event, Event::Connect(_) | Event::Publish(_) | Event::Play(_));
        match event {
            Event::Connect(wanted) => self.connect(wanted, stop).await?,
            Event::Publish(wanted) => self.publish(wanted, stop).await?,
            Event::Play(wanted) => self.play(wanted, stop).await?,
            Event::Unpublish => {
                self.stopped();
                self.leave(STOPPED_BY_PUBLISHER, Leaving::MayComeBack).await;
            }
            Event::StopPlay => {
                self.stopped();
                self.leave(STOPPED_BY_USER, Leaving::ForGood).await;
            }
            Event::Pause { paused } => {
                if let (Role::Playing(playing), false) = (&mut self.role, paused) {
                    playing.lost();
                }
            }
            Event::Metadata { object, .. } => {
                if let Role::Publishing(publishing) = &mut self.role {
                    publishing.claims(&object);
                }
            }
            Event::Video { timestamp, payload } => {
                self.clock.media = Instant::now();
                if let Role::Publishing(publishing) = &mut self.role {
                    publishing.video(timestamp, &payload).await;
                }
            }
            Event::Audio { timestamp, payload } => {
                self.clock.media = Instant::now();
                if let Role::Publishing(publishing) = &mut self.role {
                    publishing.audio(timestamp, &payload).await;
                }
            }
        }
        if decided {
            self.clock.begin(Instant::now());
        }
        Ok(())
    }

    async fn connect(&mut self, wanted: Connect, stop: &CancellationToken) -> Result<(), End> {
        let verdict = patient((&mut self.reader, &mut self.early), stop, self.asking.connect(&wanted)).await?;
        if let Err(reason) = verdict {
            tracing::info!(connection = %self.id, "an RTMP client may not connect: {reason}");
            self.session.reject_connect("NetConnection.Connect.Rejected", &reason);
            return Ok(());
        }
        Ok(self.session.accept_connect()?)
    }

    /// Whether the client shows what `action` asks for; what it is told where it does not.
    fn admit(&self, action: Action, name: &str, query: &str) -> Result<(), String> {
        let admitted = self.tools.gate.check(action, name, &Credentials::of_query(query), self.peer);
        admitted.map_err(|refusal| refusal.to_string())
    }

    async fn publish(&mut self, wanted: Publish, stop: &CancellationToken) -> Result<(), End> {
        if let Err(reason) = self.admit(Action::Publish, &wanted.name, &wanted.query) {
            return Ok(self.session.reject_publish("NetStream.Publish.Denied", &reason)?);
        }
        let back = self.tools.absent.place(&wanted.name, &self.tools.hub);
        let asked = self.asking.begin(true, &wanted.name, &wanted.query, back);
        let verdict = patient((&mut self.reader, &mut self.early), stop, asked).await?;
        let started = match verdict {
            Ok(wanted) => {
                let way = make_way(&self.tools.hub, &wanted.name);
                patient((&mut self.reader, &mut self.early), stop, way).await?;
                Publishing::start(&self.tools, wanted, &self.id).await
            }
            Err(refusal) => Err(refusal),
        };
        match started {
            Ok(publishing) => {
                self.role = Role::Publishing(Box::new(publishing));
                Ok(self.session.accept_publish()?)
            }
            Err(refusal) => {
                tracing::info!(connection = %self.id, "an RTMP publisher is refused: {}", refusal.reason);
                Ok(self.session.reject_publish(refusal.code, &refusal.reason)?)
            }
        }
    }

    async fn play(&mut self, wanted: Play, stop: &CancellationToken) -> Result<(), End> {
        if let Err(reason) = self.admit(Action::Play, &wanted.name, &wanted.query) {
            return Ok(self.session.reject_play("NetStream.Play.Failed", &reason)?);
        }
        let asked = self.asking.begin(false, &wanted.name, &wanted.query, None);
        let verdict = patient((&mut self.reader, &mut self.early), stop, asked).await?;
        let started = match verdict {
            Ok(Wanted { id, name, .. }) => {
                let playing = Playing::start(&self.tools, id, &name, &self.id);
                patient((&mut self.reader, &mut self.early), stop, playing).await?
            }
            Err(refusal) => Err(refusal),
        };
        match started {
            Ok(playing) => {
                self.role = Role::Playing(Box::new(playing));
                Ok(self.session.accept_play()?)
            }
            Err(refusal) => {
                tracing::info!(connection = %self.id, "an RTMP player is refused: {}", refusal.reason);
                Ok(self.session.reject_play(refusal.code, &refusal.reason)?)
            }
        }
    }

    /// The client has ended what it did: its hook server is told.
    fn stopped(&self) {
        let shown = match &self.role {
            Role::Nobody => None,
            Role::Publishing(publishing) => publishing.shown(),
            Role::Playing(playing) => playing.shown(),
        };
        if let Some(shown) = shown {
            self.asking.stopped(shown);
        }
    }
}

/// Waits for a verdict for as long as the client does and the server runs. What the client sends meanwhile is kept, up to
/// what is read at once.
async fn patient<S: AsyncRead, T>(
    (reader, early): (&mut ReadHalf<S>, &mut Vec<u8>),
    stop: &CancellationToken,
    verdict: impl Future<Output = T>,
) -> Result<T, End> {
    let gone = async {
        while early.len() < READ {
            let mut rest = reader.take((READ - early.len()) as u64);
            if rest.read_buf(early).await.map_or(true, |len| len == 0) {
                return;
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        biased;
        verdict = verdict => Ok(verdict),
        () = stop.cancelled() => Err(End::Quiet),
        () = gone => Err(End::Quiet),
    }
}

/// Why a client may not publish or play.
pub(super) struct Refusal {
    /// RTMP's code, for instance `NetStream.Publish.BadName`.
    pub(super) code: &'static str,
    /// A sentence for a person.
    pub(super) reason: String,
}

async fn next(role: &mut Role, room: bool) -> News {
    match role {
        Role::Nobody => std::future::pending().await,
        Role::Publishing(publishing) => News::Publishing(publishing.news().await),
        Role::Playing(playing) => News::Playing(playing.news(room).await),
    }
}

/// Writes what the socket takes at once, and flushes where there is nothing to write. Cancelled, it has written nothing.
async fn write<S: AsyncWrite>(to: &mut WriteHalf<S>, output: &VecDeque<Bytes>) -> io::Result<usize> {
    if output.is_empty() {
        return to.flush().await.map(|()| 0);
    }
    let slices: Vec<IoSlice> = output.iter().map(|slice| IoSlice::new(slice)).collect();
    to.write_vectored(&slices).await
}

/// Resolves at a time, or never.
pub(super) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
