//! How many streams the keep-alive bears, and how fast many viewers are ended. Figures for people: run by hand, as
//! `bench/README.md` says; nothing here is judged by the clock but that no beat is missed.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::page::Page;
use crate::support::{Clip, Home, HookServer, Publisher, wait};
use serde_json::json;
use tokio_util::task::TaskTracker;
use weir::config::Config;
use weir::event::Events;
use weir::hook::application::Update;
use weir::hook::{Applications, Hooks, Method};
use weir::hub::{Hub, Publisher as Wish};
use weir::meter::Meter;
use weir::name::{MediaSessionId, StreamName};
use weir::store::Store;

const STREAMS: usize = 2000;
const INTERVAL: Duration = Duration::from_secs(10);
const ROUNDS: u32 = 4;

fn wish(n: usize) -> Wish {
    Wish {
        name: StreamName::new(&format!("s{n}")).unwrap(),
        session: MediaSessionId::random(),
        app_key: "defaultApp".into(),
        connection: format!("c{n}"),
        provider: "WebRTC",
        media_type: "publish",
        transport: "UDP",
        record: None,
        by: "nobody".into(),
    }
}

/// Seconds of CPU this process has had.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes most of a minute; see bench/README.md"]
async fn two_thousand_streams() {
    let (home, server) = (Home::new(), HookServer::start());
    let store = Store::open(home.path()).unwrap();
    let applications = Applications::open(&store).await.unwrap();
    applications.update("defaultApp", Update { url: Some(server.url()), ..Update::default() }).await.unwrap();
    applications.disable("defaultApp", &Method::ALL).await.unwrap();
    applications.enable("defaultApp", &[Method::StreamKeepAliveEvent]).await.unwrap();
    let sets = ["keep_alive_streaming_sessions_enabled=true".to_owned()];
    let settings = Config::load(None, [], &sets).unwrap().config.hooks;
    assert_eq!(settings.keep_alive.interval, INTERVAL);
    let tasks = TaskTracker::new();
    let hub = Hub::start(Events::default(), weir::admission::Admission::default(), &tasks);
    let mut publications = Vec::new();
    for n in 0..STREAMS {
        publications.push(hub.publish(wish(n)).await.unwrap());
    }
    let address = Ipv4Addr::LOCALHOST.into();
    let hooks = Hooks::start(&settings, applications, &store, &hub, address, Meter::default(), &tasks).await.unwrap();
    tokio::time::sleep(INTERVAL).await;
    let (before, began, came) = (cpu(), Instant::now(), server.calls().len());
    tokio::time::sleep(INTERVAL * (ROUNDS - 1)).await;
    let (spent, took, calls) = (cpu() - before, began.elapsed().as_secs_f64(), server.calls());
    let mut times: HashMap<String, Vec<Instant>> = HashMap::new();
    for call in &calls {
        times.entry(call.body["name"].as_str().unwrap().to_owned()).or_default().push(call.at);
    }
    assert_eq!(times.len(), STREAMS, "every stream has beats");
    let mut late: Vec<f64> = Vec::new();
    for beats in times.values() {
        assert!(beats.len() >= ROUNDS as usize - 1, "no beat is missed");
        late.extend(beats.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() - INTERVAL.as_secs_f64()));
    }
    late.sort_by(f64::total_cmp);
    let percentile = |p: usize| late[(late.len() - 1) * p / 100] * 1000.0;
    let counts = hooks.counts()["defaultApp"];
    println!(
        "{STREAMS} streams: {:.0} calls/s; CPU {:.1} % of a core, the hook server of the test included; \
         a beat after the one before: {:+.1} ms (p1) to {:+.1} ms (p99) from 10 s; {counts:?}",
        (calls.len() - came) as f64 / took,
        spent / took * 100.0,
        percentile(1),
        percentile(99),
    );
    assert_eq!((counts.beats_missed, counts.failed), (0, 0));
    drop(publications);
    hooks.finish().await;
}

#[test]
#[ignore = "a figure for people; see bench/README.md"]
fn a_thousand_viewers_are_ended_by_one_call() {
    /// The same for `play`.
    const PLAY: &str = include_str!("../../src/webrtc/offers/chromium156_play.sdp");
    let home = Home::new();
    let weir = home.start();
    let _encoder = Publisher::start(Clip::LONG, &format!("rtmp://127.0.0.1:{}/live/s", weir.port_of("rtmp.port")));
    weir.wait_frames("s", 5);
    let mut pages: Vec<Page> = (0..4).map(|_| Page::established(&weir)).collect();
    for (at, page) in pages.iter_mut().enumerate() {
        for n in 0..250 {
            let id = format!("{at}-{n}");
            page.say("playStream", &json!({"mediaSessionId": id, "name": "s", "published": false, "sdp": PLAY}));
            page.hears("setRemoteSDP");
        }
    }
    let viewers = weir.post("/rest-api/stream/find", &json!({"name": "s", "published": false})).json();
    let viewers = viewers.as_array().unwrap().len();
    let began = Instant::now();
    weir.done("/rest-api/stream/terminate", &json!({"name": "s", "published": false}));
    let took = began.elapsed();
    println!("{viewers} viewers are gone {:.0} ms after the call", took.as_secs_f64() * 1000.0);
    assert_eq!(weir.post("/rest-api/stream/find", &json!({"name": "s", "published": false})).status, 404);
    wait("no session is left", Duration::from_secs(5), || {
        (weir.post("/rest-api/stream/find", &json!({"published": false})).status == 404).then_some(())
    });
}
