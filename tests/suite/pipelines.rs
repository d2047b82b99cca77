//! Pipelines: what REST shows of them, what runs when it is pasted, and the templates on the command line.

use std::process::{Command, Output};
use std::time::Duration;

use crate::support::{Clip, Home, Nginx, Publisher, decodes, run, wait_until};
use serde_json::Value;

const LIST: &str = "/rest-api/pipelines";

/// A command line as a person pastes it.
fn paste(line: &str, seconds: u32, home: &Home) -> Output {
    let mut shell = Command::new("timeout");
    shell.args(["--signal=INT", &seconds.to_string(), "sh", "-c", &format!("exec {line}")]).current_dir(home.path());
    run(&mut shell, Duration::from_secs(30))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn what_runs_is_shown_and_what_is_shown_runs() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let weir = home.start();
    weir.pull(&nginx.uri("a"), "a", true);
    weir.wait_frames("a", 5);
    home.wait_writing();
    wait_until("two pipelines", || weir.get(LIST).json().as_array().unwrap().len() == 2);

    for (template, element) in [("pull-rtmp", "rtmp2src"), ("record-mp4", "mp4mux")] {
        let shown = weir.pipelines(template)[0].clone();
        let id = shown["id"].as_str().unwrap();
        assert!(id.starts_with(template), "{shown}");
        assert_eq!((&shown["state"], &shown["stream"]), (&"PLAYING".into(), &"a".into()), "{shown}");
        assert!(shown["since"].as_u64().unwrap() > 1_700_000_000_000);
        let line = shown["line"].as_str().unwrap();
        assert!(line.contains(element) && !line.contains('{'), "{line}");

        let details = weir.get(&format!("{LIST}/{id}")).json();
        assert_eq!((&details["id"], &details["line"]), (&shown["id"], &shown["line"]));
        let elements = details["elements"].as_array().unwrap();
        assert!(elements.iter().any(|found| found["factory"] == element), "{details}");
        let caps = elements.iter().flat_map(|found| found["caps"].as_object().unwrap().values());
        assert!(
            caps.filter_map(Value::as_str).any(|caps| caps.starts_with("video/x-h264") && caps.contains("(int)320"))
        );
        // Each element that the line names is there.
        for name in
            line.split(" ! ").filter_map(|part| part.split_whitespace().find(|word| !word.contains(['=', '.', '/'])))
        {
            assert!(elements.iter().any(|found| found["factory"] == name), "{name} of {line}");
        }

        let dot = weir.get(&format!("{LIST}/{id}/graph.dot"));
        assert_eq!(dot.header("content-type"), Some("text/vnd.graphviz;charset=UTF-8"));
        assert!(dot.body.starts_with("digraph pipeline {") && dot.body.to_lowercase().contains(element));
        let svg = weir.get(&format!("{LIST}/{id}/graph.svg"));
        // Where there is no dot the package that has it is named.
        if svg.status == 501 {
            assert_eq!(svg.json()["exception"], "GraphvizMissing");
            assert!(svg.body.contains("graphviz"), "{svg:?}");
        } else {
            assert_eq!(svg.header("content-type"), Some("image/svg+xml"));
            assert!(svg.body.contains("<svg") && svg.body.to_lowercase().contains(element));
        }

        let output = paste(shown["shell"].as_str().unwrap(), if template == "pull-rtmp" { 3 } else { 15 }, &home);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(said.contains("Setting pipeline to PLAYING") || said.contains("Got EOS"), "{said}");
        assert!(!said.contains("ERROR") && !said.contains("WARNING: erroneous"), "{said}");
    }
    let properties = weir.get(&format!("{LIST}/{}", weir.pipelines("pull-rtmp")[0]["id"].as_str().unwrap())).json();
    let source =
        properties["elements"].as_array().unwrap().iter().find(|found| found["factory"] == "rtmp2src").unwrap();
    assert_eq!(source["properties"]["location"], nginx.uri("a").as_str(), "texts are shown as they are: {source}");
    decodes(&home.path().join("weir-part.mp4"));
    weir.terminate("a");
    wait_until("no pipelines", || weir.get(LIST).body == "[]");
}

#[test]
fn a_pipeline_that_is_not_there() {
    let home = Home::new();
    let weir = home.start();
    for path in ["pull-rtmp-1", "x/graph.dot", "x/graph.svg"] {
        let path = format!("{LIST}/{path}");
        assert_eq!(weir.refused(&weir.get(&path), &path), (404, "PipelineNotFound".into()));
    }
    let path = format!("{LIST}/x/graph.png");
    assert_eq!(weir.get(&path).status, 404);
}

