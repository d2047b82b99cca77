//! Recordings on demand: REST starts, replaces and ends them, lists and deletes their files.

use std::time::Duration;

use crate::support::{Clip, Home, Nginx, Publisher, Setup, Weir, decodes, probe, wait, wait_until};
use serde_json::{Value, json};

const START: [&str; 2] = ["/rest-api/stream/startRecording", "/rest-api/recorder/startup"];
const STOP: [&str; 2] = ["/rest-api/stream/stopRecording", "/rest-api/recorder/terminate"];
const FIND_ALL: &str = "/rest-api/recorder/find_all";
const FILES: &str = "/rest-api/recordings";

fn setup(home: &Home) -> Setup {
    home.setup().set("stream_record_policy=streamName").set("record_min_free_space=0")
}

/// A server that pulls a stream `a` which is not recorded, and the stream's media session.
fn pulled(setup: Setup, nginx: &Nginx) -> (Weir, String) {
    let weir = setup.start();
    weir.pull(&nginx.uri("a"), "a", false);
    weir.wait_frames("a", 10);
    let session = weir.stream("a").unwrap()["mediaSessionId"].as_str().unwrap().to_owned();
    (weir, session)
}

fn call(weir: &Weir, path: &str, session: &str) {
    weir.done(path, &json!({"mediaSessionId": session}));
}

fn recorders(weir: &Weir) -> Vec<Value> {
    let answer = weir.get(FIND_ALL);
    if answer.status == 404 { Vec::new() } else { answer.json().as_array().unwrap().clone() }
}

fn file(weir: &Weir, name: &str) -> Value {
    let listed = weir.get(FILES).json();
    listed.as_array().unwrap().iter().find(|file| file["name"] == name).unwrap_or(&Value::Null).clone()
}

#[test]
fn started_and_stopped_by_either_name() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let (weir, session) = pulled(setup(&home), &nginx);
    assert_eq!(weir.refused(&weir.get(FIND_ALL), FIND_ALL), (404, "RecorderNotFound".into()));
    assert_eq!((&weir.stream("a").unwrap()["record"], home.files("").len()), (&json!(false), 0));
    for (round, (start, stop)) in START.into_iter().zip(STOP).enumerate() {
        let before = weir.frames("a").0;
        call(&weir, start, &session);
        // It records when the call has answered.
        let name = if round == 0 { "a.mp4" } else { "a-2.mp4" };
        assert_eq!(home.names(".tmp"), [format!("{name}.tmp")]);
        let recorder = &recorders(&weir)[0];
        assert_eq!((&recorder["mediaSessionId"], &recorder["fileName"]), (&json!(session), &json!(name)));
        assert_eq!((&recorder["state"], &recorder["streamName"]), (&json!("RECORDING"), &json!("a")));
        wait_until("the stream to show it", || weir.stream("a").unwrap()["recordName"] == name);
        assert_eq!(weir.stream("a").unwrap()["record"], true);
        weir.wait_frames("a", before + 75);
        let counted = weir.frames("a").0;
        call(&weir, stop, &session);
        // It is in place when the call has answered.
        assert_eq!(home.files(".tmp").len(), 0);
        assert!(recorders(&weir).is_empty());
        let written = home.records().join(name);
        decodes(&written);
        let media = probe(&written);
        // From the keyframe before the call on.
        assert!(media.video.len() as u64 >= counted - before, "{} of {before}..{counted}", media.video.len());
        let listed = file(&weir, name);
        assert_eq!((&listed["stream"], &listed["mediaSessionId"]), (&json!("a"), &json!(session)), "{listed}");
        assert_eq!((&listed["videoCodec"], &listed["audioCodec"]), (&json!("H264"), &json!("AAC")));
        assert_eq!((&listed["part"], &listed["last"], &listed["state"]), (&json!(1), &json!(true), &json!("finished")));
        let number = |key: &str| listed[key].as_u64().unwrap();
        assert!((number("duration") as f64 / 1000.0 - media.duration).abs() < 0.1, "{listed}");
        assert_eq!(number("ended") - number("started"), number("duration"));
        assert_eq!(number("size"), std::fs::metadata(&written).unwrap().len());
        assert_eq!(weir.stream("a").unwrap()["status"], "PUBLISHING", "the stream lives on");
    }
    wait_until("the stream to show no recording", || weir.stream("a").unwrap()["record"] == false);
}

#[test]
fn what_cannot_be_recorded_or_stopped_says_why() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let (mut weir, session) = pulled(setup(&home), &nginx);
    weir.tolerate("pull has no source");
    weir.announce("a call failed: the recording cannot start");
    weir.tolerate("recording failed");
    weir.pull(&nginx.uri("nobody"), "pending", false);
    let pending = weir.stream("pending").unwrap()["mediaSessionId"].clone();
    let refused = |path: &str, body: &Value| weir.refused(&weir.post(path, body), path);
    for path in START.iter().chain(&STOP) {
        assert_eq!(refused(path, &json!({})), (400, "FieldMissing".into()));
        assert_eq!(refused(path, &json!({"mediaSessionId": 5})), (400, "InvalidField".into()));
        assert_eq!(refused(path, &json!({"mediaSessionId": ""})), (400, "NameInvalid".into()));
        assert_eq!(refused(path, &json!({"mediaSessionId": "none"})), (404, "StreamNotFound".into()));
        assert_eq!(refused(path, &json!({"mediaSessionId": pending})), (404, "StreamNotFound".into()));
        assert_eq!(weir.call("GET", path, "").status, 405);
    }
    for path in STOP {
        assert_eq!(refused(path, &json!({"mediaSessionId": session})), (404, "RecorderNotFound".into()));
    }
    for (config, code) in [
        (json!({"rotation": "20m"}), "RotationInvalid"),
        (json!({"fileTemplate": ""}), "TemplateInvalid"),
        (json!({"fileTemplate": 5}), "InvalidField"),
        (json!(5), "InvalidField"),
    ] {
        let body = json!({"mediaSessionId": session, "config": config});
        assert_eq!(refused(START[0], &body), (400, code.into()), "{config}");
    }
    // The reason why the recorder cannot start, and nothing is left running.
    std::fs::remove_dir_all(home.records()).unwrap();
    std::fs::write(home.records(), "a file").unwrap();
    let answer = weir.post(START[1], &json!({"mediaSessionId": session}));
    assert_eq!(weir.refused(&answer, START[1]), (500, "RecordingFailed".into()));
    assert!(answer.body.contains("Not a directory"), "{}", answer.body);
    assert!(recorders(&weir).is_empty());
    std::fs::remove_file(home.records()).unwrap();
    std::fs::create_dir(home.records()).unwrap();
    call(&weir, START[1], &session);
    call(&weir, STOP[1], &session);
}

