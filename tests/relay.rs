//! The relay with str0m viewers in process; a program of its own, since threads and descriptors of the process are
//! counted.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use weir::webrtc::relay::*;

#[path = "suite/viewer/mod.rs"]
mod viewer;
use viewer::*;

const S: Duration = Duration::from_secs(1);
/// By when something must have happened, however busy the machine is.
const SOON: Duration = Duration::from_secs(60);

fn setup(config: RelayConfig, shape: Shape) -> (Relay, Arc<RelayStream>, Feeder) {
    let relay = Relay::start(config).unwrap();
    let stream = Arc::new(relay.stream(stream_config(None)));
    let feeder = Feeder::start(Arc::clone(&stream), shape);
    (relay, stream, feeder)
}

#[test]
fn a_late_viewer_starts_with_the_last_keyframe_and_in_sync() {
    let (relay, stream, _feeder) = setup(config(), Shape { gop: 100_000, ..MBIT });
    std::thread::sleep(4 * S);
    let gop = stream.snapshot().gop_packets;
    let (mut client, mut viewer) = Client::join(&relay, &stream);
    assert!(drive(&mut [&mut client], SOON, |c| c[0].video.packets.len() > gop + 100 && c[0].audio.packets.len() > 150));
    assert_eq!(next_event(&mut viewer, SOON), Some(ViewerEvent::Connected));
    assert_eq!(next_event(&mut viewer, SOON), Some(ViewerEvent::Flowing));

    let packets: Vec<_> = client.video.packets.values().collect();
    println!(
        "connected {:?}, first video {:?}, gop {gop} packets",
        client.connected.unwrap() - client.joined,
        client.video.first.unwrap() - client.joined
    );
    assert_eq!(packets[0].1.payload[0], 0x67, "the first packet is the keyframe's SPS");
    assert_eq!(client.video.missing(), 0);

    // timestamps never go back, stay the same inside a frame, and the burst does not last longer than it took to send
    let ts: Vec<u32> = packets.iter().map(|(_, p)| p.header.timestamp).collect();
    assert!(ts.windows(2).all(|w| w[1].wrapping_sub(w[0]) < 90_000), "monotonic");
    let burst = f64::from(ts[gop].wrapping_sub(ts[0])) / 90_000.0;
    let took = packets[gop].0 - packets[0].0;
    println!("burst of {gop} packets labelled {burst:.3} s, took {took:?}");
    assert!(burst < 1.0 && burst < took.as_secs_f64() + 0.1);

    // sync: the sender reports put a video and an audio packet that arrived together at the same time
    let ntp = |packet: &str0m::rtp::RtpPacket, rate: f64| {
        let info = packet.last_sender_info.as_ref().expect("a sender report came");
        let unix = info.ntp_time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let sr = info.rtp_time.rebase(str0m::media::Frequency::new(rate as u32).unwrap()).numer() as u32;
        unix + f64::from(packet.header.timestamp.wrapping_sub(sr) as i32) / rate
    };
    let (at, video) = client.video.packets.values().next_back().unwrap();
    let (_, audio) =
        client.audio.packets.values().min_by_key(|(a, _)| if a > at { *a - *at } else { *at - *a }).unwrap();
    let skew = ntp(video, 90_000.0) - ntp(audio, 48_000.0);
    println!("skew {:.1} ms", skew * 1000.0);
    assert!(skew.abs() < 0.1, "{skew}");
    // every report so far was usable
    for (_, p) in client.video.packets.values() {
        if let Some(info) = &p.last_sender_info {
            assert_ne!(info.rtp_time.numer() as u32, 0);
        }
    }
    let snapshot = viewer.snapshot();
    assert_eq!((snapshot.state, snapshot.starts, snapshot.dropped), (ViewerState::Connected, 1, 0));
    relay.stop();
}

