//! Streams that wait for their publisher.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::name::MediaSessionId;

const LONG: Duration = Duration::from_secs(3600);

pub(crate) fn publisher(provider: &'static str) -> Publisher {
    Publisher {
        name: StreamName::new("cam").unwrap(),
        session: MediaSessionId::random(),
        app_key: "app".into(),
        connection: MediaSessionId::random().to_string(),
        login: None,
        provider,
        media_type: "publish",
        transport: "TCP",
        record: None,
        by: "a test".into(),
    }
}

fn hub() -> Hub {
    Hub::start(Events::default(), crate::admission::Admission::default(), &TaskTracker::new())
}

/// A stream that has had media and waits for its publisher; who takes it meanwhile.
async fn waiting(hub: &Hub, wait: Duration) -> (MediaSessionId, Subscription) {
    let first = hub.publish(publisher("Flash")).await.unwrap();
    let session = first.session();
    first.live(Vec::new());
    let taker = hub.streams()[first.name()].subscribe(Subscriber::Recorder).unwrap();
    taker.view().wait_for(|view| view.phase == Phase::Live).await.unwrap();
    hub.keep(first, wait, STOPPED_BY_PUBLISHER).await;
    taker.view().wait_for(|view| view.phase == Phase::Interrupted).await.unwrap();
    (session, taker)
}

#[tokio::test]
async fn a_publisher_that_comes_back_has_its_stream() {
    let hub = hub();
    let (session, taker) = waiting(&hub, LONG).await;
    let second = publisher("Flash");
    let connection = second.connection.clone();
    let again = hub.publish(second).await.unwrap();
    assert_eq!(again.session(), session);
    taker.view().wait_for(|view| view.publisher().unwrap().connection == connection).await.unwrap();
    again.live(Vec::new());
    taker.view().wait_for(|view| view.phase == Phase::Live).await.unwrap();
    assert_eq!(hub.publish(publisher("Flash")).await.err(), Some(PublishError::NameTaken(again.name().clone())));
}

#[tokio::test]
async fn somebody_else_gets_the_name_and_not_the_stream() {
    let hub = hub();
    let (session, taker) = waiting(&hub, LONG).await;
    let browser = hub.publish(publisher("WebRTC")).await.unwrap();
    assert_ne!(browser.session(), session);
    let mut view = taker.view();
    while view.changed().await.is_ok() {}
}

#[tokio::test(start_paused = true)]
async fn the_wait_has_an_end_and_a_stream_without_media_does_not_wait() {
    let hub = hub();
    let (_, taker) = waiting(&hub, Duration::from_secs(5)).await;
    let began = tokio::time::Instant::now();
    let mut view = taker.view();
    while view.changed().await.is_ok() {}
    assert_eq!(began.elapsed().as_secs(), 5);

    let first = hub.publish(publisher("Flash")).await.unwrap();
    hub.keep(first, LONG, STOPPED_BY_PUBLISHER).await;
    assert!(hub.publish(publisher("WebRTC")).await.is_ok());
}

#[tokio::test]
async fn what_is_ended_from_outside_does_not_wait() {
    let hub = hub();
    let (session, taker) = waiting(&hub, LONG).await;
    hub.streams().values().next().unwrap().terminate(&session, crate::hub::STOPPED_BY_REST);
    let mut view = taker.view();
    while view.changed().await.is_ok() {}
    assert!(hub.publish(publisher("Flash")).await.unwrap().session() != session);
}
