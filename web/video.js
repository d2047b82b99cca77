// What the pages with a video share: the connection's field and statuses, and what a picture measures.
import { Session, serverUrl } from "./weir.js";
import { byId, say } from "./page.js";

/** Fills the server's address, unless somebody was faster. */
export async function fillServer() {
  const field = byId("server");
  const url = await serverUrl();
  if (!field.value) field.value = url;
}

/** Connects to the server named in the field. Gives a session that is established, or throws its reason. */
export function connect(status) {
  return new Promise((resolve, reject) => {
    const session = new Session(byId("server").value.trim());
    say(status, "PENDING", "connecting");
    session.addEventListener("statuschange", () => {
      say(status, session.status, session.info);
      if (session.status === "ESTABLISHED") resolve(session);
      else reject(new Error(session.info || session.status));
    });
  });
}

/** Shows a stream's statuses in a region until its last. */
export function showStatus(stream, region) {
  const show = () => say(region, stream.status, stream.info);
  stream.addEventListener("statuschange", show);
  show();
}

/** Shows a medium in a video element. */
export function attach(video, media) {
  video.srcObject = media;
  if (!media) return;
  // A browser that wants a click for sound shows its own button; the picture's controls are there.
  video.play().catch(() => {});
}

/** Shows size, rate and bitrate of a played stream once a second; call what it gives to end. */
export function measure(stream, place) {
  let before = null;
  const timer = setInterval(async () => {
    const reports = [...(await stream.stats()).values()];
    const video = reports.find((report) => report.type === "inbound-rtp" && report.kind === "video");
    const received = reports.filter((report) => report.type === "inbound-rtp").reduce((sum, r) => sum + (r.bytesReceived ?? 0), 0);
    const now = performance.now();
    const parts = [];
    if (video?.frameWidth) parts.push(`${video.frameWidth} × ${video.frameHeight}`);
    if (video?.framesPerSecond) parts.push(`${Math.round(video.framesPerSecond)} frames/s`);
    if (before) parts.push(`${Math.round((8 * (received - before.received)) / (now - before.now))} kbit/s`);
    before = { now, received };
    place.textContent = parts.join(" · ");
  }, 1000);
  return () => {
    clearInterval(timer);
    place.textContent = "";
  };
}
