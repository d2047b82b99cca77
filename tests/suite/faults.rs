//! Sources that are not there, talk nonsense, fall silent, leave and come back; and streams beside them that flow on.

use std::time::{Duration, Instant};

use crate::support;
use crate::support::{
    Clip, Dumb, Home, Media, Nginx, Publisher, Signal, Weir, dead_port, decodes, probe, wait, wait_until,
};

/// A server with short patience.
fn weir(home: &Home) -> Weir {
    let setup = home.setup().set("pull_connect_timeout=2s").set("pull_stall_timeout=1500").set("pull_reconnect_max=1s");
    let mut weir = setup.set("stream_record_policy=streamName").start();
    weir.tolerate("pull has no source");
    weir
}

/// Waits until the agent's last try has ended for a reason that holds `text`.
fn fails_with(weir: &Weir, name: &str, text: &str) -> String {
    wait(&format!("{name} to fail with {text:?}; it is {:?}", weir.agent(name)), support::SOON, || {
        let agent = weir.agent(name)?;
        let reason = agent["lastError"].as_str()?;
        reason.contains(text).then(|| reason.to_owned())
    })
}

#[test]
fn a_source_that_cannot_be_had_leaves_the_others_in_peace() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("good"));
    let (garbage, silent) = (Dumb::start(&[b'x'; 8192]), Dumb::start(b""));
    let half = Dumb::start(&[3; 1500]);
    let weir = weir(&home);
    weir.pull(&nginx.uri("good"), "good", false);
    weir.pull(&dead_port(), "dead", true);
    weir.pull(&nginx.uri("a").replace("/live/", "/other/"), "wrong app", false);
    weir.pull(&nginx.uri("nobody"), "unpublished", false);
    weir.pull(&garbage.uri(), "garbage", false);
    weir.pull(&silent.uri(), "silent", false);
    weir.pull(&half.uri(), "half", false);
    weir.pull("rtmp://no-such-host.invalid/live/a", "nameless", false);
    weir.wait_frames("good", 5);
    let before = weir.frames("good").0;
    for (name, reason) in [
        ("dead", "Connection refused"),
        ("wrong app", ""),
        ("unpublished", "nothing is published there"),
        ("garbage", ""),
        ("silent", "no answer within 2 s"),
        ("half", "no answer within 2 s"),
        ("nameless", "no-such-host.invalid"),
    ] {
        let said = fails_with(&weir, name, reason);
        println!("{name}: {said}");
        assert!(said.len() > 10 && !said.contains("0x"), "{name}: {said}");
        let agent = weir.agent(name).unwrap();
        assert!(agent["attempts"].as_u64() > Some(0), "{agent}");
        let stream = weir.stream(name).unwrap();
        assert_eq!((&stream["status"], &stream["hasVideo"]), (&"PENDING".into(), &false.into()), "{stream}");
    }
    wait_until("the dead one to be tried again", || weir.agent("dead").unwrap()["attempts"].as_u64() > Some(2));
    weir.wait_frames("good", before + 20);
    assert_eq!(weir.agent("good").unwrap()["attempts"], 0);
    assert!(home.files(".mp4").is_empty());
}

#[test]
fn an_agent_gives_up_when_it_is_told_to_and_can_be_started_again() {
    let home = Home::new();
    let setup = home.setup().set("pull_reconnect_attempts=2").set("pull_reconnect_initial=50");
    let mut weir = setup.start();
    weir.announce("pull gave up");
    weir.tolerate("pull has no source");
    let uri = dead_port();
    weir.pull(&uri, "a", false);
    let agent = weir.wait_agent("a", "FAILED");
    assert_eq!(agent["attempts"], 2);
    assert!(agent["lastError"].as_str().unwrap().contains("refused"), "{agent}");
    assert!(weir.stream("a").is_none(), "its name is free again");
    weir.pull(&uri, "b", false);
    weir.wait_agent("b", "FAILED");
    assert!(weir.agent("a").is_none());
    weir.terminate("b");
    assert!(weir.agent("b").is_none());
}

