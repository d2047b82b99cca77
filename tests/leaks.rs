//! Browsers that come and go leave nothing: threads and descriptors end where they began, memory hardly grows.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod page;
mod sender;
mod support;
mod viewer;

use std::time::Duration;

use page::Page;
use sender::Sender;
use serde_json::json;
use support::{Clip, Home, Nginx, Publisher, SOON, Weir, wait, wait_until};
use viewer::{Client, drive};

/// Megabytes the process may grow by.
const GROWTH: f64 = 10.0;

#[derive(Debug, Clone, Copy)]
struct Use {
    threads: usize,
    descriptors: usize,
    megabytes: f64,
}

fn used(weir: &Weir) -> Use {
    let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", weir.pid())).unwrap().count();
    let status = std::fs::read_to_string(format!("/proc/{}/status", weir.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kilobytes: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    Use { threads: count("task"), descriptors: count("fd"), megabytes: kilobytes / 1024.0 }
}

/// Waits until the process uses no more than before.
fn back_to(weir: &Weir, before: Use) {
    let after = wait("the process to use what it used before", SOON, || {
        let now = used(weir);
        println!("{now:?}");
        (now.threads <= before.threads && now.descriptors <= before.descriptors).then_some(now)
    });
    println!("before {before:?}, after {after:?}");
    assert!(after.megabytes - before.megabytes < GROWTH, "memory grew: {before:?}, {after:?}");
}

/// Watches `name` until packets have come, and stops.
fn watch(page: &mut Page, name: &str, session: &str) {
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
    back_to(&weir, before);
}

fn publish(page: &mut Page, name: &str) {
    let sender = Sender::new();
    page.publish(name, name, &sender.offer());
    let answer = page.hears("setRemoteSDP");
    sender.answered(answer[1].as_str().unwrap());
    assert_eq!(page.status(), ("PUBLISHING".into(), String::new()));
    page.say("unPublishStream", &json!({"mediaSessionId": name, "name": name}));
    assert_eq!(page.status(), ("UNPUBLISHED".into(), "Stopped by user".into()));
}

#[test]
fn publishers_leave_nothing() {
    let home = Home::new();
    let weir = home.start();
    let mut page = Page::established(&weir);
    (0..20).for_each(|number| publish(&mut page, &format!("p{number}")));
    std::thread::sleep(Duration::from_secs(1));
    let before = used(&weir);
    (20..120).for_each(|number| publish(&mut page, &format!("p{number}")));
    assert!(weir.pipelines("publish-webrtc").is_empty());
    back_to(&weir, before);
}
