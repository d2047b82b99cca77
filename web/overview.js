// The overview: four lists that follow the server's events, and a form that starts a pull.
import { call, follow, list, recordUrl } from "./weir.js";
import { badge, button, byId, bytes, confirmed, duration, el, moment, name, rows, say } from "./page.js";

/** What no event tells, figures and states of pipelines, is asked for this often, ms. */
const ANEW = 5000;
/** Events come in bunches: one look after a bunch, ms. */
const BUNCH = 150;
/** How many recordings are shown at first. */
const FIRST = 10;
/** How many events stay in sight. */
const KEPT = 30;

const body = (id) => byId(id).tBodies[0];
let all = false;

async function end(question, parts, yes, path, fields) {
  if (!(await confirmed(question, parts, yes))) return;
  try {
    await call(path, fields);
  } catch (error) {
    // What is gone already needs no ending.
    if (error.status !== 404) problem(error);
  }
  refresh();
}

function showStreams(sessions) {
  const published = sessions.filter((session) => session.published);
  const viewers = (stream) => sessions.filter((session) => !session.published && session.name === stream.name).length;
  rows(body("streams"), published, (stream) => stream.mediaSessionId, (stream) => {
    const size = stream.width ? ` ${stream.width} × ${stream.height}` : "";
    const media = [stream.videoCodec && `${stream.videoCodec}${size}`, stream.audioCodec].filter(Boolean).join(", ");
    const from = [stream.mediaProvider, stream.record && "recorded"].filter(Boolean).join(", ");
    return [
      [stream.name, () => name(stream.name)],
      [`${media}|${from}`, () => el("div", { class: "lines" }, media || "not known yet", el("small", {}, from))],
      [stream.status, () => badge(stream.status)],
      [viewers(stream)],
      [stream.createDate, () => moment(stream.createDate)],
      [stream.name, () => el("div", { class: "actions" },
        el("a", { class: "button", href: `player.html?name=${encodeURIComponent(stream.name)}`, "aria-label": `Play ${stream.name}` }, "Play"),
        button("Terminate", `Terminate ${stream.name}`, () => end(
          "Terminate this stream?", [name(stream.name), " ends for its publisher and for everybody who watches it."], "Terminate",
          "stream/terminate", { mediaSessionId: stream.mediaSessionId }), "danger"))],
    ];
  });
}

function showAgents(agents) {
  rows(body("agents"), agents, (agent) => agent.localMediaSessionId, (agent) => {
    const trouble = agent.lastError && agent.status !== "PROCESSED_REMOTE" ? agent.lastError : "";
    return [
      [agent.localStreamName, () => name(agent.localStreamName)],
      [agent.uri, () => el("bdi", {}, agent.uri)],
      [`${agent.status}|${agent.attempts}|${trouble}`, () => el("div", { class: "lines" }, badge(agent.status),
        trouble && el("small", {}, `${trouble}${agent.attempts ? ` (${agent.attempts} tries)` : ""}`))],
      [agent.since, () => moment(agent.since)],
      [agent.localMediaSessionId, () => el("div", { class: "actions" }, button("Stop", `Stop pulling ${agent.uri}`, () => end(
        "Stop this pull?", [name(agent.uri), " is no longer pulled; the stream ", name(agent.localStreamName), " ends."], "Stop",
        "pull/rtmp/terminate", { localMediaSessionId: agent.localMediaSessionId }), "danger"))],
    ];
  });
}

function showRecordings(recordings) {
  const shown = all ? recordings : recordings.slice(0, FIRST);
  byId("more").hidden = shown.length === recordings.length;
  byId("more").firstChild.textContent = `Show all ${recordings.length}`;
  rows(body("recordings"), shown, (file) => file.name, (file) => [
    [file.name, () => name(file.name)],
    [file.stream ?? "", () => el("bdi", {}, file.stream ?? "–")],
    [file.state, () => badge(file.state)],
    [file.duration === null ? "–" : duration(file.duration)],
    [bytes(file.size)],
    [file.modified, () => moment(file.modified)],
    [file.state, () => file.state === "finished" ? el("div", { class: "actions" },
      el("a", { class: "button", href: recordUrl(file.name), "aria-label": `Play ${file.name}` }, "Play"),
      el("a", { class: "button", href: recordUrl(file.name, true), "aria-label": `Download ${file.name}` }, "Download")) : ""],
  ]);
}

