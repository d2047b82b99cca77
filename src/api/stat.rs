//! `/?action=stat`: WCS's page of statistics, with its groups and keys. Source: wcs.md 1.15.
//!
//! A key whose subject weir does not have (RTMFP, Java) is there with a 0, or with what stands in for it, so that a
//! script that reads the page finds every line.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::Api;
use super::answer::Answer;
use super::error::ApiError;
use super::metrics::{self, Snapshot};
use super::request::Request;

type Group = (&'static str, Vec<(&'static str, u64)>);

/// The page as text, or as JSON (`format=json`), with all groups or those that are named (`groups=a,b`).
pub async fn page(api: &Api, request: &Request) -> Result<Answer, ApiError> {
    let snapshot = metrics::snapshot(api, &[]).await?;
    let wanted: Vec<String> =
        request.values("groups")?.iter().flat_map(|list| list.split(',').map(str::to_owned)).collect();
    let mut groups = groups(&snapshot, api.media_ports);
    groups.retain(|(name, _)| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name));
    if request.values("format")?.iter().any(|format| format.eq_ignore_ascii_case("json")) {
        return Answer::json(&json(&groups));
    }
    Ok(Answer::Data("text/plain;charset=UTF-8", Bytes::from(text(&groups))))
}

fn json(groups: &[Group]) -> Value {
    let fields = |keys: &[(&str, u64)]| keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    let object: Map<_, _> =
        groups.iter().map(|(name, keys)| ((*name).to_owned(), Value::Object(fields(keys)))).collect();
    Value::Object(object)
}

/// A line of dashes with the group's name begins each group; the WebSDK reads the name up to the first character that is
/// neither a letter nor an underscore.
fn text(groups: &[Group]) -> String {
    let mut text = String::new();
    for (name, keys) in groups {
        text += &format!("-----{name} -----\n");
        keys.iter().for_each(|(key, value)| text += &format!("{key}={value}\n"));
    }
    text
}

fn groups(now: &Snapshot, (first, last): (u16, u16)) -> Vec<Group> {
    let viewers = |engine: &str| now.viewers.get(engine).copied().unwrap_or(0);
    let (ports, busy) = (u64::from(last - first) + 1, now.publishers("WebRTC", "publish"));
    // Publishers and the agents of other servers share one range.
    let free = ports.saturating_sub(busy + now.wcs_agents);
    let streams: u64 = now.streams.values().sum();
    let process = &now.process;
    vec![
        (
            "connections_stats",
            vec![
                ("connections", now.connections),
                ("connections_rtmfp", 0),
                ("connections_websocket", now.connections),
            ],
        ),
        (
            "port_stats",
            vec![
                ("ports_media_free", free),
                ("ports_media_busy", busy),
                ("ports_media_quarantine", 0),
                ("ports_wcs_agents_free", free),
                ("ports_wcs_agents_busy", now.wcs_agents),
                ("ports_wcs_agents_quarantine", 0),
                ("ports_rest_api_leased", 0),
                ("ports_rest_api_available", 0),
                ("ports_rest_api_pending", 0),
            ],
        ),
        (
            "streams_stats",
            vec![
                ("streams_rtsp_in", now.of_kind("rtsp")),
                ("streams_rtsp_out", 0),
                ("streams_websocket_out", 0),
                ("streams_rtmp_out", viewers("Flash")),
                ("streams_webrtc_in", busy),
                ("streams_webrtc_out", viewers("WebRTC")),
                ("streams_rtmfp_in", 0),
                ("streams_rtmfp_out", 0),
                ("streams_viewers", now.viewers.values().sum()),
                ("streams_synchronization", 0),
            ],
        ),
        ("native_resources", vec![("native_resources", now.pipelines.values().sum())]),
        (
            "core_stats",
            vec![
                ("core_threads", process.threads),
                ("core_java_threads", process.threads),
                ("core_java_threads_blocked", 0),
                ("core_java_committedMemory", process.resident),
                ("core_java_freePhysicalMemorySize", process.free_memory),
            ],
        ),
        (
            "transcoding_stats",
            vec![
                ("degraded_streams", now.degraded),
                ("degraded_streams_percent", (now.degraded * 100).checked_div(streams).unwrap_or(0)),
            ],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_as_the_sdk_reads_it() {
        let groups = [("core_stats", vec![("core_threads", 7)]), ("native_resources", vec![("native_resources", 0)])];
        assert_eq!(
            text(&groups),
            "-----core_stats -----\ncore_threads=7\n-----native_resources -----\nnative_resources=0\n"
        );
        assert_eq!(
            json(&groups).to_string(),
            r#"{"core_stats":{"core_threads":7},"native_resources":{"native_resources":0}}"#
        );
    }
}
