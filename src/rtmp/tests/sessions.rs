//! Encoders and players, call by call.

use super::client::*;
use crate::rtmp::amf::Value;
use crate::rtmp::message::Kind;
use crate::rtmp::*;
use bytes::Bytes;

#[test]
fn an_encoder_as_ffmpeg_and_obs_have_it() {
    let mut pair = Pair::new(Limits::default());
    pair.feed(&handshake()).unwrap();
    assert_eq!(pair.output().len(), 3073);
    pair.say(&connect("live/inst?k=1")).unwrap();
    let Some(Event::Connect(connect)) = pair.session.poll_event() else { panic!("no connect") };
    assert_eq!((connect.app.as_str(), connect.instance.as_deref()), ("live", Some("inst")));
    assert_eq!((connect.flash_ver.as_str(), connect.query.as_str()), ("FMLE/3.0", "k=1"));
    pair.session.accept_connect().unwrap();
    let kinds: Vec<Kind> = pair.answers().iter().map(|m| m.kind).collect();
    assert_eq!(kinds, [Kind::WindowSize, Kind::PeerBandwidth, Kind::CommandAmf0]);
    for name in ["releaseStream", "FCPublish", "createStream", "_checkbw"] {
        pair.say(&call(name)).unwrap();
    }
    assert_eq!(pair.codes(), ["_result", "_result", "NetStream.Publish.Start", "_result", "_result"]);
    pair.say(&publish("cam?token=a")).unwrap();
    assert_eq!(pair.session.phase(), Phase::Deciding);
    let expected = Publish {
        name: "cam".into(),
        query: "token=a&k=1".into(),
        app: "live".into(),
        instance: Some("inst".into()),
        kind: PublishKind::Live,
    };
    assert_eq!(pair.events(), [Event::Publish(expected)]);
    pair.session.accept_publish().unwrap();
    assert_eq!(pair.codes(), ["NetStream.Publish.Start"]);
    pair.say(&call("FCUnpublish")).unwrap();
    pair.say(&call("deleteStream")).unwrap();
    assert_eq!(pair.events(), [Event::Unpublish]);
    assert_eq!(pair.codes(), ["_result", "NetStream.Unpublish.Success", "NetStream.Unpublish.Success"]);
    assert_eq!(pair.session.phase(), Phase::Idle);
}

#[test]
fn metadata_bare_and_behind_set_data_frame() {
    let object = Value::EcmaArray(vec![("width".into(), 640.0.into())]);
    let bare = amf(&["onMetaData".into(), object.clone()]);
    let wrapped = amf(&["@setDataFrame".into(), "onMetaData".into(), object]);
    let in_amf3 = [vec![0], wrapped.clone()].concat();
    for (kind, body) in [(18, &bare), (18, &wrapped), (15, &in_amf3)] {
        let mut pair = Pair::publishing();
        let bytes = pair.writer.message(5, kind, 9, body);
        pair.feed(&bytes).unwrap();
        let expected = Event::Metadata {
            timestamp: 9,
            object: vec![("width".into(), 640.0.into())],
            payload: Bytes::from(bare.clone()),
        };
        assert_eq!(pair.events(), [expected]);
    }
    let mut pair = Pair::publishing();
    let bytes = pair.writer.message(5, 18, 9, &amf(&["onFI".into(), Value::Null]));
    pair.feed(&bytes).unwrap();
    assert!(pair.events().is_empty());
}

#[test]
fn names_in_use_are_refused_and_the_connection_stays() {
    let mut pair = Pair::connected(Limits::default());
    pair.say(&publish("x")).unwrap();
    pair.session.reject_publish("NetStream.Publish.BadName", "in use").unwrap();
    assert_eq!(pair.codes(), ["NetStream.Publish.BadName"]);
    assert_eq!(pair.session.phase(), Phase::Idle);
    pair.say(&publish("")).unwrap();
    assert_eq!(pair.codes(), ["NetStream.Publish.BadName"]);
    assert_eq!(pair.events().len(), 1);
}

