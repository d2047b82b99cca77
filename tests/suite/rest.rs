//! REST, call by call: what is answered, and how each wrong call is refused.

use crate::support::{Answer, Clip, Home, Nginx, Publisher, SOON, Weir, dead_port, wait, wait_until};
use serde_json::{Value, json};

const PULL: &str = "/rest-api/pull/rtmp/pull";
const FIND: &str = "/rest-api/pull/rtmp/find";
const FIND_ALL: &str = "/rest-api/pull/rtmp/find_all";
const TERMINATE: &str = "/rest-api/pull/rtmp/terminate";
const STREAMS: &str = "/rest-api/stream/find_all";
const STREAM: &str = "/rest-api/stream/find";
const END_STREAM: &str = "/rest-api/stream/terminate";

/// A server that may warn of sources that are not there.
fn weir(home: &Home) -> Weir {
    let mut weir = home.start();
    weir.tolerate("pull has no source");
    weir
}

/// A call that must be refused, and how.
fn refusal(weir: &Weir, path: &str, body: &Value) -> (u16, String) {
    weir.refused(&weir.post(path, body), path)
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn with_nothing_there_each_call_says_so() {
    let home = Home::new();
    let weir = home.start();
    for path in [FIND_ALL, FIND, STREAMS] {
        for method in ["GET", "POST"] {
            let refused = weir.refused(&weir.call(method, path, ""), path);
            assert_eq!(refused.0, 404, "{method} {path}");
        }
    }
    assert_eq!(refusal(&weir, FIND, &json!({"uri": "rtmp://h/a/b"})), (404, "AgentNotFound".into()));
    assert_eq!(refusal(&weir, TERMINATE, &json!({"uri": "rtmp://h/a/b"})), (404, "AgentNotFound".into()));
    assert_eq!(refusal(&weir, "/rest-api/pull/find", &json!({})), (404, "AgentNotFound".into()));
    assert_eq!(refusal(&weir, "/rest-api/pull/terminate", &json!({"uri": "x"})), (404, "AgentNotFound".into()));
    for method in ["GET", "POST"] {
        let answer = weir.call(method, "/rest-api/pull/find_all", "");
        assert_eq!((answer.status, answer.body.as_str()), (200, "[]"), "the family of wcs.md 14 that has no 404");
        assert_eq!(answer.header("content-type"), Some("application/json;charset=UTF-8"));
    }
    assert_eq!(refusal(&weir, STREAM, &json!({"name": "a"})), (404, "StreamNotFound".into()));
    assert_eq!(refusal(&weir, END_STREAM, &json!({"published": true})), (404, "StreamNotFound".into()));
    assert_eq!(weir.get("/rest-api/pipelines").body, "[]");
}

#[test]
fn what_a_pull_refuses() {
    let home = Home::new();
    let weir = home.start();
    for path in [PULL, "/rest-api/pull/pull"] {
        for (body, code) in [
            (json!({}), "FieldMissing"),
            (json!({"uri": null}), "FieldMissing"),
            (json!({"uri": 5}), "InvalidField"),
            (json!({"uri": ""}), "UriInvalid"),
            (json!({"uri": "rtmp://h/live"}), "UriInvalid"),
            (json!({"uri": "http://h/live/a"}), "UriInvalid"),
            (json!({"uri": "rtmp://h:0/live/a"}), "UriInvalid"),
            (json!({"uri": "rtmp://h/live/a b"}), "UriInvalid"),
            (json!({"uri": "x".repeat(5000)}), "UriInvalid"),
            (json!({"uri": "rtmp://h/live/a", "localStreamName": 5}), "InvalidField"),
            (json!({"uri": "rtmp://h/live/a", "localStreamName": "a\u{7}"}), "NameInvalid"),
            (json!({"uri": "rtmp://h/live/a", "localStreamName": "x".repeat(5000)}), "NameInvalid"),
            (json!({"uri": "rtmp://h/live/a", "record": "yes"}), "InvalidField"),
            (json!({"uri": "rtmp://h/live/a", "record": 1}), "InvalidField"),
            (json!({"uri": "rtmp://h/live/a", "hasAudio": []}), "InvalidField"),
            (json!({"uri": "rtmp://h/live/a", "hasAudio": false, "hasVideo": "false"}), "NoTracks"),
            (json!([]), "MalformedJson"),
            (json!("text"), "MalformedJson"),
        ] {
            assert_eq!(refusal(&weir, path, &body), (400, code.into()), "{body}");
        }
        for text in
            ["{", "uri=rtmp://h/live/a", "{\"uri\":\"rtmp://h/live/a\"} trailing", "{\"uri\":\"\u{e4}\"", "nul\0"]
        {
            let answer = weir.call("POST", path, text);
            assert_eq!(weir.refused(&answer, path), (400, "MalformedJson".into()), "{text}");
        }
        assert_eq!(weir.refused(&weir.call("POST", path, ""), path), (400, "FieldMissing".into()));
    }
    assert_eq!(weir.get("/rest-api/pull/find_all").body, "[]", "what is refused leaves nothing");
}

#[test]
fn wrong_fields_of_the_other_calls() {
    let home = Home::new();
    let weir = home.start();
    for (path, body, code) in [
        (TERMINATE, json!({}), "FieldMissing"),
        (TERMINATE, json!({"uri": 7}), "InvalidField"),
        (FIND, json!({"status": {}}), "InvalidField"),
        (STREAM, json!({}), "FilterMissing"),
        (STREAM, json!({"display": ["metrics"]}), "FilterMissing"),
        (STREAM, json!({"published": "perhaps"}), "InvalidField"),
        (STREAM, json!({"mediaSessionIds": "one"}), "InvalidField"),
        (END_STREAM, json!({}), "FilterMissing"),
        (END_STREAM, json!({"mediaSessionIds": [1]}), "InvalidField"),
    ] {
        assert_eq!(refusal(&weir, path, &body), (400, code.into()), "{path} {body}");
    }
    for (body, field) in
        [(json!({"uri": "rtmp://h/live/a", "record": 1}), "the field record: "), (json!({"uri": 5}), "the field uri: ")]
    {
        let answer = weir.post(PULL, &body).json();
        assert!(answer["reason"].as_str().unwrap().starts_with(field), "{answer}");
    }
    assert_eq!(weir.refused(&weir.call("POST", END_STREAM, ""), END_STREAM), (400, "FilterMissing".into()));
    assert_eq!(weir.refused(&weir.get(STREAM), STREAM), (400, "FilterMissing".into()));
}

#[test]
fn unknown_paths_and_methods_a_call_does_not_have() {
    let home = Home::new();
    let weir = home.start();
    for path in [
        "/rest-api/nothing",
        "/rest-api",
        "/rest-api/pull/rtmp/push",
        "/rest-api/stream/x/y",
        "/rest-api/pull",
        "/rest-api/a%20b",
    ] {
        for method in ["GET", "POST", "DELETE"] {
            assert_eq!(weir.refused(&weir.call(method, path, ""), path).0, 404, "{method} {path}");
        }
    }
    for (method, path) in [
        ("GET", PULL),
        ("GET", "/rest-api/pull/pull"),
        ("GET", TERMINATE),
        ("GET", END_STREAM),
        ("PUT", FIND_ALL),
        ("DELETE", STREAM),
        ("POST", "/rest-api/pipelines"),
        ("POST", "/rest-api/pipelines/x"),
        ("POST", "/health/live"),
    ] {
        assert_eq!(weir.refused(&weir.call(method, path, ""), path), (405, "MethodNotAllowed".into()));
    }
    let head = weir.call("HEAD", "/health/live", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let options = weir.call("OPTIONS", PULL, "");
    assert_eq!((options.status, options.body.as_str()), (200, ""));
    assert_eq!(options.header("access-control-allow-origin"), Some("*"));
    assert_eq!(options.header("access-control-allow-headers"), Some("content-type,x-requested-with"));
    assert_eq!(options.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(weir.get("/rest-api/pull/find_all/").status, 200, "a slash at the end does no harm");
}

#[test]
fn bodies_of_every_size_and_shape() {
    let home = Home::new();
    let weir = weir(&home);
    let large = "x".repeat(10 << 20);
    assert_eq!(weir.refused(&weir.call("POST", PULL, &large), PULL), (413, "BodyTooLarge".into()));

    let announced =
        format!("POST {PULL} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 10485760\r\n\r\n{{");
    // Whoever announces more than is allowed is refused, or waited for; the server lives on either way.
    drop(std::thread::scope(|_| {
        std::net::TcpStream::connect(("127.0.0.1", weir.port())).map(|mut stream| {
            std::io::Write::write_all(&mut stream, announced.as_bytes()).unwrap();
        })
    }));

    let mut chunks =
        format!("POST {PULL} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
    let body = json!({"uri": dead_port(), "localStreamName": "chunked"}).to_string();
    for piece in body.as_bytes().chunks(7) {
        chunks += &format!("{:x}\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).unwrap());
    }
    let answer = weir.raw((chunks + "0\r\n\r\n").as_bytes()).unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert!(weir.agent("chunked").is_some());

    let mut endless =
        format!("POST {PULL} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..40 {
        endless += &format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    }
    let answer = weir.raw(endless.as_bytes()).unwrap();
    assert_eq!(weir.refused(&answer, PULL), (413, "BodyTooLarge".into()));

    let broken =
        format!("POST {PULL} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n");
    assert!(weir.raw(broken.as_bytes()).is_none_or(|answer| answer.status == 400));
    assert!(weir.raw(b"this is no HTTP\r\n\r\n").is_none_or(|answer| answer.status == 400));
    assert_eq!(weir.get("/health/live").status, 200);
}

#[test]
fn a_smaller_limit_holds_and_its_edge_is_inside() {
    let home = Home::new();
    let weir = home.setup().set("rest_max_body=20").start();
    assert_eq!(weir.call("POST", STREAM, r#"{"name":"1234567890"}"#).status, 413);
    assert_eq!(weir.call("POST", STREAM, r#"{"name":"123456789"}"#).status, 404);
}

#[test]
fn one_connection_serves_many_calls() {
    let home = Home::new();
    let weir = home.start();
    let one = "GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n";
    let last = "GET /health/live HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let answer = weir.raw(format!("{one}{one}{last}").as_bytes()).unwrap();
    assert_eq!(answer.body.matches("HTTP/1.1 200").count(), 2, "{answer:?}");
}

#[test]
fn an_agent_from_pull_to_terminate() {
    let home = Home::new();
    let weir = weir(&home);
    let (uri, other) = (dead_port(), dead_port());
    weir.done(PULL, &json!({"uri": uri, "record": "true", "hasAudio": "False", "unknown": {"field": 1}}));
    let listed = weir.get(FIND_ALL).json();
    let agent = &listed[0];
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let wanted = [
        "attempts",
        "direction",
        "hasAudio",
        "hasVideo",
        "lastError",
        "localMediaSessionId",
        "localStreamName",
        "record",
        "remoteMediaSessionId",
        "remoteStreamName",
        "since",
        "status",
        "uri",
    ];
    assert_eq!(keys(agent), wanted);
    assert_eq!((&agent["uri"], &agent["localStreamName"]), (&json!(uri), &json!(uri)), "the URI is the name's default");
    assert_eq!((&agent["record"], &agent["hasAudio"], &agent["hasVideo"]), (&json!(true), &json!(false), &json!(true)));
    assert!(agent["since"].as_u64().unwrap() > 1_700_000_000_000);

    // The same URI again, in this family; the name of another; the same URI in the other family.
    assert_eq!(refusal(&weir, PULL, &json!({"uri": uri, "localStreamName": "b"})), (409, "AlreadyPulled".into()));
    assert_eq!(refusal(&weir, PULL, &json!({"uri": other, "localStreamName": uri})), (409, "NameInUse".into()));
    assert_eq!(refusal(&weir, "/rest-api/pull/pull", &json!({"uri": uri})), (409, "NameInUse".into()));
    weir.done("/rest-api/pull/pull", &json!({"uri": uri, "localStreamName": "second"}));
    let again = json!({"uri": uri, "localStreamName": "third"});
    assert_eq!(refusal(&weir, "/rest-api/pull/pull", &again), (409, "AlreadyPulled".into()));

    // /pull/rtmp sees RTMP agents of either family; /pull sees its own.
    assert_eq!(weir.get(FIND_ALL).json().as_array().unwrap().len(), 2);
    let own = weir.get("/rest-api/pull/find_all").json();
    assert_eq!((own.as_array().unwrap().len(), &own[0]["localStreamName"]), (1, &json!("second")));

    let id = agent["localMediaSessionId"].as_str().unwrap();
    for (filter, found) in [
        (json!({"uri": uri}), 2),
        (json!({"localStreamName": uri}), 1),
        (json!({"localMediaSessionId": id}), 1),
        (json!({"localMediaSessionId": id, "localStreamName": "second"}), 0),
        (json!({"remoteStreamName": "second"}), 0),
        (json!({"uri": other}), 0),
        (json!({"status": "PROCESSED_REMOTE"}), 0),
        (json!({}), 2),
    ] {
        let answer = weir.post(FIND, &filter);
        let count = if answer.status == 404 { 0 } else { answer.json().as_array().unwrap().len() };
        assert_eq!(count, found, "{filter}");
    }

    weir.done("/rest-api/pull/terminate", &json!({"localStreamName": "second", "remoteStreamName": null}));
    assert_eq!(refusal(&weir, "/rest-api/pull/terminate", &json!({"uri": uri})), (404, "AgentNotFound".into()));
    weir.done(TERMINATE, &json!({"uri": uri}));
    assert_eq!(weir.get(FIND_ALL).status, 404);
    // At once again, as often as somebody likes.
    for _ in 0..20 {
        weir.done(PULL, &json!({"uri": uri, "localStreamName": "again"}));
        weir.done(TERMINATE, &json!({"uri": uri}));
    }
    assert_eq!(weir.get(STREAMS).status, 404);
}

#[test]
fn an_empty_local_name_is_none() {
    let home = Home::new();
    let weir = weir(&home);
    let uri = dead_port();
    weir.done(PULL, &json!({"uri": uri, "localStreamName": "", "record": null}));
    assert_eq!(weir.get(FIND_ALL).json()[0]["localStreamName"], json!(uri));
}

#[test]
fn a_live_stream_from_pull_to_terminate() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let weir = weir(&home);
    let uri = nginx.uri("a");
    weir.done(PULL, &json!({"uri": uri, "localStreamName": "a"}));
    weir.wait_agent("a", "PROCESSED_REMOTE");
    weir.wait_frames("a", 10);

    let stream = weir.stream("a").unwrap();
    for (field, value) in [
        ("appKey", json!("defaultApp")),
        ("name", json!("a")),
        ("published", json!(true)),
        ("hasVideo", json!(true)),
        ("hasAudio", json!(true)),
        ("status", json!("PUBLISHING")),
        ("audioCodec", json!("mpeg4-generic/44100/2")),
        ("videoCodec", json!("H264")),
        ("record", json!(false)),
        ("width", json!(320)),
        ("height", json!(180)),
        ("mediaType", json!("rtmp")),
        ("mediaProvider", json!("Flash")),
        ("transport", json!("TCP")),
        ("sdp", json!("")),
        ("history", json!(false)),
        ("audioState", json!({"muted": false})),
    ] {
        assert_eq!(stream[field], value, "{field} of {stream}");
    }
    let metrics = &stream["metrics"];
    assert_eq!((&metrics["VIDEO_WIDTH"], &metrics["VIDEO_HEIGHT"]), (&json!(320), &json!(180)));
    assert!(metrics["VIDEO_K_FRAMES"].as_u64() > Some(0) && metrics["VIDEO_BYTES"].as_u64() > Some(1000), "{metrics}");
    assert!(metrics["AUDIO_FRAMES"].as_u64() > Some(0) && metrics["AUDIO_BYTES"].as_u64() > Some(100), "{metrics}");
    assert!(weir.get(STREAMS).json()[0].get("metrics").is_none(), "metrics only where they are asked for");
    assert!(stream.get("recordName").is_none());

    let id = &stream["mediaSessionId"];
    let agent = weir.agent("a").unwrap();
    assert_eq!(&agent["localMediaSessionId"], id, "agent and publisher are one media session");
    assert_eq!((&agent["attempts"], &agent["lastError"]), (&json!(0), &Value::Null));

    for (filter, found) in [
        (json!({"mediaSessionId": id}), true),
        (json!({"mediaSessionIds": ["other", id]}), true),
        (json!({"mediaSessionIds": []}), false),
        (json!({"sessionId": stream["sessionId"]}), true),
        (json!({"appKey": "defaultApp"}), true),
        (json!({"appKey": "otherApp"}), false),
        (json!({"name": "a"}), true),
        (json!({"name": "A"}), false),
        (json!({"published": true}), true),
        (json!({"published": "true", "status": "PUBLISHING", "name": "a"}), true),
        (json!({"published": false}), false),
        (json!({"status": "PENDING"}), false),
        (json!({"name": "a", "status": "PLAYING"}), false),
    ] {
        assert_eq!(weir.post(STREAM, &filter).status, if found { 200 } else { 404 }, "{filter}");
        if !found {
            assert_eq!(weir.post(END_STREAM, &filter).status, 404, "{filter}");
        }
    }

    // Ended by either door, it is gone when the answer is there, and can be published again at once.
    for _ in 0..3 {
        weir.done(END_STREAM, &json!({"name": "a", "status": "PUBLISHING"}));
        assert!(weir.stream("a").is_none() && weir.agent("a").is_none(), "gone when the answer is there");
        assert_eq!(weir.get("/rest-api/pipelines").body, "[]");
        weir.pull(&uri, "a", false);
        weir.wait_frames("a", 5);
    }
    weir.terminate("a");
    assert!(weir.stream("a").is_none());
    assert!(weir.logged("stream ended: Stopped by rest /terminate"));
    for text in ["stream started by rtmp pull of rtmp://", "stream is live: H264 320x180, mpeg4-generic/44100/2"] {
        assert!(weir.logged(text), "{text}");
    }
}

#[test]
fn only_the_tracks_that_were_asked_for() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let weir = home.start();
    weir.done(PULL, &json!({"uri": nginx.uri("a"), "localStreamName": "sound", "hasVideo": false}));
    weir.done(
        "/rest-api/pull/pull",
        &json!({"uri": nginx.uri("a"), "localStreamName": "picture", "hasAudio": "false"}),
    );
    for (name, video, audio) in [("sound", false, true), ("picture", true, false)] {
        weir.wait_agent(name, "PROCESSED_REMOTE");
        weir.wait_frames(name, 5);
        let stream = weir.stream(name).unwrap();
        assert_eq!((&stream["hasVideo"], &stream["hasAudio"]), (&json!(video), &json!(audio)), "{name}");
        assert_eq!(stream["metrics"].get("VIDEO_FRAMES").is_some(), video);
        assert_eq!(stream["metrics"].get("AUDIO_FRAMES").is_some(), audio);
    }
    weir.wait_log("the source's video is left out: hasVideo is false");
}

#[test]
fn credentials_are_shown_nowhere() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let mut weir = home.setup().set("stream_record_policy=streamName").start();
    weir.tolerate("pull has no source");
    let secret = "s3cr3t";
    let uri = nginx.uri("a?token=s3cr3t&x=1").replace("rtmp://", &format!("rtmp://user:{secret}@"));
    let dead = dead_port().replace("rtmp://", &format!("rtmp://user:{secret}@"));
    weir.done(PULL, &json!({"uri": uri, "record": true}));
    weir.done(PULL, &json!({"uri": dead, "localStreamName": "dead"}));
    wait("the stream to flow", SOON, || {
        let streams = weir.get(STREAMS).json();
        streams.as_array().unwrap().iter().any(|stream| stream["status"] == "PUBLISHING").then_some(())
    });
    weir.wait_agent("dead", "RECONNECTING");
    home.wait_writing();
    let mut shown: Vec<Answer> = [FIND_ALL, STREAMS, "/rest-api/pipelines"].iter().map(|path| weir.get(path)).collect();
    for pipeline in weir.get("/rest-api/pipelines").json().as_array().unwrap() {
        let id = pipeline["id"].as_str().unwrap();
        for end in ["", "/graph.dot", "/graph.svg"] {
            shown.push(weir.get(&format!("/rest-api/pipelines/{id}{end}")));
        }
    }
    shown.push(weir.post(PULL, &json!({"uri": uri})));
    shown.push(weir.post(PULL, &json!({"uri": uri.replace("rtmp:", "http:")})));
    shown.push(weir.post(PULL, &json!({"uri": dead, "localStreamName": uri})));
    shown.push(weir.post(FIND, &json!({"uri": uri})));
    shown.push(weir.get(&format!("/rest-api/{}", uri.replace(' ', ""))));
    for answer in &shown {
        assert!(!answer.body.contains(secret) && !answer.head.contains(secret), "{answer:?}");
    }
    assert!(shown[0].body.contains("rtmp://user:***@127.0.0.1"), "{:?}", shown[0]);
    assert!(shown[0].body.contains("token=***&x=1"), "{:?}", shown[0]);
    // What is shown can be used to find and to end it, and so can what was given.
    let masked = shown[0].json()[0]["uri"].clone();
    assert_eq!(weir.post(FIND, &json!({"uri": masked})).status, 200);
    weir.done(TERMINATE, &json!({"uri": dead}));
    weir.done(TERMINATE, &json!({"uri": uri}));
    let file = home.wait_finished(1).remove(0);
    assert!(!file.to_string_lossy().contains(secret), "a file is named after its stream: {}", file.display());
    let told = weir.log().join("\n");
    assert!(!told.contains(secret) && told.contains("***"), "{told}");
}

#[test]
fn names_of_every_kind() {
    let home = Home::new();
    let weir = weir(&home);
    for name in ["käse 🧀", "../../etc/passwd", "a/b?c=d&e", "\"quoted\" \\ back", "{streamName}", "-", "."] {
        weir.done(PULL, &json!({"uri": dead_port(), "localStreamName": name}));
        assert_eq!(weir.agent(name).unwrap()["localStreamName"], name);
        assert_eq!(weir.post(STREAM, &json!({"name": name})).json()[0]["name"], name);
    }
    weir.done(END_STREAM, &json!({"published": true}));
    assert_eq!(weir.get(STREAMS).status, 404);
    wait_until("the agents to be gone", || weir.get(FIND_ALL).status == 404);
}

#[test]
fn a_thousand_calls_at_once() {
    let home = Home::new();
    let weir = weir(&home);
    let uri = dead_port();
    let statuses = std::thread::scope(|scope| {
        let one = |_| {
            scope.spawn(|| {
                (0..50)
                    .map(|_| weir.post(PULL, &json!({"uri": uri, "localStreamName": "one"})).status)
                    .collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..20).map(one).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "exactly one has the name");
    assert!(statuses.iter().all(|status| [200, 409].contains(status)));
}
