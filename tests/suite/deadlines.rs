//! Browsers whose connection never comes about or dies: each ends by a deadline of weir's, with WCS's word for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::page::Page;
use crate::sender::Sender;
use crate::support::{Clip, Home, Publisher, SOON, Weir, wait_until};
use crate::viewer::{Client, drive};
use serde_json::json;

/// What a deadline may take beyond its time on a machine that is busy.
const LATE: Duration = Duration::from_secs(10);

/// An offer as Chromium makes it for `publish`.
const OFFER: &str = include_str!("../../src/webrtc/offers/chromium156_publish.sdp");

/// What a session needs until its end.
type Kept = Box<dyn std::any::Any>;

/// How a session begins, and how it is to end.
struct Case {
    begin: fn(&mut Page) -> Kept,
    info: &'static str,
    /// Not before this time, seconds.
    after: u64,
}

/// Lets each case run on a page of its own, all at once, and judges how it ended.
fn judge(weir: &Weir, cases: &[Case]) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || {
                let mut page = Page::established(weir);
                page.patience(SOON + LATE);
                let began = Instant::now();
                let _kept = (case.begin)(&mut page);
                assert_eq!(end(&mut page), ("FAILED".into(), case.info.into()));
                let took = began.elapsed();
                println!("{} after {took:?}", case.info);
                assert!(took >= Duration::from_secs(case.after), "{} after {took:?}", case.info);
            });
        }
    });
}

/// How the page's session ends.
fn end(page: &mut Page) -> (String, String) {
    loop {
        let (status, info) = page.status();
        if !matches!(status.as_str(), "PENDING" | "PUBLISHING" | "PLAYING") {
            return (status, info);
        }
    }
}

fn answer(page: &mut Page) -> String {
    page.hears("setRemoteSDP")[1].as_str().unwrap().to_owned()
}

/// A client whose connection is kept going by a thread.
struct Driven {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Client>>,
}

impl Driven {
    fn new(mut client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            drive(&mut [&mut client], Duration::MAX / 4, |_| stopped.load(SeqCst));
            client
        });
        Self { stop, thread: Some(thread) }
    }

    fn stop(mut self) -> Client {
        self.stop.store(true, SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
    }
}

fn publish_and_be_silent(page: &mut Page) -> Kept {
    page.publish("no-ice", "no-ice", OFFER);
    Box::new(())
}

fn publish_without_handshake(page: &mut Page) -> Kept {
    let mut client = Client::publish_by(|offer| {
        page.publish("no-dtls", "no-dtls", &offer);
        answer(page)
    });
    client.mute_dtls = true;
    Box::new(Driven::new(client))
}

fn publish_by_webrtcbin(page: &mut Page, name: &str, edit: impl Fn(String) -> String) -> Sender {
    let sender = Sender::new();
    page.publish(name, name, &edit(sender.offer()));
    sender.answered(&answer(page));
    sender
}

fn publish_nothing(page: &mut Page) -> Kept {
    let sender = publish_by_webrtcbin(page, "no-media", |offer| offer);
    sender.hold(true);
    Box::new(sender)
}

fn publish_and_stop_sending(page: &mut Page) -> Kept {
    let sender = publish_by_webrtcbin(page, "stops", |offer| offer);
    assert_eq!(page.status(), ("PUBLISHING".into(), String::new()));
    sender.hold(true);
    Box::new(sender)
}

#[test]
fn publishers() {
    let home = Home::new();
    let weir = home.setup().set("rtp_activity_timeout=2000").start();
    judge(
        &weir,
        &[
            Case { begin: publish_and_be_silent, info: "Failed by ICE timeout", after: 15 },
            Case { begin: publish_without_handshake, info: "Failed by DTLS error", after: 10 },
            Case { begin: publish_nothing, info: "Failed by RTP activity", after: 15 },
            Case { begin: publish_and_stop_sending, info: "Failed by RTP activity", after: 2 },
        ],
    );
    assert_eq!(weir.get("/rest-api/stream/find_all").status, 404, "their names are free");
    assert!(weir.pipelines("publish-webrtc").is_empty());
}

/// Begins to play `a`.
fn play(page: &mut Page, session: &str) -> Client {
    play_with(page, session, |offer| offer)
}

fn play_with(page: &mut Page, session: &str, edit: impl Fn(String) -> String) -> Client {
    Client::join_by(|offer| {
        let call = json!({"mediaSessionId": session, "name": "a", "published": false, "sdp": edit(offer)});
        page.say("playStream", &call);
        answer(page)
    })
}

fn play_and_be_silent(page: &mut Page) -> Kept {
    Box::new(play(page, "no-ice"))
}

fn play_without_handshake(page: &mut Page) -> Kept {
    let mut client = play(page, "no-dtls");
    client.mute_dtls = true;
    Box::new(Driven::new(client))
}

fn play_and_get_stuck(page: &mut Page) -> Kept {
    let mut client = play(page, "stuck");
    assert!(drive(&mut [&mut client], SOON, |clients| clients[0].count > 20), "no packets came");
    Box::new(client)
}

#[test]
fn viewers() {
    let home = Home::new();
    let weir = home.start();
    let _publisher = Publisher::start(Clip::LONG, &weir.rtmp("a"));
    wait_until("the stream", || weir.stream("a").is_some_and(|stream| stream["status"] == "PUBLISHING"));
    let mut page = Page::established(&weir);
    let healthy = Driven::new(play(&mut page, "healthy"));
    judge(
        &weir,
        &[
            Case { begin: play_and_be_silent, info: "Failed by ICE timeout", after: 15 },
            Case { begin: play_without_handshake, info: "Failed by DTLS error", after: 15 },
            Case { begin: play_and_get_stuck, info: "Failed by ICE keep alive", after: 15 },
        ],
    );
    let client = healthy.stop();
    println!("{} packets of pictures meanwhile", client.video.packets.len());
    assert!(client.video.packets.len() > 300 && client.video.missing() == 0, "the others cost this one nothing");
}

/// An offer whose fingerprint is another certificate's.
fn forged(offer: String) -> String {
    const LABEL: &str = "a=fingerprint:sha-256 ";
    let at = offer.find(LABEL).unwrap() + LABEL.len();
    let fingerprint = &offer[at..at + 95];
    offer.replace(fingerprint, &["00"; 32].join(":"))
}

#[test]
fn a_certificate_that_is_not_the_offers_is_refused() {
    const REFUSED: &str = "Failed by DTLS fingerprint error";
    let home = Home::new();
    let weir = home.start();
    let mut page = Page::established(&weir);
    let _sender = publish_by_webrtcbin(&mut page, "forged", forged);
    assert_eq!(end(&mut page), ("FAILED".into(), REFUSED.into()));
    let _publisher = Publisher::start(Clip::LONG, &weir.rtmp("a"));
    wait_until("the stream", || weir.stream("a").is_some_and(|stream| stream["status"] == "PUBLISHING"));
    let mut viewing = Page::established(&weir);
    let _client = Driven::new(play_with(&mut viewing, "forged", forged));
    assert_eq!(end(&mut viewing), ("FAILED".into(), REFUSED.into()));
}
