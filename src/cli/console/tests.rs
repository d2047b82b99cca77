use tokio_util::task::TaskTracker;

use super::*;
use crate::admission::Admission;
use crate::event::Events;
use crate::media::{Catalog, Pipelines};
use crate::pull::policy::SourcePolicy;
use crate::pull::{self, Pulls, RtspTransport, Rules};
use crate::retry::Backoff;
use crate::store::Store;

struct Room {
    console: Console,
    _data: tempfile::TempDir,
}

async fn room() -> Room {
    let data = tempfile::tempdir().unwrap();
    let store = Store::open(data.path()).unwrap();
    let tasks = TaskTracker::new();
    let hub = Hub::start(Events::default(), Admission::default(), &tasks);
    let second = std::time::Duration::from_secs(1);
    let seconds = std::time::Duration::from_secs;
    let limits = pull::wcs::Limits { greeting: seconds(1), answer: seconds(1), ping: seconds(1), probes: 3 };
    let tools = pull::Tools {
        reach: pull::Reach::default(),
        wcs: pull::wcs::Tools {
            dial: pull::wcs::Dial {
                limits,
                connect: seconds(1),
                tls: None,
                gate: crate::gate::Gate::default(),
                reach: pull::Reach::default(),
            },
            options: crate::media::PeerOptions { addresses: vec![], ports: (0, 0) },
            media_timeout: seconds(1),
            origins: vec![],
            rules: pull::Rules { record_all: false, idle_timeout: None },
        },
        catalog: Catalog::load(None).unwrap(),
        pipelines: Pipelines::default(),
        hub: hub.clone(),
        admission: Admission::default(),
        policy: Arc::new(SourcePolicy::default()),
        connect_timeout: second,
        stall_timeout: second,
        backoff: Backoff { initial: second, max: second, attempts: 0 },
        rtmp: Rules { record_all: false, idle_timeout: None },
        rtsp: Rules { record_all: false, idle_timeout: None },
        rtsp_transport: RtspTransport::Interleaved,
        rtsp_trust: Default::default(),
    };
    let users = Users::open(&store).await.unwrap().0;
    users.add("bob", "hunter2", Role::User).await.unwrap();
    let console = Console {
        applications: Applications::open(&store).await.unwrap(),
        users,
        hub,
        pulls: Pulls::start(tools, &tasks),
        recordings: Index::open(data.path(), false),
        settings: [("http.port", "8081".to_owned()), ("record_dir", "records".to_owned())].into(),
    };
    Room { console, _data: data }
}

fn bob() -> Who {
    Who { name: "bob".into(), role: Role::User, from: "a test".into() }
}

impl Room {
    async fn reply(&self, who: &Who, line: &str) -> Reply {
        match self.console.run(who, line).await {
            Turn::Done(reply) => reply,
            other => panic!("{line}: {other:?}"),
        }
    }

    /// What a command prints that must be done.
    async fn done(&self, who: &Who, line: &str) -> String {
        let reply = self.reply(who, line).await;
        assert_eq!(reply.code, 0, "{line}: {}", reply.text);
        reply.text
    }

    /// The one line that a command is refused with, and its exit code.
    async fn refused(&self, who: &Who, line: &str) -> (u8, String) {
        let reply = self.reply(who, line).await;
        assert_ne!(reply.code, 0, "{line}: {}", reply.text);
        let text = reply.text.strip_suffix('\n').unwrap();
        assert!(!text.contains('\n'), "{line}: {text}");
        (reply.code, text.to_owned())
    }
}