#[test]
fn terminate_while_connecting() {
    let home = Home::new();
    let silent = Dumb::start(b"");
    let weir = home.start();
    for name in ["one", "two", "three"] {
        weir.pull(&silent.uri(), name, true);
        weir.wait_agent(name, "NEW");
        let began = Instant::now();
        weir.terminate(name);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(weir.stream(name).is_none() && weir.agent(name).is_none());
    }
    wait_until("the pipelines to be gone", || weir.get("/rest-api/pipelines").body == "[]");
}

/// A stream is recorded while `fault` breaks its source and `repair` mends it: the same stream, the same file.
fn survives(
    reason: &str,
    fault: impl FnOnce(&mut Nginx, Publisher) -> Option<Publisher>,
    mend: impl FnOnce(&mut Nginx, Option<Publisher>) -> Publisher,
) {
    let (home, mut nginx, other) = (Home::new(), Nginx::start(), Nginx::start());
    let publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let _beside = Publisher::start(Clip::LONG, &other.uri("b"));
    let mut weir = weir(&home);
    weir.announce("stream interrupted");
    weir.tolerate("recording");
    weir.pull(&nginx.uri("a"), "a", true);
    weir.pull(&other.uri("b"), "b", false);
    weir.wait_frames("a", 40);
    weir.wait_frames("b", 1);
    let session = weir.stream("a").unwrap()["mediaSessionId"].clone();
    let publisher = fault(&mut nginx, publisher);
    let line = weir.wait_log("stream interrupted");
    assert!(line.contains(reason), "{line}");
    let (before, beside) = (weir.frames("a").0, weir.frames("b").0);
    let stream = weir.stream("a").unwrap();
    assert_eq!(
        (&stream["mediaSessionId"], &stream["status"]),
        (&session, &"PUBLISHING".into()),
        "it waits for its source"
    );
    wait_until("the stream beside it to flow on", || weir.frames("b").0 > beside + 10);
    let _publisher = mend(&mut nginx, publisher);
    wait_until("the stream to flow again", || weir.frames("a").0 > before + 40);
    assert_eq!(weir.stream("a").unwrap()["mediaSessionId"], session, "the same stream");
    weir.wait_agent("a", "PROCESSED_REMOTE");
    let counted = weir.frames("a").0;
    weir.terminate("a");
    wait_until("the recording to be in place", || home.files(".tmp").is_empty() && !home.finished().is_empty());
    let files = home.finished();
    files.iter().for_each(|file| decodes(file));
    let frames: usize = files.iter().map(|file| probe(file).video.len()).sum();
    println!("{frames} frames of {counted} in {files:?}");
    // The stream was joined in the middle; at most what came before its first keyframe is missing, twice.
    assert!(frames as u64 + 50 >= counted, "{frames} frames of {counted}");
    let media = probe(&files[0]);
    assert!(media.video.windows(2).all(|two| two[0].dts < two[1].dts));
    assert!((Media::end(&media.video) - Media::end(&media.audio)).abs() < 0.2, "{media:?}");
}

#[test]
fn a_publisher_that_leaves_and_comes_back() {
    let leaves = |_: &mut Nginx, publisher: Publisher| {
        publisher.leave();
        None
    };
    survives("the source has ended the stream", leaves, |nginx, _| Publisher::start(Clip::LONG, &nginx.uri("a")));
}

#[test]
fn a_server_that_dies_and_comes_back() {
    let dies = |nginx: &mut Nginx, _| {
        nginx.stop();
        None
    };
    survives("", dies, |nginx, _| {
        nginx.restart();
        Publisher::start(Clip::LONG, &nginx.uri("a"))
    });
}

#[test]
fn a_server_that_stalls_and_goes_on() {
    let stalls = |nginx: &mut Nginx, publisher| {
        nginx.signal(Signal::STOP);
        Some(publisher)
    };
    survives("no data for 1.5 s", stalls, |nginx, publisher| {
        nginx.signal(Signal::CONT);
        publisher.unwrap()
    });
}

#[test]
fn a_publisher_that_stalls_and_goes_on() {
    let stalls = |_: &mut Nginx, publisher: Publisher| {
        publisher.signal(Signal::STOP);
        Some(publisher)
    };
    survives("no data for 1.5 s", stalls, |_, publisher| {
        let publisher = publisher.unwrap();
        publisher.signal(Signal::CONT);
        publisher
    });
}

