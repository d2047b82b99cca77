// The player: a stream by its name, or the URL of a source that the server pulls for it. `?name=` fills the field.
import { attach, connect, fillServer, measure, showStatus } from "./video.js";
import { byId, say } from "./page.js";

let session = null;
let played = null;

function show() {
  byId("name").disabled = byId("server").disabled = Boolean(played);
  byId("play-button").textContent = played ? "Stop" : "Play";
}

/** The session there is, if it is of that server and lives; else a new one. */
async function established() {
  const url = byId("server").value.trim();
  if (session?.status === "ESTABLISHED" && session.url === url) return session;
  session?.close();
  session = await connect(byId("status"));
  return session;
}

async function play(name) {
  // Stop, pressed before there is a stream, stops what will be.
  let wanted = true;
  played = { stop: () => (wanted = false) };
  show();
  try {
    const session = await established();
    if (wanted) return follow(session.play(name));
  } catch {
    // The status says why.
  }
  played = null;
  show();
}

function follow(stream) {
  played = stream;
  const measured = measure(stream, byId("measures"));
  attach(byId("video"), stream.media);
  stream.addEventListener("statuschange", () => {
    if (!["FAILED", "STOPPED"].includes(stream.status)) return;
    measured();
    attach(byId("video"), null);
    played = null;
    show();
  });
  showStatus(stream, byId("status"));
  show();
}

byId("play").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  if (played) return played.stop();
  const name = byId("name").value.trim();
  if (!name) {
    say(byId("status"), "FAILED", "Which stream? A name, or an address such as rtmp://host/app/stream.");
    byId("name").focus();
    return;
  }
  play(name);
});

byId("name").value = new URLSearchParams(location.search).get("name") ?? "";
fillServer();
