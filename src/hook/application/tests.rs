use super::*;

fn app(name: &str, key: &str, url: &str) -> Application {
    Application { name: name.into(), key: key.into(), url: url.into(), ..Application::default() }
}

async fn open(data: &std::path::Path) -> Applications {
    Applications::open(&Store::open(data).unwrap()).await.unwrap()
}

fn said<T: fmt::Debug>(result: Result<T, ApplicationError>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn three_are_there_from_the_start() {
    let data = tempfile::tempdir().unwrap();
    let apps = open(data.path()).await;
    let names: Vec<_> = apps.book().all().map(|app| app.name.clone()).collect();
    assert_eq!(names, BUILT_IN);
    for app in apps.book().all() {
        assert_eq!((app.key.as_str(), app.url.as_str(), app.owner.as_str()), (app.name.as_str(), "", "admin"));
        assert!(app.methods.contains(&Method::Connect) && !app.methods.contains(&Method::StreamKeepAliveEvent));
        assert_eq!(app.endpoint(Method::Connect), None, "nothing is called without a URL");
    }
    let stays = "defaultApp is built in and stays as it is named; update app -l \"\" defaultApp takes its URL away";
    assert_eq!(said(apps.remove(DEFAULT_APP).await), stays);
    let key = Update { key: Some("other".into()), ..Update::default() };
    assert_eq!(said(apps.update(DEFAULT_APP, key).await), stays);
}

/// A weir before this one had no `roomApp`, and people added it.
#[tokio::test]
async fn what_people_added_for_rooms_stays() {
    let data = tempfile::tempdir().unwrap();
    {
        let table = Store::open(data.path()).unwrap().table::<Application>("applications");
        table.write([Change::Put("rooms".into(), app("rooms", ROOM_APP, "http://h/rooms"))]).unwrap();
    }
    let apps = open(data.path()).await;
    assert_eq!(apps.with_key(ROOM_APP).unwrap().name, "rooms");
    assert_eq!(apps.book().all().count(), 3);
    apps.remove("rooms").await.unwrap();
    drop(apps);
    assert_eq!(open(data.path()).await.with_key(ROOM_APP).unwrap().name, ROOM_APP);
}

#[tokio::test]
async fn a_restart_keeps_what_was_changed() {
    let data = tempfile::tempdir().unwrap();
    {
        let apps = open(data.path()).await;
        let url = Update { url: Some("http://localhost:9091/EchoApp/".into()), ..Update::default() };
        apps.update(DEFAULT_APP, url).await.unwrap();
        apps.disable(FLASH_STREAMING_APP, &Method::ALL).await.unwrap();
        apps.add(app("shop", "shopKey", "https://u:hunter2@h/api")).await.unwrap();
        assert_eq!(apps.enable("shopKey", &[Method::Connect, Method::PlayStream]).await.unwrap(), 2);
        assert_eq!(apps.enable("shopKey", &[Method::Connect, Method::StreamKeepAliveEvent]).await.unwrap(), 1);
        assert_eq!(apps.disable("shopKey", &[Method::PlayStream]).await.unwrap(), 1);
        apps.add(app("gone", "gone", "")).await.unwrap();
        apps.remove("gone").await.unwrap();
    }
    let book = open(data.path()).await.book();
    let names: Vec<_> = book.all().map(|app| app.name.as_str()).collect();
    assert_eq!(names, [DEFAULT_APP, FLASH_STREAMING_APP, ROOM_APP, "shop"]);
    let default = book.named(DEFAULT_APP).unwrap();
    assert_eq!(default.endpoint(Method::Connect).unwrap(), "http://localhost:9091/EchoApp/connect");
    assert_eq!(default.endpoint(Method::StreamKeepAliveEvent), None);
    assert!(book.with_key(FLASH_STREAMING_APP).unwrap().methods.is_empty(), "a built-in one is not made anew");
    let shop = book.with_key("shopKey").unwrap();
    assert_eq!(shop.methods, BTreeSet::from([Method::Connect, Method::StreamKeepAliveEvent]));
    assert_eq!(shop.endpoint(Method::Connect).unwrap(), "https://u:hunter2@h/api/connect");
    assert_eq!(book.with_key("gone"), None);
}

#[tokio::test]
async fn a_changed_key_leaves_the_old_one() {
    let data = tempfile::tempdir().unwrap();
    let apps = open(data.path()).await;
    apps.add(app("shop", "old", "")).await.unwrap();
    apps.update("shop", Update { key: Some("new".into()), ..Update::default() }).await.unwrap();
    assert_eq!(apps.with_key("old"), None);
    assert_eq!(apps.with_key("new").unwrap().name, "shop");
    apps.add(app("other", "old", "")).await.unwrap();
}

#[tokio::test]
async fn what_is_refused_changes_nothing() {
    let data = tempfile::tempdir().unwrap();
    let apps = open(data.path()).await;
    apps.add(app("shop", "k", "http://h")).await.unwrap();
    let before: Vec<_> = apps.book().all().cloned().collect();
    let update = |name: &'static str, update: Update| async { said(apps.update(name, update).await) };
    assert_eq!(said(apps.add(app("shop", "k2", "")).await), "there is an application shop already: see show apps");
    assert_eq!(said(apps.add(app("shop2", "k", "")).await), "the application shop has the key k already");
    assert!(said(apps.add(app("", "k2", "")).await).starts_with("expected a name"));
    assert!(said(apps.add(app("a", "k 2", "")).await).starts_with("expected a key"));
    assert!(said(apps.add(app("a", "k2", "h/x")).await).starts_with("expected a URL"));
    assert_eq!(update("none", Update::default()).await, "there is no application none: see show apps");
    let key = Update { key: Some(DEFAULT_APP.into()), ..Update::default() };
    assert_eq!(update("shop", key).await, "the application defaultApp has the key defaultApp already");
    let url = Update { url: Some("ftp://u:hunter2@h".into()), ..Update::default() };
    let refused = update("shop", url).await;
    assert!(refused.starts_with("expected a URL") && !refused.contains("hunter2"), "{refused}");
    assert_eq!(
        said(apps.enable("none", &[Method::Connect]).await),
        "there is no application with the key none: see show apps"
    );
    assert_eq!(said(apps.remove("none").await), "there is no application none: see show apps");
    let after: Vec<_> = apps.book().all().cloned().collect();
    assert_eq!(before, after);
}

#[test]
fn nothing_secret_is_shown() {
    let mut app = app("shop", "k", "https://u:hunter2@h/api");
    app.rest_password = Secret::new("hunter3".into());
    let shown = format!("{app:?} {} {:?}", app.shown_url(), app.rest_password);
    assert!(!shown.contains("hunter"), "{shown}");
    assert_eq!(app.shown_url(), "https://u:***@h/api");
}

#[test]
fn what_an_older_or_a_later_weir_wrote_is_read() {
    let json = r#"{"name":"a","key":"k","methods":["connect","methodOfTheFuture"],"newField":1}"#;
    let read: Application = serde_json::from_str(json).unwrap();
    assert_eq!(read, Application { methods: [Method::Connect].into(), ..app("a", "k", "") });
}

#[tokio::test]
async fn changes_at_once_are_all_kept() {
    let data = tempfile::tempdir().unwrap();
    let apps = open(data.path()).await;
    let names: Vec<_> = (0..20).map(|n| format!("app{n}")).collect();
    futures_util::future::join_all(names.iter().map(|name| apps.add(app(name, name, "")))).await;
    assert_eq!(apps.book().all().count(), 20 + BUILT_IN.len());
}