function showPipelines(pipelines) {
  rows(body("pipelines"), pipelines, (pipeline) => pipeline.id, (pipeline) => [
    [pipeline.id, () => el("a", { href: `pipeline.html?id=${encodeURIComponent(pipeline.id)}` }, name(pipeline.id))],
    [pipeline.stream, () => el("bdi", {}, pipeline.stream)],
    [pipeline.state, () => badge(pipeline.state)],
    [pipeline.since, () => moment(pipeline.since)],
  ]);
}

function problem(error) {
  byId("problem").textContent = error?.message ?? "";
}

let asking = false;
let askAgain = false;

/** Asks for everything and shows it; asked while it asks, it does so once more. */
async function refresh() {
  if (asking) {
    askAgain = true;
    return;
  }
  asking = true;
  try {
    const [streams, agents, recordings, pipelines] = await Promise.all(
      ["stream/find_all", "pull/rtmp/find_all", "recordings", "pipelines"].map(list));
    showStreams(streams);
    showAgents(agents);
    showRecordings(recordings);
    showPipelines(pipelines);
    problem(null);
  } catch (error) {
    problem(error);
  }
  asking = false;
  if (askAgain) {
    askAgain = false;
    refresh();
  }
}

const SENTENCES = {
  streamStarted: (event) => `starts: ${event.by}`,
  streamLive: (event) => `is live: ${event.tracks}`,
  streamWaits: (event) => `waits: ${event.reason}`,
  streamInterrupted: (event) => `is interrupted: ${event.reason}`,
  streamEnded: (event) => `has ended: ${event.info}`,
  sessionStatus: (event) => `${event.published ? "publisher" : "player"} ${event.status}${event.info ? `: ${event.info}` : ""}`,
  pullRetry: (event) => `has no source (try ${event.attempts}): ${event.reason}`,
  pullFailed: (event) => `is given up: ${event.reason}`,
  recordingStarted: (event) => `is recorded to ${event.name}`,
  recordingFinished: (event) => `is recorded: ${event.name}, ${duration(event.duration)}, ${bytes(event.size)}`,
  recordingHooked: (event) => event.exitCode === 0
    ? `has been seen by the hook script: ${event.name}`
    : `failed in the hook script: ${event.name}, ${event.reason ?? `exit code ${event.exitCode}`}`,
  recordingFailed: (event) => `cannot be recorded: ${event.reason}`,
  lagged: (event) => `${event.missed} events were missed`,
};

function tell(event) {
  const log = byId("events");
  const sentence = SENTENCES[event.event]?.(event) ?? event.event;
  log.prepend(el("li", {}, moment(event.timestamp), event.stream ? name(event.stream) : "", ` ${sentence}`));
  while (log.children.length > KEPT) log.lastChild.remove();
  byId("no-events").hidden = true;
}

let soon = 0;

function heard(event) {
  tell(event);
  clearTimeout(soon);
  soon = setTimeout(refresh, BUNCH);
}

byId("more").addEventListener("click", () => {
  all = true;
  refresh();
});

byId("pull").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const uri = byId("uri").value.trim();
  if (!uri) {
    say(byId("pull-status"), "FAILED", "Which source? An address such as rtmp://host/app/stream.");
    byId("uri").setAttribute("aria-invalid", "true");
    byId("uri").focus();
    return;
  }
  byId("uri").removeAttribute("aria-invalid");
  const fields = { uri, record: byId("record").checked };
  if (byId("local").value) fields.localStreamName = byId("local").value;
  try {
    await call("pull/rtmp/pull", fields);
    // Without its address, in which there may be a password.
    say(byId("pull-status"), "", "The pull is started; its status is shown below.");
    byId("pull").reset();
  } catch (error) {
    say(byId("pull-status"), "FAILED", error.message);
  }
  refresh();
});

follow(heard, (up) => {
  say(byId("feed"), up ? "LIVE" : "RECONNECTING", up ? "follows the server" : "the server is not heard");
  if (up) refresh();
});
setInterval(() => document.hidden || refresh(), ANEW);
refresh();