/// A viewer who is there before the first packet gets its first report while the past is pushed, and the others while the
/// stream is live. A browser draws one line through them all.
#[test]
fn every_report_tells_the_same_clock_whatever_is_pushed_first() {
    let relay = Relay::start(config()).unwrap();
    let stream = Arc::new(relay.stream(stream_config(None)));
    let (mut client, _viewer) = Client::join(&relay, &stream);
    assert!(drive(&mut [&mut client], SOON, |c| c[0].connected.is_some()));

    let live = 100 * S;
    stream.stands_at(live);
    let began = Instant::now();
    let push = |number: u64| {
        let time = live + Duration::from_millis(number * 40) - Duration::from_millis(1_680);
        stream.push_list(Kind::Video, frame(Shape { gop: 1_000, ..MBIT }, number, time));
        if time >= live {
            let timestamp = (time.as_micros() as u64 * 48 / 1000) as u32;
            stream.push(Kind::Audio, RtpPacket { payload: vec![0xfc; 80].into(), timestamp, time, marker: true });
        }
        time
    };
    push(0);
    assert!(drive(&mut [&mut client], SOON, |c| !c[0].video.packets.is_empty()));
    let clocks = |got: &Got| {
        let infos = got.packets.values().filter_map(|(_, packet)| packet.last_sender_info.as_ref());
        let mut clocks: Vec<_> = infos.map(|info| (info.ntp_time, info.rtp_time.numer() as u32)).collect();
        clocks.dedup();
        clocks
    };
    let told = |client: &Client| clocks(&client.video).len().min(clocks(&client.audio).len());
    let mut number = 1;
    while told(&client) < 4 && began.elapsed() < 20 * S {
        let due = (push(number) + Duration::from_millis(40)).saturating_sub(live);
        drive(&mut [&mut client], due.saturating_sub(began.elapsed()), |_| false);
        number += 1;
    }

    for (got, rate) in [(&client.video, 90_000_u32), (&client.audio, 48_000)] {
        let clocks = clocks(got);
        assert!(clocks.len() >= 4, "{clocks:?}");
        let (first, rtp) = clocks[0];
        for (at, now) in &clocks {
            let ticks = f64::from(now.wrapping_sub(rtp)) / f64::from(rate);
            let apart = (at.duration_since(first).unwrap().as_secs_f64() - ticks).abs();
            assert!(apart < 0.006, "a report is {apart:.3} s off the first one: {clocks:?}");
        }
    }
    relay.stop();
}

#[test]
fn five_percent_loss_is_repaired() {
    let (relay, stream, _feeder) = setup(config(), MBIT);
    std::thread::sleep(S);
    let (mut client, viewer) = Client::join(&relay, &stream);
    // This client asks again only for the last hundred packets, which the pictures of the past outrun (browsers remember
    // thousands).
    drive(&mut [&mut client], S, |_| false);
    client.loss = 0.05;
    let mut snapshot = viewer.snapshot();
    assert!(drive(&mut [&mut client], SOON, |c| {
        snapshot = viewer.snapshot();
        let known = snapshot.nacks > 20 && snapshot.lost > 0 && snapshot.loss > 0.0;
        known && c[0].thrown > 60 && c[0].video.packets.len() > 1000
    }));
    client.loss = 0.0;
    drive(&mut [&mut client], SOON, |c| c[0].video.missing() == 0);
    println!(
        "thrown {}, video {} missing {}, {snapshot:?}",
        client.thrown,
        client.video.packets.len(),
        client.video.missing()
    );
    assert_eq!(client.video.missing(), 0, "all repaired");
}

#[test]
fn keyframe_requests_are_throttled() {
    let requests = Arc::new(AtomicUsize::new(0));
    let relay = Relay::start(config()).unwrap();
    let counter = Arc::clone(&requests);
    let on_request: KeyframeRequest = Box::new(move || {
        counter.fetch_add(1, SeqCst);
    });
    let stream = Arc::new(relay.stream(stream_config(Some(on_request))));
    let _feeder = Feeder::start(Arc::clone(&stream), MBIT);
    std::thread::sleep(S / 2);
    let (mut a, viewer) = Client::join(&relay, &stream);
    let (mut b, _viewer_b) = Client::join(&relay, &stream);
    assert!(drive(&mut [&mut a, &mut b], SOON, |c| c.iter().all(|c| c.video.packets.len() > 100)));
    let before = requests.load(SeqCst);
    let mut last = Instant::now();
    drive(&mut [&mut a, &mut b], 2 * S, |clients| {
        if last.elapsed() > Duration::from_millis(30) {
            last = Instant::now();
            for client in clients.iter_mut() {
                client.ask_keyframe();
            }
        }
        false
    });
    let made = requests.load(SeqCst) - before;
    drive(&mut [&mut a, &mut b], S + S / 2, |_| false);
    println!("{made} requests of {} PLIs", viewer.snapshot().plis);
    assert!((3..=5).contains(&made), "{made}");
    assert!(viewer.snapshot().plis > 10);
}