#[tokio::test]
async fn the_tour_of_the_documents() {
    let room = room().await;
    let me = Who::local();
    let apps = room.done(&me, "show apps").await;
    assert!(
        apps.starts_with("NAME               KEY                URL  OWNER\ndefaultApp         defaultApp"),
        "{apps}"
    );
    room.done(&me, "add app-rest-method defaultApp StreamKeepAliveEvent").await;
    let again = room.done(&me, "add app-rest-method defaultApp StreamKeepAliveEvent").await;
    assert_eq!(again, "defaultApp: StreamKeepAliveEvent already enabled\n");
    room.done(&me, "update app defaultApp http://my-web-server.com/MyAPI").await;
    assert!(room.done(&me, "show apps").await.contains("http://my-web-server.com/MyAPI"));
    room.done(&me, "update app -l http://localhost:9091/EchoApp defaultApp").await;
    assert!(room.done(&me, "show apps | grep flash").await.starts_with("flashStreamingApp"));
    room.done(&me, "add app -u rest -p hunter2 shop shopKey https://u:hunter3@h/api").await;
    room.done(&me, "add app-rest-method -a shopKey").await;
    room.done(&me, "remove app-rest-method shopKey connect").await;
    let methods = room.done(&me, "show app-rest-methods shopKey").await;
    assert!(methods.contains("publishStream") && !methods.contains("connect\n"), "{methods}");
    let detail = room.done(&me, "show apps -d").await;
    let json = room.done(&me, "show apps --json").await;
    assert!(!detail.contains("hunter") && !json.contains("hunter"), "{detail}{json}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[3]["url"], "https://u:***@h/api");
    assert_eq!(json[3]["restUsername"], "rest");
    let app = room.console.applications.with_key("shopKey").unwrap();
    assert_eq!((app.rest_password.reveal(), app.url.as_str()), ("hunter2", "https://u:hunter3@h/api"));
    room.done(&me, "remove app shop").await;
    assert!(room.done(&me, "show rest-methods").await.contains("StreamKeepAliveEvent"));
    assert!(room.done(&me, "show node-settings | grep port").await.contains("http.port"));
    assert_eq!(room.done(&me, "show streams").await, "none\n");
    assert_eq!(room.done(&me, "show agents").await, "none\n");
    assert_eq!(room.done(&me, "show agents --json").await, "[]\n");
    assert!(room.done(&me, "show recordings").await.contains("finished"));
}

#[tokio::test]
async fn users_come_and_go_and_passwords_are_asked_for() {
    let room = room().await;
    let me = Who::local();
    let Turn::Ask(question) = room.console.run(&me, "add user -r admin eve").await else { panic!("not asked") };
    assert_eq!(question.prompt, "Password of the new user eve: ");
    assert_eq!(room.console.answer(&me, question, "first").await.code, 0);
    assert!(room.console.users.check("eve", "first").await.is_some());
    let Turn::Ask(question) = room.console.run(&bob(), "passwd").await else { panic!("not asked") };
    assert_eq!(question.prompt, "New password of bob: ");
    assert_eq!(room.console.answer(&bob(), question, "second").await.code, 0);
    assert!(room.console.users.check("bob", "second").await.is_some());
    assert!(room.done(&me, "show users").await.contains("eve    admin"));
    room.done(&me, "remove user eve").await;
    room.done(&me, "passwd bob third").await;
    assert!(room.console.users.check("bob", "third").await.is_some());
}

#[tokio::test]
async fn a_user_has_their_own_applications_and_no_others() {
    let room = room().await;
    let me = Who::local();
    room.done(&bob(), "add app shop shopKey http://h").await;
    assert!(room.done(&me, "show apps").await.contains("shop"));
    assert!(!room.done(&bob(), "show apps").await.contains("defaultApp"));
    room.done(&bob(), "add app-rest-method -a shopKey").await;
    room.done(&bob(), "update app -o bob shop").await;
    for (line, said) in [
        ("update app -l http://evil defaultApp", "there is no application defaultApp: see show apps"),
        ("remove app flashStreamingApp", "there is no application flashStreamingApp: see show apps"),
        ("show app-rest-methods defaultApp", "there is no application with the key defaultApp: see show apps"),
        ("add app-rest-method -a defaultApp", "there is no application with the key defaultApp: see show apps"),
        ("update app -o admin shop", "only an admin may do that"),
        ("add user eve x", "only an admin may do that"),
        ("add user eve", "only an admin may do that"),
        ("remove user admin", "only an admin may do that"),
        ("passwd admin x", "only an admin may do that"),
        ("passwd admin", "only an admin may do that"),
    ] {
        assert_eq!(room.refused(&bob(), line).await, (1, said.to_owned()), "{line}");
    }
    room.done(&me, "update app -o admin shop").await;
    assert_eq!(room.done(&bob(), "show apps").await, "none\n");
}

#[tokio::test]
async fn what_is_refused_is_told_in_one_line() {
    let room = room().await;
    for (line, code, said) in [
        ("fly", 2, "expected a command"),
        ("add app defaultApp k http://h", 1, "there is an application defaultApp already"),
        ("add app shop defaultApp http://h", 1, "the application defaultApp has the key defaultApp already"),
        ("add app shop k ftp://u:hunter2@h", 2, "expected a URL"),
        ("add app shop 'a b' ''", 2, "expected a key"),
        ("update app defaultApp", 2, "expected something to change: update app"),
        ("update app -l http://a defaultApp http://b", 2, "expected the URL once"),
        ("update app -o nobody defaultApp", 1, "there is no user nobody"),
        ("update app none http://h", 1, "there is no application none"),
        ("remove app defaultApp", 1, "defaultApp is built in"),
        ("add app-rest-method defaultApp", 2, "expected either a method or -a"),
        ("add app-rest-method -a defaultApp connect", 2, "expected either a method or -a"),
        ("add app-rest-method defaultApp fly", 2, "expected a method: see show rest-methods"),
        ("add app-rest-method none connect", 1, "there is no application with the key none"),
        ("add user -r king eve x", 2, "expected a role"),
        ("add user 'e v e' x", 2, "expected a user name"),
        ("add user eve ''", 2, "expected a password"),
        ("add user bob x", 1, "there is a user bob already"),
        ("passwd nobody", 1, "there is no user nobody"),
        ("remove user nobody", 1, "there is no user nobody"),
        ("remove user admin", 1, "admin is the last user with the role admin"),
        ("terminate", 2, "expected a stream name or an option that says which"),
        ("terminate -r king", 2, "expected publisher or player"),
        ("terminate none", 1, "there is no such media session"),
        ("help fly", 2, "expected help"),
    ] {
        let (is, text) = room.refused(&Who::local(), line).await;
        assert!(is == code && text.starts_with(said) && !text.contains("hunter2"), "{line}: {is} {text}");
    }
    let long = format!("terminate {}", "x".repeat(MAX_LINE));
    assert!(room.refused(&Who::local(), &long).await.1.starts_with("expected a line of at most 8192 bytes"));
}

#[tokio::test]
async fn nothing_help_and_exit() {
    let room = room().await;
    let me = Who::local();
    assert_eq!(room.done(&me, "").await, "");
    assert!(room.done(&me, "help add app").await.contains("Example:"));
    assert!(matches!(room.console.run(&me, "exit").await, Turn::Leave));
}
