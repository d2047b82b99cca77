// Two-way streaming: one connection, the camera published over it, a stream played over it.
import { camera, randomName } from "./weir.js";
import { byId, say } from "./page.js";
import { attach, connect, fillServer, measure, showStatus } from "./video.js";

let session = null;
let published = null;
let played = null;

/** Which fields and buttons can be used, and what the buttons do next. */
function show() {
  const on = session?.status === "ESTABLISHED";
  byId("server").disabled = Boolean(session);
  byId("connect").textContent = session ? "Disconnect" : "Connect";
  for (const [what, stream, verb] of [["publish", published, "Publish"], ["play", played, "Play"]]) {
    byId(`${what}-name`).disabled = !on || Boolean(stream);
    byId(`${what}-button`).disabled = !on || stream === "starting";
    byId(`${what}-button`).textContent = stream ? "Stop" : verb;
  }
}

const ended = (stream) => ["FAILED", "STOPPED", "UNPUBLISHED"].includes(stream.status);

byId("connection").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  if (session) {
    session.close?.();
    return;
  }
  session = {};
  show();
  try {
    session = await connect(byId("connection-status"));
    session.addEventListener("statuschange", () => {
      session = null;
      show();
    });
  } catch {
    session = null;
  }
  show();
});

byId("publish").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  if (published) {
    published.stop?.();
    return;
  }
  const name = byId("publish-name").value.trim();
  if (!name) return say(byId("publish-status"), "FAILED", "Which name?");
  published = "starting";
  show();
  let media;
  try {
    media = await camera();
  } catch (error) {
    published = null;
    say(byId("publish-status"), "FAILED", error.message);
    return show();
  }
  attach(byId("local-video"), media);
  const stream = (published = session?.publish(name, media) ?? null);
  const end = () => {
    media.getTracks().forEach((track) => track.stop());
    attach(byId("local-video"), null);
    published = null;
    show();
  };
  if (!stream) return end();
  stream.addEventListener("statuschange", () => ended(stream) && end());
  showStatus(stream, byId("publish-status"));
  show();
});

byId("play").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  if (played) {
    played.stop();
    return;
  }
  const name = byId("play-name").value.trim();
  if (!name) return say(byId("play-status"), "FAILED", "Which stream?");
  const stream = (played = session.play(name));
  const measured = measure(stream, byId("measures"));
  attach(byId("player-video"), stream.media);
  stream.addEventListener("statuschange", () => {
    if (!ended(stream)) return;
    measured();
    attach(byId("player-video"), null);
    played = null;
    show();
  });
  showStatus(stream, byId("play-status"));
  show();
});

byId("publish-name").value = byId("play-name").value = randomName();
fillServer();
show();
