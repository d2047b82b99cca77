//! Browsers that come and go leave nothing: threads and descriptors end where they began, memory hardly grows.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::page::Page;
use crate::sender::Sender;
use crate::support::{Clip, Home, Nginx, Publisher, SOON, Weir, run, wait_until};
use crate::viewer::{Client, drive};
use serde_json::json;

/// Megabytes the process may grow by.
const GROWTH: f64 = 10.0;

#[derive(Debug, Clone, Copy)]
pub struct Use {
    pub threads: usize,
    pub descriptors: usize,
    pub megabytes: f64,
}

pub fn used(weir: &Weir) -> Use {
    let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", weir.pid())).unwrap().count();
    let status = std::fs::read_to_string(format!("/proc/{}/status", weir.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kilobytes: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    Use { threads: count("task"), descriptors: count("fd"), megabytes: kilobytes / 1024.0 }
}

/// Waits until the process uses no more than before; what it still uses where it does not come to that.
pub fn settled(weir: &Weir, before: Use) -> Result<Use, Use> {
    settled_within(weir, before, SOON)
}

fn settled_within(weir: &Weir, before: Use, limit: Duration) -> Result<Use, Use> {
    let until = Instant::now() + limit;
    loop {
        let now = used(weir);
        let ended = now.threads <= before.threads && now.descriptors <= before.descriptors;
        if ended || Instant::now() > until {
            println!("before {before:?}, after {now:?}");
            return if ended && now.megabytes - before.megabytes < GROWTH { Ok(now) } else { Err(now) };
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Watches `name` until packets have come, and stops.
pub fn watch(page: &mut Page, name: &str, session: &str) {
    let client = Client::join_by(|offer| {
        let call = json!({"mediaSessionId": session, "name": name, "published": false, "sdp": offer});
        page.say("playStream", &call);
        page.hears("setRemoteSDP")[1].as_str().unwrap().to_owned()
    });
    let mut client = client;
    assert!(drive(&mut [&mut client], SOON, |clients| clients[0].count > 20), "no packets came");
    page.say("stopStream", &json!({"mediaSessionId": session, "name": name}));
    loop {
        if page.status().0 == "STOPPED" {
            return;
        }
    }
}

#[test]
fn viewers_leave_nothing() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let weir = home.start();
    weir.pull(&nginx.uri("a"), "a", false);
    weir.wait_agent("a", "PROCESSED_REMOTE");
    let mut page = Page::established(&weir);
    let round = |page: &mut Page, from: usize, count: usize| {
        for number in from..from + count {
            watch(page, "a", &format!("v{number}"));
        }
        wait_until("the payloader to end after its last viewer", || weir.pipelines("play-webrtc").is_empty());
    };
    round(&mut page, 0, 50);
    // What GStreamer's pool of threads keeps for a while is no leak.
    std::thread::sleep(Duration::from_secs(1));
    let before = used(&weir);
    round(&mut page, 50, 450);
    settled(&weir, before).unwrap();
}

/// A server that greets, and then says `answer` to whatever it is asked.
fn refusing(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("rtmp://{}/live/a", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut bytes = [0; 3073];
                socket.read_exact(&mut bytes[..1537])?;
                socket.write_all(&bytes)?;
                socket.read_exact(&mut bytes[..1536])?;
                while socket.read(&mut bytes)? > 0 {
                    socket.write_all(answer)?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    uri
}

#[test]
fn pulls_that_are_refused_leave_nothing() {
    const REJECTED: &[u8] = b"\x03\0\0\0\0\0\x36\x14\0\0\0\0\x02\0\x06_error\0\x3f\xf0\0\0\0\0\0\0\x05\x03\0\x04code\
        \x02\0\x16NetConnection.Rejected\0\0\x09";
    let (home, there) = (Home::new(), Home::new());
    let other = there.start();
    let setup = home.setup().set("pull_reconnect_initial=50").set("pull_reconnect_max=50");
    let mut weir = setup.start();
    weir.announce("pull has no source");
    for (name, uri, said) in
        [("absent", other.rtmp("nothing"), "stream not found"), ("rejected", refusing(REJECTED), "cmd returned")]
    {
        weir.pull(&uri, name, false);
        let tries = || {
            let of_this = |line: &&String| line.contains(said) && line.contains(name);
            weir.log().iter().filter(of_this).count()
        };
        wait_until("a first few tries", || tries() > 5);
        let before = used(&weir);
        let tried = tries();
        wait_until("many more", || tries() > tried + 30);
        weir.terminate(name);
        settled(&weir, before).unwrap();
    }
}

pub fn publish(page: &mut Page, name: &str) {
    let sender = Sender::new();
    page.publish(name, name, &sender.offer());
    let answer = page.hears("setRemoteSDP");
    sender.answered(answer[1].as_str().unwrap());
    assert_eq!(page.status(), ("PUBLISHING".into(), String::new()));
    page.say("unPublishStream", &json!({"mediaSessionId": name, "name": name}));
    assert_eq!(page.status(), ("UNPUBLISHED".into(), "Stopped by user".into()));
}

/// Whether 20 publishers, then `count` more, leave what the 20 left, once the limit is over.
fn publishers_come_and_go(weir: &Weir, count: usize, limit: Duration) -> Result<Use, Use> {
    let mut page = Page::established(weir);
    (0..20).for_each(|number| publish(&mut page, &format!("p{number}")));
    std::thread::sleep(Duration::from_secs(1));
    let before = used(weir);
    (20..20 + count).for_each(|number| publish(&mut page, &format!("p{number}")));
    assert!(weir.pipelines("publish-webrtc").is_empty());
    settled_within(weir, before, limit)
}

#[test]
fn publishers_leave_nothing() {
    let home = Home::new();
    publishers_come_and_go(&home.start(), 100, SOON).unwrap();
}

/// Weir with a fault: it reads no bus, and nothing else empties one.
fn with_unread_buses(home: &Home) -> Weir {
    let fault = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("unread_bus-{}.so", std::process::id()));
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]).arg(&fault);
    compiler.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/support/unread_bus.c"));
    let output = run(&mut compiler, SOON);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let weir = home.setup().env("LD_PRELOAD", &fault.to_string_lossy()).start();
    // It is loaded by now.
    std::fs::remove_file(fault).unwrap();
    weir
}

#[test]
fn buses_that_nobody_reads_are_found_out() {
    let home = Home::new();
    let left = publishers_come_and_go(&with_unread_buses(&home), 20, Duration::from_secs(5)).unwrap_err();
    assert!(
        left.threads >= 40 && left.descriptors >= 200,
        "each publisher has left a thread and descriptors: {left:?}"
    );
}