#[test]
fn a_source_that_starts_late() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let weir = weir(&home);
    weir.pull(&nginx.uri("late"), "late", true);
    fails_with(&weir, "late", "nothing is published there");
    let _publisher = Publisher::start(Clip::AV, &nginx.uri("late"));
    weir.wait_frames("late", 30);
    assert_eq!(weir.agent("late").unwrap()["attempts"], 0);
    weir.terminate("late");
    decodes(&home.wait_finished(1)[0]);
}

#[test]
fn an_sdp_that_says_recvonly_records_sound_only() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let sdp = home.path().join("agent.sdp");
    let text = include_str!("../../conf/rtmp_agent.sdp").replace("a=sendonly", "a=recvonly");
    std::fs::write(&sdp, text).unwrap();
    let weir = home.setup().set(&format!("rtmp_agent_sdp={}", sdp.display())).start();
    weir.pull(&nginx.uri("a"), "a", true);
    weir.wait_frames("a", 60);
    weir.terminate("a");
    let media = probe(&home.wait_finished(1)[0]);
    assert!(media.video.is_empty() && media.audio.len() > 20, "{media:?}");
}

#[test]
fn an_sdp_without_a_rate_or_a_kind_leaves_the_track_out() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let _sound = Publisher::start(Clip::AUDIO, &nginx.uri("sound"));
    let sdp = home.path().join("agent.sdp");
    let text = include_str!("../../conf/rtmp_agent.sdp").replace("a=rtpmap:103 mpeg4-generic/44100/1\n", "");
    std::fs::write(&sdp, text).unwrap();
    let mut weir =
        home.setup().set(&format!("rtmp_agent_sdp={}", sdp.display())).set("pull_connect_timeout=3s").start();
    weir.announce("nothing of the source may be brought");
    weir.pull(&nginx.uri("a"), "a", false);
    weir.wait_frames("a", 5);
    assert_eq!(weir.stream("a").unwrap()["hasAudio"], false);
    weir.wait_log(
        "the source's audio is left out: rtmp_agent.sdp (setting rtmp_agent_sdp) does not list AAC at 44100 Hz",
    );
    weir.pull(&nginx.uri("sound"), "sound", false);
    fails_with(&weir, "sound", "nothing of the source may be brought");
}

/// nginx lets a player have sound at once and pictures from the next keyframe on.
#[test]
fn a_stream_is_not_live_without_the_pictures_that_its_source_announces() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let mut weir = home.setup().set("stream_record_policy=streamName").start();
    let clips = [("two", Clip::GOP_2), ("four", Clip::GOP_4), ("ten", Clip::LONG_GOP), ("sound", Clip::LONG_AUDIO)];
    let publishers = clips.map(|(name, clip)| Publisher::start(clip, &nginx.uri(name)));
    // Into the middle of a group: each has begun with a keyframe.
    std::thread::sleep(Duration::from_millis(2500));
    let began = Instant::now();
    clips.iter().for_each(|(name, _)| weir.pull(&nginx.uri(name), name, true));
    std::thread::scope(|scope| {
        for (name, clip) in clips {
            let weir = &weir;
            scope.spawn(move || {
                let live = wait(&format!("{name} to be live"), Duration::from_secs(25), || {
                    weir.stream(name).filter(|stream| stream["status"] == "PUBLISHING")
                });
                println!("{name}: live after {:?}", began.elapsed());
                let pictures = clip.video_frames() > 0;
                assert_eq!((&live["hasVideo"], &live["hasAudio"]), (&pictures.into(), &true.into()), "{live}");
                if !pictures {
                    assert!(
                        began.elapsed() < Duration::from_secs(10),
                        "nothing announces pictures: none are waited for"
                    );
                }
                weir.wait_log(&format!("recording started stream={name} "));
                let (video, audio) = weir.frames(name);
                weir.wait_frames(name, video.max(audio) + 30);
                weir.terminate(name);
            });
        }
    });
    for file in home.wait_finished(clips.len()) {
        decodes(&file);
        let media = probe(&file);
        let sound_only = file.to_string_lossy().contains("sound");
        assert_eq!(media.video.is_empty(), sound_only, "{file:?}");
    }
    weir.tolerate("pull has no source");
    weir.tolerate("stream interrupted");
    drop(publishers);
}