#[test]
fn a_rejected_connect_closes() {
    let mut pair = Pair::new(Limits::default());
    pair.feed(&handshake()).unwrap();
    pair.say(&connect("live")).unwrap();
    pair.say(&publish("x")).unwrap();
    pair.output();
    pair.session.reject_connect("NetConnection.Connect.Rejected", "no");
    assert_eq!(pair.codes(), ["NetConnection.Connect.Rejected"]);
    assert_eq!(pair.session.phase(), Phase::Closing);
    pair.feed(&[0xff; 1000]).unwrap();
    assert_eq!(pair.events().len(), 1);
}

#[test]
fn a_player_starts_pauses_and_ends() {
    let mut pair = Pair::connected(Limits::default());
    let values = [call("FCSubscribe"), call("getStreamLength"), play("mp4:a.mp4?t=1")];
    for values in &values {
        pair.say(values).unwrap();
    }
    assert_eq!(pair.codes(), ["_result", "NetStream.Play.Start", "_result"]);
    let expected = Play {
        name: "a.mp4".into(),
        query: "t=1".into(),
        app: "live".into(),
        instance: None,
        start: Start::LiveOrRecorded,
    };
    assert_eq!(pair.events(), [Event::Play(expected)]);
    let frame = Frame::video(40, Bytes::from_static(b"v"));
    assert_eq!(pair.session.send(&frame), Delivery::NotPlaying);
    pair.session.accept_play().unwrap();
    assert_eq!(pair.codes(), ["NetStream.Play.Reset", "NetStream.Play.Start"]);
    assert_eq!(pair.session.send(&frame), Delivery::Queued);
    assert_eq!(pair.answers()[0].timestamp, 40);

    let pause = |on: bool| vec!["pause".into(), 0.0.into(), Value::Null, Value::Boolean(on)];
    pair.say(&pause(true)).unwrap();
    assert_eq!(pair.session.send(&frame), Delivery::Muted);
    pair.say(&pause(false)).unwrap();
    assert_eq!(pair.session.send(&frame), Delivery::Queued);
    let video = |on: bool| vec!["receiveVideo".into(), 0.0.into(), Value::Null, Value::Boolean(on)];
    pair.say(&video(false)).unwrap();
    assert_eq!(pair.session.send(&frame), Delivery::Muted);
    assert_eq!(pair.session.send_audio(0, Bytes::new()), Delivery::Queued);
    pair.say(&video(true)).unwrap();
    let paused = |paused| Event::Pause { paused };
    assert_eq!(pair.events(), [paused(true), paused(false), paused(false)]);

    pair.output();
    pair.session.finish_play();
    assert_eq!(pair.codes(), ["NetStream.Play.UnpublishNotify", "NetStream.Play.Stop"]);
    assert_eq!(pair.session.send(&frame), Delivery::NotPlaying);
}

#[test]
fn a_second_play_switches() {
    let mut pair = Pair::playing(Limits::default());
    pair.say(&play("y")).unwrap();
    let events = pair.events();
    assert_eq!(events[0], Event::StopPlay);
    assert!(matches!(&events[1], Event::Play(play) if play.name == "y"));
    pair.session.reject_play("NetStream.Play.StreamNotFound", "y").unwrap();
    assert_eq!(pair.codes(), ["NetStream.Play.StreamNotFound"]);
}

#[test]
fn a_slow_player_is_refused_frames_not_memory() {
    let mut pair = Pair::playing(Limits { max_output: 100_000, ..Limits::default() });
    let frame = Frame::video(0, Bytes::from(vec![0; 30_000]));
    let sent: Vec<Delivery> = (0..5).map(|_| pair.session.send(&frame)).collect();
    assert_eq!(sent[..3], [Delivery::Queued; 3]);
    assert_eq!(sent[3..], [Delivery::Full; 2]);
    assert_eq!(pair.session.output_len(), 3 * frame.wire_len());
    // It can still be told something.
    pair.say(&call("createStream")).unwrap();
    assert_eq!(pair.answers().len(), 4);
}