#[test]
fn a_start_while_one_runs_finishes_that_one_first() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let weir = setup(&home).set("record_rotation=100").start();
    weir.pull(&nginx.uri("a"), "a", true);
    home.wait_writing();
    weir.wait_frames("a", 50);
    let session = weir.stream("a").unwrap()["mediaSessionId"].as_str().unwrap().to_owned();
    let config = json!({"fileTemplate": "{streamName}/../x-{startTime}-{endTime}", "rotation": "2"});
    weir.done(START[1], &json!({"mediaSessionId": session, "config": config}));
    assert_eq!(home.names(".mp4"), ["a.mp4"]);
    let name = recorders(&weir)[0]["fileName"].as_str().unwrap().to_owned();
    assert!(name.starts_with("a..x-") && name.ends_with("-{endTime}.mp4"), "{name}");
    let parts = wait("two parts", Duration::from_secs(30), || Some(home.finished()).filter(|f| f.len() >= 3));
    call(&weir, STOP[0], &session);
    assert!(recorders(&weir).is_empty());
    for part in home.finished() {
        decodes(&part);
    }
    // Start and end are in the name, and the next part starts where the one before ended.
    let times = |file: &std::path::Path| {
        let stem = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut numbers = stem.rsplit('-').map(|text| text.parse::<u64>().unwrap());
        (numbers.nth(1).unwrap(), stem.rsplit('-').next().unwrap().parse::<u64>().unwrap())
    };
    let mut spans: Vec<_> = parts.iter().filter(|file| !file.ends_with("a.mp4")).map(|file| times(file)).collect();
    spans.sort();
    assert!(spans.iter().all(|(start, end)| end.abs_diff(start + 2000) < 100), "{spans:?}");
    assert!(spans[0].1.abs_diff(spans[1].0) < 60, "{spans:?}");
    // The stream's end is not in the way of a recording that was stopped, and does not start it again.
    weir.terminate("a");
    let count = home.finished().len();
    assert_eq!(home.wait_finished(count).len(), count);
}

#[test]
fn many_at_once_start_and_stop_in_any_order() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let (mut weir, session) = pulled(setup(&home), &nginx);
    // Whoever is overtaken before its first frame is told so.
    weir.tolerate("it has been ended meanwhile");
    let body = json!({"mediaSessionId": session});
    std::thread::scope(|scope| {
        let call = |path: &'static str| {
            let (weir, body) = (&weir, &body);
            scope.spawn(move || (path, weir.post(path, body)))
        };
        let calls: Vec<_> = (0..12).map(|n| call(if n % 3 == 2 { STOP[0] } else { START[0] })).collect();
        for done in calls {
            let (path, answer) = done.join().unwrap();
            let known = answer.status == 200
                || answer.body.contains("it has been ended meanwhile")
                || path == STOP[0] && answer.status == 404;
            assert!(known, "{path}: {answer:?}");
        }
    });
    call(&weir, START[0], &session);
    call(&weir, STOP[0], &session);
    assert!(recorders(&weir).is_empty() && home.files(".tmp").is_empty());
    assert!(!home.finished().is_empty());
    home.finished().iter().for_each(|file| decodes(file));
}

#[test]
fn files_are_listed_after_a_restart_and_deleted() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let (weir, session) = pulled(setup(&home), &nginx);
    call(&weir, START[0], &session);
    wait_until("the file in the list", || file(&weir, "a.mp4.tmp")["state"] == "writing");
    let deleted = weir.call("DELETE", &format!("{FILES}/a.mp4.tmp"), "");
    assert_eq!(weir.refused(&deleted, &format!("{FILES}/a.mp4.tmp")), (409, "RecordInUse".into()));
    call(&weir, STOP[0], &session);
    let before = file(&weir, "a.mp4");
    drop(weir);
    std::fs::write(home.records().join("kept.txt"), "of the operator").unwrap();
    let weir = setup(&home).start();
    assert_eq!(file(&weir, "a.mp4"), before, "what is known outlives the process");
    let long = "a".repeat(300);
    for name in ["none.mp4", "..%2fdata", "%2e%2e", ".weir", ".weir.lock", "a.mp4.tmp", long.as_str()] {
        let path = format!("{FILES}/{name}");
        assert_eq!(weir.refused(&weir.call("DELETE", &path, ""), &path), (404, "RecordNotFound".into()));
    }
    assert_eq!(weir.get(&format!("{FILES}/a.mp4")).status, 405);
    let gone = weir.call("DELETE", &format!("{FILES}/a.mp4"), "");
    assert_eq!((gone.status, gone.body.as_str()), (200, ""));
    assert_eq!(home.names(""), ["kept.txt"]);
    assert_eq!(std::fs::read_dir(home.records().join(".weir")).unwrap().count(), 0);
}