#[test]
fn a_viewer_whose_requests_find_nobody_is_started_again() {
    let (relay, stream, _feeder) = setup(config(), Shape { gop: 100_000, ..MBIT });
    std::thread::sleep(S);
    let (mut client, viewer) = Client::join(&relay, &stream);
    assert!(drive(&mut [&mut client], SOON, |c| c[0].video.packets.len() > 250));
    drive(&mut [&mut client], 3 * S, |_| false);
    client.ask_keyframe();
    let starts = |c: &Client| c.video.packets.values().filter(|(_, p)| p.payload[0] == 0x67).count();
    let again = || viewer.snapshot().starts == 2;
    assert!(drive(&mut [&mut client], SOON, |c| again() && starts(c[0]) == 2 && c[0].video.missing() == 0));
    assert_eq!(client.video.missing(), 0);
    let ts: Vec<u32> = client.video.packets.values().map(|(_, p)| p.header.timestamp).collect();
    assert!(ts.windows(2).all(|w| w[1].wrapping_sub(w[0]) < 90_000), "monotonic");
}

#[test]
fn a_vanished_viewer_is_dropped_and_hurts_nobody() {
    let config = RelayConfig { silence_timeout: 2 * S, connect_timeout: 2 * S, shards: 1, ..config() };
    let (relay, stream, _feeder) = setup(config, MBIT);
    let (mut gone, mut viewer_gone) = Client::join(&relay, &stream);
    let (mut stays, mut viewer_stays) = Client::join(&relay, &stream);
    let (_never, mut viewer_never) = Client::join(&relay, &stream);
    assert!(drive(&mut [&mut gone, &mut stays], SOON, |c| c.iter().all(|c| c.video.packets.len() > 50)));
    assert_eq!(stream.snapshot().viewers, 2);
    let mut never = None;
    assert!(drive(&mut [&mut stays], SOON, |_| {
        never = never.take().or_else(|| next_event(&mut viewer_never, Duration::ZERO));
        never.is_some() && stream.snapshot().viewers == 1
    }));
    assert_eq!(never, Some(ViewerEvent::Ended(EndReason::IceTimeout)));
    assert_eq!(next_event(&mut viewer_gone, SOON), Some(ViewerEvent::Connected));
    assert_eq!(next_event(&mut viewer_gone, SOON), Some(ViewerEvent::Flowing));
    assert_eq!(next_event(&mut viewer_gone, SOON), Some(ViewerEvent::Ended(EndReason::Vanished)));
    assert_eq!(next_event(&mut viewer_gone, SOON), None);
    assert_eq!(next_event(&mut viewer_stays, SOON), Some(ViewerEvent::Connected));
    assert_eq!(next_event(&mut viewer_stays, SOON), Some(ViewerEvent::Flowing));
    assert_eq!(stream.snapshot().viewers, 1);
    assert_eq!(stays.video.missing(), 0);
    let arrivals: Vec<_> = stays.video.packets.values().map(|(at, _)| *at).collect();
    let gap = arrivals.windows(2).map(|w| w[1].saturating_duration_since(w[0])).max().unwrap();
    println!("longest gap {gap:?}");
    // Nobody waits while the relay gives somebody up, which takes it 2 s.
    assert!(gap < S);
}

#[test]
fn a_slow_line_is_reported_and_hurts_nobody() {
    let config = RelayConfig { bandwidth_event_interval: 4 * S, shards: 1, ..config() };
    let (relay, stream, _feeder) = setup(config, MBIT);
    std::thread::sleep(S);
    let (mut slow, mut viewer_slow) = Client::join(&relay, &stream);
    let (mut fast, viewer_fast) = Client::join(&relay, &stream);
    slow.limit = Some(500_000.0);
    let mut told = Vec::new();
    assert!(drive(&mut [&mut slow, &mut fast], SOON, |_| {
        told.extend(next_event(&mut viewer_slow, Duration::ZERO));
        told.len() == 3 && viewer_fast.snapshot().estimate_bps.is_some_and(|bps| bps > 1_000_000)
    }));
    println!("slow {:?}", viewer_slow.snapshot());
    println!("fast estimate {:?}", viewer_fast.snapshot().estimate_bps);
    assert_eq!(told[..2], [ViewerEvent::Connected, ViewerEvent::Flowing]);
    let ViewerEvent::NotEnoughBandwidth { stream_bps, estimate_bps } = told[2] else { panic!("{told:?}") };
    assert!(estimate_bps < stream_bps && stream_bps > 900_000);
    assert_eq!(fast.video.missing(), 0);
}

