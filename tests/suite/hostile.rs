//! Pages and networks that mean harm: whatever they send, the server and the other sessions go on.

use std::net::UdpSocket;

use crate::page::Page;
use crate::sender::Sender;
use crate::support::{Home, Weir, wait_until};
use serde_json::{Value, json};
use tungstenite::Message;

const PUBLISH: &str = include_str!("../../src/webrtc/offers/chromium156_publish.sdp");
const PLAY: &str = include_str!("../../src/webrtc/offers/chromium156_play.sdp");

/// Every message a page may send.
const MESSAGES: [&str; 14] = [
    "connection",
    "ping",
    "pong",
    "publishStream",
    "playStream",
    "unPublishStream",
    "stopStream",
    "availableStream",
    "snapshot",
    "sendStreamEvent",
    "sendData",
    "pushLogs",
    "sessionDebug",
    "submitBugReport",
];

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % below
    }
}

/// A live stream, and the page and the sender that keep it so.
fn healthy(weir: &Weir) -> (Page, Sender, u16) {
    let (mut page, sender) = (Page::established(weir), Sender::new());
    page.publish("healthy", "healthy", &sender.offer());
    let answer = page.hears("setRemoteSDP")[1].as_str().unwrap().to_owned();
    sender.answered(&answer);
    assert_eq!(page.status().0, "PUBLISHING");
    let candidate = answer.lines().find(|line| line.starts_with("a=candidate:") && line.contains("127.0.0.1")).unwrap();
    let port = candidate.split(' ').nth(5).unwrap().parse().unwrap();
    (page, sender, port)
}

fn goes_on(weir: &Weir, page: &mut Page) {
    let (frames, _) = weir.frames("healthy");
    weir.wait_frames("healthy", frames + 10);
    page.say("ping", &Value::Null);
    page.hears("pong");
}

/// Whether the page is still open after what it has sent: it hears the answer to a ping, or is closed.
fn answers(page: &mut Page) -> bool {
    if page.socket.send(Message::text(json!({"message": "ping", "data": [null]}).to_string())).is_err() {
        return false;
    }
    loop {
        match page.socket.read() {
            Ok(Message::Text(text)) if text.contains("\"pong\"") => return true,
            Ok(Message::Close(_)) | Err(_) => return false,
            Ok(_) => {}
        }
    }
}

#[test]
fn messages_of_every_kind_with_any_data() {
    let home = Home::new();
    let weir = home.start();
    let (mut page, _sender, _) = healthy(&weir);
    let long = "x".repeat(20_000);
    let values = [
        Value::Null,
        json!(7),
        json!(-1.5e300),
        json!(""),
        json!(long),
        json!("\u{0}\u{1f}é\u{202e}😀"),
        json!([]),
        json!([[[[[[]]]]]]),
        json!({}),
        json!({"mediaSessionId": {}, "name": [], "sdp": 5, "operationId": null, "type": 1, "appKey": []}),
        json!({"mediaSessionId": "", "name": "", "sdp": "", "operationId": "", "type": "", "appKey": ""}),
        json!({"mediaSessionId": "m", "name": long, "sdp": long, "operationId": long, "type": long, "payload": long}),
        json!({"mediaSessionId": "../..", "name": "../../etc/passwd", "sdp": "v=0\r\nm=audio", "record": "yes"}),
        json!({"mediaSessionId": "m", "name": "rtmp://user:secret@", "sdp": PLAY, "width": "x", "quality": {}}),
    ];
    let mut closed = 0;
    for message in MESSAGES {
        for value in &values {
            let mut bad = Page::established(&weir);
            bad.say(message, value);
            closed += usize::from(!answers(&mut bad));
        }
    }
    assert_eq!(closed, 0, "a message that is well formed closes no socket, whatever it holds");
    assert!(!weir.log().iter().any(|line| line.contains("secret")));
    goes_on(&weir, &mut page);
}

/// An offer with a few of its parts changed.
fn damaged(offer: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = offer.lines().map(str::to_owned).collect();
    for _ in 0..=random.next(6) {
        let at = random.next(lines.len());
        let other = lines[random.next(lines.len())].clone();
        match random.next(7) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, other),
            2 => lines[at] = other,
            3 => lines.truncate(at.max(1)),
            4 => lines[at].push_str(&"9".repeat(random.next(400))),
            5 => lines[at] = lines[at].replace(|c: char| c.is_ascii_digit(), "9"),
            _ => {
                let cut = random.next(lines[at].len() + 1);
                lines[at].truncate(cut);
            }
        }
    }
    lines.join("\r\n")
}

#[test]
fn damaged_offers() {
    let home = Home::new();
    let mut weir = home.start();
    // webrtcbin may find more wrong with an offer than weir does.
    weir.tolerate("a browser cannot publish");
    let (mut page, _sender, _) = healthy(&weir);
    let mut random = Random(20261121);
    let (mut answered, mut refused) = (0, 0);
    for round in 0..150 {
        let mut bad = Page::established(&weir);
        let id = format!("bad{round}");
        match round % 2 {
            0 => bad.publish(&id, &id, &damaged(PUBLISH, &mut random)),
            _ => bad.play(&id, "healthy", &damaged(PLAY, &mut random)),
        }
        match bad.next_but_ping() {
            (message, _) if message == "setRemoteSDP" => answered += 1,
            (message, data) => {
                assert_eq!(
                    (message.as_str(), &data["status"]),
                    ("notifyStreamStatusEvent", &json!("FAILED")),
                    "{data}"
                );
                refused += 1;
            }
        }
    }
    println!("{answered} damaged offers were answered, {refused} refused");
    assert!(answered > 10 && refused > 10);
    goes_on(&weir, &mut page);
    wait_until("nothing of them is left", || weir.pipelines("publish-webrtc").len() == 1);
}

#[test]
fn packets_of_strangers_to_a_publishers_port() {
    let home = Home::new();
    let weir = home.start();
    let (mut page, _sender, port) = healthy(&weir);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut random = Random(1);
    for round in 0..20_000 {
        let mut bytes: Vec<u8> = (0..random.next(1400)).map(|_| random.next(256) as u8).collect();
        if let Some(first) = bytes.first_mut() {
            // STUN, DTLS, RTP, RTCP by their first byte, and anything.
            *first = [0, 1, 22, 23, 0x80, 0x81, *first][round % 7];
        }
        if bytes.len() > 8 && round % 7 < 2 {
            bytes[..8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
        }
        let _ = socket.send_to(&bytes, ("127.0.0.1", port));
    }
    goes_on(&weir, &mut page);
    assert_eq!(weir.stream("healthy").unwrap()["status"], "PUBLISHING");
}