#[test]
fn acknowledges_at_half_the_window() {
    let mut pair = Pair::publishing();
    let bytes = pair.writer.message(2, 5, 0, &100_000u32.to_be_bytes());
    pair.feed(&bytes).unwrap();
    assert!(pair.answers().is_empty());
    let mut acks = Vec::new();
    for _ in 0..10 {
        let bytes = pair.writer.message(6, VIDEO, 0, &[7; 20_000]);
        pair.feed(&bytes).unwrap();
        acks.extend(pair.answers());
    }
    assert!(acks.iter().all(|m| m.kind == Kind::Acknowledgement));
    assert_eq!(acks.len(), 3);
    // A window of nothing does not make an answer of every byte.
    let bytes = pair.writer.message(2, 5, 0, &0u32.to_be_bytes());
    pair.feed(&bytes).unwrap();
    pair.output();
    let bytes = pair.writer.message(6, VIDEO, 0, &[7; 10_000]);
    for byte in bytes.chunks(1) {
        pair.feed(byte).unwrap();
    }
    assert_eq!(pair.answers().len(), 2);
}

#[test]
fn pings_and_bandwidth_are_answered() {
    let mut pair = Pair::connected(Limits::default());
    let ping = pair.writer.message(2, 4, 0, &[0, 6, 1, 2, 3, 4]);
    pair.feed(&ping).unwrap();
    let buffer = pair.writer.message(2, 4, 0, &[0, 3, 0, 0, 0, 1, 0, 0, 11, 184]);
    pair.feed(&buffer).unwrap();
    let answers = pair.answers();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].payload[..], [0, 7, 1, 2, 3, 4]);
    let bandwidth = pair.writer.message(2, 6, 0, &[0, 0, 0x10, 0, 2]);
    pair.feed(&bandwidth).unwrap();
    assert_eq!(pair.answers()[0].kind, Kind::WindowSize);
    pair.session.ping(9);
    assert_eq!(pair.answers()[0].payload[..], [0, 6, 0, 0, 0, 9]);
}

#[test]
fn calls_nobody_knows_get_an_error() {
    let mut pair = Pair::connected(Limits::default());
    pair.say(&call("launchMissiles")).unwrap();
    assert_eq!(pair.codes(), ["NetConnection.Call.Failed"]);
    pair.say(&["hint".into(), 0.0.into()]).unwrap();
    pair.say(&["_result".into(), 3.0.into()]).unwrap();
    assert!(pair.codes().is_empty());
}

#[test]
fn commands_in_amf3_dress() {
    let mut pair = Pair::connected(Limits::default());
    let body = [vec![0], amf(&publish("x"))].concat();
    let bytes = pair.writer.message(3, 17, 0, &body);
    pair.feed(&bytes).unwrap();
    assert!(matches!(&pair.events()[..], [Event::Publish(p)] if p.name == "x"));
}

#[test]
fn everything_in_one_read_waits_for_each_answer() {
    let mut pair = Pair::new(Limits::default());
    let mut bytes = handshake();
    bytes.extend(pair.writer.command(&connect("live")));
    bytes.extend(pair.writer.command(&call("createStream")));
    bytes.extend(pair.writer.command(&publish("x")));
    bytes.extend(pair.writer.message(6, VIDEO, 5, b"v"));
    pair.feed(&bytes).unwrap();
    assert!(matches!(pair.events()[..], [Event::Connect(_)]));
    pair.session.accept_connect().unwrap();
    assert!(matches!(pair.events()[..], [Event::Publish(_)]));
    // An answer to a question nobody asked changes nothing.
    pair.session.accept_play().unwrap();
    pair.session.accept_connect().unwrap();
    pair.session.accept_publish().unwrap();
    assert!(matches!(pair.events()[..], [Event::Video { timestamp: 5, .. }]));
}