#[test]
fn a_line_has_the_branches_the_source_has() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::AUDIO, &nginx.uri("a"));
    let weir = home.start();
    weir.pull(&nginx.uri("a"), "a", false);
    weir.wait_frames("a", 5);
    let line = weir.pipelines("pull-rtmp")[0]["line"].as_str().unwrap().to_owned();
    assert!(line.contains("aacparse") && !line.contains("h264parse"), "{line}");
}

#[test]
fn the_command_line_prints_lines_that_run() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let printed = home.bare("line").arg("pull-rtmp").arg(&format!("uri={}", nginx.uri("a"))).run();
    assert!(printed.status.success(), "{printed:?}");
    let output = paste(text(&printed.stdout).trim(), 3, &home);
    assert!(!text(&output.stderr).contains("ERROR"), "{output:?}");

    let name = home.path().join("it's a \"file\".mp4");
    let printed = home.bare("line").arg("record-mp4").arg(&format!("location={}", name.display())).run();
    let output = paste(text(&printed.stdout).trim(), 20, &home);
    assert!(output.status.success(), "{output:?}");
    decodes(&name);

    for (arguments, said) in [
        (&["pull-rtmp"][..], "nothing fills the hole {uri}"),
        (&["pull-nothing"], "there is no template pull-nothing; there are: "),
        (&["pull-rtmp", "url=x", "uri=y"], "has no hole {url}"),
        (&["pull-rtmp", "uri"], "uri is not key=value"),
    ] {
        let setup = arguments.iter().fold(home.bare("line"), |setup, argument| setup.arg(argument));
        let output = setup.run();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
    }
    let masked = home.bare("line").arg("pull-rtmp").arg("uri=rtmp://user:s3cr3t@h/live/a?key=s3cr3t").run();
    assert!(!text(&masked.stdout).contains("s3cr3t"), "{masked:?}");
}

#[test]
fn check_names_each_template_and_what_is_missing() {
    let home = Home::new();
    let checked = home.bare("check").run();
    let said = text(&checked.stdout);
    assert!(checked.status.success() && said.starts_with("GStreamer 1."), "{checked:?}");
    assert!(said.contains("pull-rtmp: ok") && said.contains("record-mp4: ok"), "{said}");

    let folder = home.path().join("pipelines");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("pull-rtmp.launch");
    let check = || home.bare("check").arg("--pipelines").arg("pipelines").run();
    for (template, code, out) in [
        ("rtmp2src location={uri} ! nosuchthing ! flvdemux name=demux", 1, "no element nosuchthing"),
        ("rtmp2src location={uri} ! ! flvdemux name=demux", 1, "cannot be parsed"),
        ("rtmp2src location={uri} ! flvdemux name=demux\n[subtitle] demux.x ! fakesink", 1, "[subtitle] is no track"),
        ("rtmp2src location={place} ! flvdemux name=demux", 1, "{place}"),
    ] {
        std::fs::write(&file, template).unwrap();
        let output = check();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(out), "{out:?} in {said}");
    }
    std::fs::rename(&file, folder.join("pull-rmtp.launch")).unwrap();
    assert!(text(&check().stderr).contains("pull-rmtp.launch overrides no template"));
}

#[test]
fn an_operators_template_is_used_and_a_broken_one_fails_the_pull_and_not_the_server() {
    let (home, nginx) = (Home::new(), Nginx::start());
    let _publisher = Publisher::start(Clip::LONG, &nginx.uri("a"));
    let folder = home.path().join("pipelines");
    std::fs::create_dir(&folder).unwrap();
    let own = include_str!("../../pipelines/pull-rtmp.launch").replace("! flvdemux", "! identity name=mine ! flvdemux");
    std::fs::write(folder.join("pull-rtmp.launch"), &own).unwrap();
    let weir = home.setup().arg("--pipelines").arg("pipelines").start();
    weir.pull(&nginx.uri("a"), "a", false);
    weir.wait_frames("a", 5);
    assert!(weir.pipelines("pull-rtmp")[0]["line"].as_str().unwrap().contains("identity name=mine"));
    drop(weir);

    std::fs::write(folder.join("pull-rtmp.launch"), own.replace("identity", "nosuchthing")).unwrap();
    let mut weir = home.setup().arg("--pipelines").arg("pipelines").start();
    weir.announce("pull-rtmp: GStreamer has no element nosuchthing; install");
    weir.tolerate("pull has no source");
    weir.pull(&nginx.uri("a"), "a", false);
    weir.wait_log("pull has no source: pull-rtmp: GStreamer has no element nosuchthing");
    assert_eq!(weir.get("/health/live").status, 200);
}