#[test]
fn a_wrong_certificate_ends_in_the_handshake() {
    let (relay, stream, _feeder) = setup(config(), MBIT);
    let (mut client, mut viewer) = Client::join_with(&relay, &stream, |offer| {
        let at = offer.find("a=fingerprint:sha-256 ").unwrap() + 22;
        let old = &offer[at..at + 95];
        offer.replace(old, &["00"; 32].join(":"))
    });
    let mut told = None;
    drive(&mut [&mut client], SOON, |_| {
        told = next_event(&mut viewer, Duration::ZERO);
        told.is_some()
    });
    assert_eq!(told, Some(ViewerEvent::Ended(EndReason::WrongCertificate)));
}

#[test]
fn a_stream_that_ends_ends_its_viewers() {
    let relay = Relay::start(config()).unwrap();
    let stream = Arc::new(relay.stream(stream_config(None)));
    let feeder = Feeder::start(Arc::clone(&stream), MBIT);
    let (mut client, mut viewer) = Client::join(&relay, &stream);
    let (_waiting, mut viewer_waiting) = Client::join(&relay, &stream);
    assert!(drive(&mut [&mut client], SOON, |c| c[0].video.packets.len() > 50));
    drop(feeder);
    drop(stream);
    assert!(drive(&mut [&mut client], SOON, |c| c[0].closed), "the browser is told");
    assert_eq!(next_event(&mut viewer, SOON), Some(ViewerEvent::Connected));
    assert_eq!(next_event(&mut viewer, SOON), Some(ViewerEvent::Flowing));
    assert_eq!(next_event(&mut viewer, SOON), Some(ViewerEvent::Ended(EndReason::StreamEnded)));
    assert_eq!(next_event(&mut viewer_waiting, SOON), Some(ViewerEvent::Ended(EndReason::StreamEnded)));
}

#[test]
fn a_viewer_may_check_from_several_addresses() {
    let (relay, stream, _feeder) = setup(config(), MBIT);
    // the first check comes from an address that leads nowhere; half of the time the one that works is the other shard's
    let joined = (0..8).map(|_| {
        let (mut client, viewer) = Client::join(&relay, &stream);
        client.decoy = Some((UdpSocket::bind("127.0.0.1:0").unwrap(), 1));
        (client, viewer)
    });
    let (mut clients, viewers): (Vec<Client>, Vec<Viewer>) = joined.unzip();
    let mut all: Vec<&mut Client> = clients.iter_mut().collect();
    // Its reports arrive, whatever shard gets them.
    let measured = || viewers.iter().all(|viewer| viewer.snapshot().rtt.is_some());
    assert!(drive(&mut all, SOON, |c| measured() && c.iter().all(|c| c.video.packets.len() > 100)));
    for (client, viewer) in clients.iter().zip(&viewers) {
        assert_eq!(client.video.missing(), 0);
        assert_eq!(viewer.snapshot().remote, Some(client.socket.local_addr().unwrap()));
    }
}

#[test]
fn hostile_datagrams_do_no_harm() {
    let (relay, stream, _feeder) = setup(config(), MBIT);
    let (mut client, viewer) = Client::join(&relay, &stream);
    assert!(drive(&mut [&mut client], SOON, |c| c[0].video.packets.len() > 50));
    let to = relay.candidates()[0];
    let ufrag = client.answer.split("a=ice-ufrag:").nth(1).unwrap().lines().next().unwrap().to_owned();
    let flood = std::thread::spawn(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut random = 1u64;
        let mut next = || {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            random >> 33
        };
        let stun = |user: &str| {
            let mut out = vec![0, 1, 0, (4 + user.len().next_multiple_of(4)) as u8, 0x21, 0x12, 0xa4, 0x42];
            out.extend([9; 12]);
            out.extend([0, 6, 0, user.len() as u8]);
            out.extend(user.as_bytes());
            out.resize(out.len().next_multiple_of(4), 0);
            out
        };
        let end = Instant::now() + 3 * S;
        let mut sent = 0u64;
        while Instant::now() < end {
            let mut bytes: Vec<u8> = (0..next() % 1500).map(|_| next() as u8).collect();
            match next() % 6 {
                0 => bytes = stun("unknown:user"),
                1 => bytes = stun(&format!("{ufrag}:x")),
                2 => {
                    bytes = stun(&format!("{ufrag}:x"));
                    let at = next() as usize % bytes.len();
                    bytes[at] = next() as u8;
                }
                3 if bytes.len() > 20 => bytes[..8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]),
                4 if !bytes.is_empty() => bytes[0] = 22,
                5 if !bytes.is_empty() => bytes[0] = 0x80,
                _ => {}
            }
            if socket.send_to(&bytes, to).is_ok() {
                sent += 1;
            }
        }
        sent
    });
    let before = client.video.packets.len();
    assert!(drive(&mut [&mut client], SOON, |c| flood.is_finished() && c[0].video.packets.len() > before + 300));
    let (sent, got) = (flood.join().unwrap(), client.video.packets.len() - before);
    println!("{sent} hostile datagrams in 3 s, {got} video packets meanwhile, missing {}", client.video.missing());
    assert_eq!(client.video.missing(), 0);
    assert_eq!(viewer.snapshot().state, ViewerState::Connected);
}

