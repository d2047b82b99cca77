// Stream recording: publishes the camera with record:true, and shows the file the server made of it.
import { camera, randomName, recordUrl } from "./weir.js";
import { attach, connect, fillServer, showStatus } from "./video.js";
import { byId, say } from "./page.js";

let session = null;
let recorded = null;

function show() {
  byId("name").disabled = byId("server").disabled = Boolean(recorded);
  byId("record-button").disabled = recorded === "starting" || recorded === "stopping";
  byId("record-button").textContent = recorded && recorded !== "starting" ? "Stop" : "Start";
}

function showFile(name) {
  byId("nothing").hidden = Boolean(name);
  byId("result").hidden = !name;
  if (!name) return;
  byId("record-name").textContent = name;
  byId("recorded").src = byId("open").href = recordUrl(name);
  byId("download").href = recordUrl(name, true);
}

async function start(name) {
  recorded = "starting";
  showFile(null);
  show();
  let media = null;
  try {
    media = await camera();
    attach(byId("local-video"), media);
    const url = byId("server").value.trim();
    if (session?.status !== "ESTABLISHED" || session.url !== url) {
      session?.close();
      session = await connect(byId("status"));
    }
    follow(session.publish(name, media, { record: true }));
  } catch (error) {
    // A connection that fails has said so already, with more of it.
    if (!media) say(byId("status"), "FAILED", error.message);
    end(media);
  }
}

function end(media) {
  media?.getTracks().forEach((track) => track.stop());
  attach(byId("local-video"), null);
  recorded = null;
  show();
}

function follow(stream) {
  recorded = stream;
  stream.addEventListener("statuschange", () => {
    if (!["FAILED", "UNPUBLISHED"].includes(stream.status)) return;
    showFile(stream.recordName);
    end(stream.media);
  });
  showStatus(stream, byId("status"));
  show();
}

byId("record").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  if (recorded) {
    recorded.stop();
    recorded = "stopping";
    say(byId("status"), "PROCESSING", "the file is being finished");
    return show();
  }
  const name = byId("name").value.trim();
  if (!name) return say(byId("status"), "FAILED", "Which name?");
  start(name);
});

byId("name").value = randomName();
fillServer();