#[test]
fn hostile_datagrams_from_the_viewers_own_address_do_no_harm_to_others() {
    let (relay, stream, _feeder) = setup(RelayConfig { shards: 1, ..config() }, MBIT);
    let (mut bad, _viewer_bad) = Client::join(&relay, &stream);
    let (mut good, viewer_good) = Client::join(&relay, &stream);
    assert!(drive(&mut [&mut bad, &mut good], SOON, |c| c.iter().all(|c| c.video.packets.len() > 50)));
    let to = relay.candidates()[0];
    let mut random = 1u64;
    let mut next = || {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as u8
    };
    for round in 0..5000usize {
        let mut bytes: Vec<u8> = (0..round % 300).map(|_| next()).collect();
        if let Some(first) = bytes.first_mut() {
            *first = [0x80, 0x81, 22, 23, 0, 20][round % 6];
        }
        if bytes.len() > 2 && round % 3 == 0 {
            bytes[1] = 200 + (round % 8) as u8;
        }
        let _ = bad.socket.send_to(&bytes, to);
        if round % 50 == 0 {
            drive(&mut [&mut bad, &mut good], Duration::from_millis(5), |_| false);
        }
    }
    let before = good.video.packets.len();
    assert!(drive(&mut [&mut good], SOON, |c| c[0].video.packets.len() > before + 80));
    assert_eq!(good.video.missing(), 0);
    assert_eq!(viewer_good.snapshot().state, ViewerState::Connected);
}

#[test]
fn a_hundred_viewers_add_no_thread_and_leave_nothing() {
    let (relay, stream, feeder) = setup(config(), MBIT);
    std::thread::sleep(S / 2);
    let mut clients = vec![];
    let mut viewers = vec![];
    let before = resources();
    for _ in 0..100 {
        let (mut client, viewer) = Client::join(&relay, &stream);
        client.keep = false;
        clients.push(client);
        viewers.push(viewer);
    }
    let mut all: Vec<&mut Client> = clients.iter_mut().collect();
    assert!(drive(&mut all, SOON, |c| c.iter().all(|c| c.count > 200)));
    let during = resources();
    // one socket a client is this test's own
    println!("threads and files before {before:?}, with 100 viewers {during:?}");
    assert_eq!(stream.snapshot().viewers, 100);
    // A farewell is one datagram, and a client that is behind has no room for it.
    drop(feeder);
    let mut got = 0;
    assert!(drive(&mut all, SOON, |c| {
        std::thread::sleep(S / 10);
        let before = std::mem::replace(&mut got, c.iter().map(|c| c.count).sum());
        got == before
    }));
    viewers.clear();
    assert!(drive(&mut all, SOON, |c| c.iter().all(|c| c.closed)), "the browsers are told");
    assert_eq!(stream.snapshot().viewers, 0);
    drop(clients);
    let after = resources();
    println!("after {after:?}");
    relay.stop();
}

#[test]
fn errors_of_the_caller() {
    let relay = Relay::start(config()).unwrap();
    let stream = relay.stream(stream_config(None));
    let join = |offer: &str| relay.join(&stream, offer, &JoinOptions::default()).map(|_| ()).unwrap_err();
    assert!(matches!(join("garbage"), JoinError::Sdp(SdpError::Malformed(_))));
    let play = include_str!("../src/webrtc/offers/chromium156_publish.sdp");
    assert_eq!(join(play).to_string(), "No common codecs");
    let taken = RelayConfig { port: relay.candidates()[0].port(), ..config() };
    assert!(matches!(Relay::start(taken), Err(StartError::Io(_))));
    assert!(matches!(Relay::start(RelayConfig::default()), Err(StartError::NoAddress)));
}
