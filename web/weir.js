// The client of a weir server: REST, events, and the WebSocket protocol of Flashphoner WCS with WebRTC.
// No page's element is known here.

/** A call that the server refused, or that did not reach it (status 0). */
export class CallError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw new CallError(0, "Unreachable", "The server does not answer.");
  }
  if (response.ok) return response;
  const text = await response.text();
  let body = {};
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy in between answers what it likes.
  }
  throw new CallError(response.status, body.exception ?? "Error", body.message ?? `The server answers ${response.status}.`);
}

/** Calls REST: GET without fields, POST with them. Gives what the answer holds, or null. */
export async function call(path, fields) {
  const options = fields && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(fields),
  };
  const text = await (await ask(`/rest-api/${path}`, options)).text();
  return text ? JSON.parse(text) : null;
}

/** A list from REST; the calls that answer "nothing" with 404 give an empty one. */
export async function list(path) {
  try {
    return (await call(path)) ?? [];
  } catch (error) {
    if (error.status === 404) return [];
    throw error;
  }
}

/** What a call answers as a blob, for pictures. */
export async function blob(path) {
  return (await ask(`/rest-api/${path}`)).blob();
}

/** The address of a recorded file. */
export function recordUrl(name, download = false) {
  return `/client/records/${encodeURIComponent(name)}${download ? "?download" : ""}`;
}

const EVENTS = [
  "streamStarted", "streamLive", "streamInterrupted", "streamWaits", "streamEnded", "sessionStatus", "pullRetry",
  "pullFailed", "recordingStarted", "recordingFinished", "recordingFailed", "recordingHooked", "lagged",
];

/**
 * Follows the server's events: `heard(event)` for each, `state(true)` whenever the feed is up (what was missed before is
 * to be asked for) and `state(false)` when it is lost. A page that is hidden lets go of its connection, of which a
 * browser has six a server.
 */
export function follow(heard, state) {
  let source = null;
  let again = 0;
  const open = () => {
    clearTimeout(again);
    if (source || document.hidden) return;
    source = new EventSource("/rest-api/events");
    source.onopen = () => state(true);
    source.onerror = () => {
      state(false);
      // A server that is stopping answers 503, after which a browser does not try again by itself.
      if (source?.readyState === EventSource.CLOSED) {
        close();
        again = setTimeout(open, 3000);
      }
    };
    for (const name of EVENTS) source.addEventListener(name, (event) => heard(JSON.parse(event.data)));
  };
  const close = () => {
    clearTimeout(again);
    source?.close();
    source = null;
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  open();
}

/** Where the server's WebSocket is: the page's host, and the port that the server names. */
export async function serverUrl() {
  const secure = location.protocol === "https:";
  let ports = {};
  try {
    ports = await call("ports");
  } catch {
    // An older server: the protocol's usual port.
  }
  const port = secure ? (ports["wss.port"] ?? 8443) : (ports["ws.port"] ?? 8080);
  return `${secure ? "wss" : "ws"}://${location.hostname || "localhost"}:${port}`;
}

/** A random id; crypto.randomUUID exists only for pages from https or localhost. */
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** A short random name for a stream. */
export const randomName = () => uuid().slice(0, 4);

/** How long the server may take to take a connection, ms. */
const CONNECTING = 10_000;
/** How long the server may take to say that a stream has stopped, ms. */
const STOPPING = 10_000;
/** The statuses after which a stream is no more. */
const LAST = ["FAILED", "STOPPED", "UNPUBLISHED"];

/**
 * A connection to a server. `statuschange` events tell of PENDING → ESTABLISHED → DISCONNECTED, or FAILED; `status` and
 * `info` say where it is.
 */
export class Session extends EventTarget {
  #socket;
  #streams = new Map();
  #deadline;

  constructor(url, { appKey = "defaultApp", custom } = {}) {
    super();
    this.url = url;
    this.status = "PENDING";
    this.info = "";
    try {
      this.#socket = new WebSocket(url);
    } catch (error) {
      // Whoever listens can do so only after the constructor has returned.
      queueMicrotask(() => this.#end("FAILED", error.message));
      return;
    }
    this.#deadline = setTimeout(() => this.#end("FAILED", "The server does not answer."), CONNECTING);
    this.#socket.onopen = () => this.send("connection", {
      appKey,
      mediaProviders: ["WebRTC"],
      keepAlive: false,
      clientVersion: "2.0",
      clientOSVersion: navigator.appVersion,
      clientBrowserVersion: navigator.userAgent,
      msePacketizationVersion: 2,
      custom,
    });
    this.#socket.onmessage = ({ data }) => this.#heard(data);
    this.#socket.onclose = ({ reason }) => {
      const failed = this.status === "PENDING";
      this.#end(failed ? "FAILED" : "DISCONNECTED", reason || (failed ? "The connection cannot be made." : ""));
    };
  }

  /** Sends a message with one payload. */
  send(message, payload = null) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ message, data: [payload] }));
  }

  /** Publishes `media` under a name. */
  publish(name, media, { record = false } = {}) {
    return this.#start(new Stream(this, { name, media, record, published: true }));
  }

  /** Plays a stream by its name, or by the URL of a source that the server is to pull. */
  play(name) {
    return this.#start(new Stream(this, { name, media: new MediaStream(), record: false, published: false }));
  }

  /** Closes the connection, and with it its streams. */
  close() {
    this.#end("DISCONNECTED", "");
  }

  #start(stream) {
    this.#streams.set(stream.id, stream);
    stream.addEventListener("statuschange", () => {
      if (LAST.includes(stream.status)) this.#streams.delete(stream.id);
    });
    stream.start();
    return stream;
  }

  #heard(text) {
    let message, data;
    try {
      ({ message, data } = JSON.parse(text));
    } catch {
      return;
    }
    const [first, second] = data ?? [];
    switch (message) {
      case "ping":
        return this.send("pong");
      case "getUserData":
        clearTimeout(this.#deadline);
        return this.#become("ESTABLISHED", "");
      case "setRemoteSDP":
        return this.#streams.get(first)?.answered(second);
      case "notifyStreamStatusEvent":
      case "notifyVideoFormat":
        return this.#streams.get(first?.mediaSessionId)?.told(first);
      case "notifyStreamEvent":
        return this.#streams.get(first?.mediaSessionId)?.happened(first);
      case "fail":
        if (this.#streams.has(first?.id)) return this.#streams.get(first.id).told({ ...first, status: "FAILED" });
        return this.dispatchEvent(new CustomEvent("warning", { detail: first?.info ?? "" }));
      default:
    }
  }

  #end(status, info) {
    if (["FAILED", "DISCONNECTED"].includes(this.status)) return;
    clearTimeout(this.#deadline);
    for (const stream of [...this.#streams.values()]) stream.told({ status: "FAILED", info: "The connection is closed." });
    this.#socket?.close();
    this.#become(status, info);
  }

  #become(status, info) {
    this.status = status;
    this.info = info;
    this.dispatchEvent(new Event("statuschange"));
  }
}

/**
 * A stream that is published or played: PENDING → PUBLISHING → UNPUBLISHED, PENDING → PLAYING → STOPPED, or FAILED with
 * the reason in `info`. `media` is what is sent or received; `recordName` the file it was recorded to.
 */
export class Stream extends EventTarget {
  #session;
  #peer;
  /** The offer has been sent: the server knows of the stream. */
  #known = false;
  #deadline;

  constructor(session, { name, media, record, published }) {
    super();
    this.id = uuid();
    this.name = name;
    this.media = media;
    this.record = record;
    this.published = published;
    this.status = "PENDING";
    this.info = "";
    this.recordName = null;
    this.#session = session;
  }

  /** Sends the offer. It holds no candidates and none follow: the server answers with its own, and the checks do the rest. */
  async start() {
    // Whoever made the stream listens to it first.
    await null;
    try {
      this.#peer = new RTCPeerConnection({ iceServers: [], bundlePolicy: "max-compat" });
      if (this.published) {
        for (const track of this.media.getTracks()) {
          this.#peer.addTransceiver(track, { direction: "sendonly", streams: [this.media] });
        }
      } else {
        this.#peer.ontrack = ({ track }) => this.media.addTrack(track);
        for (const kind of ["audio", "video"]) this.#peer.addTransceiver(kind, { direction: "recvonly" });
      }
      const offer = await this.#peer.createOffer();
      await this.#peer.setLocalDescription(offer);
      if (this.status !== "PENDING") return;
      this.#known = true;
      this.#session.send(this.published ? "publishStream" : "playStream", this.#asked(offer.sdp));
    } catch (error) {
      this.told({ status: "FAILED", info: error.message });
    }
  }

  #asked(sdp) {
    const sends = (kind) => !this.published || this.media.getTracks().some((track) => track.kind === kind);
    const size = this.published ? {} : { width: 0, height: 0, quality: 0 };
    return {
      mediaSessionId: this.id,
      name: this.name,
      published: this.published,
      hasVideo: sends("video"),
      hasAudio: sends("audio"),
      status: "PENDING",
      record: this.record,
      mediaProvider: "WebRTC",
      sdp,
      bitrate: 0,
      minBitrate: 0,
      maxBitrate: 0,
      ...size,
    };
  }

  /** Stops it; the last status comes from the server. */
  stop() {
    if (this.#deadline || LAST.includes(this.status)) return;
    const last = this.published ? "UNPUBLISHED" : "STOPPED";
    if (!this.#known) return this.told({ status: last });
    const { id: mediaSessionId, name, published, status, record } = this;
    const stop = { mediaSessionId, name, published, hasVideo: true, hasAudio: true, status, record };
    this.#session.send(published ? "unPublishStream" : "stopStream", stop);
    this.#peer?.close();
    this.#deadline = setTimeout(() => this.told({ status: last }), STOPPING);
  }

  /** The server's answer to the offer. */
  async answered(sdp) {
    try {
      if (this.#peer.signalingState === "have-local-offer") await this.#peer.setRemoteDescription({ type: "answer", sdp });
    } catch (error) {
      this.stop();
      this.told({ status: "FAILED", info: error.message });
    }
  }

  /** A status message of the server's. */
  told({ status, info, recordName }) {
    if (recordName) this.recordName = recordName;
    if (!status || LAST.includes(this.status)) return;
    if (LAST.includes(status)) {
      clearTimeout(this.#deadline);
      this.#peer?.close();
    } else if (this.#deadline) {
      // It is being stopped already.
      return;
    }
    this.#become(status, info ?? "");
  }

  /** An event of the stream's: mute, data, bandwidth. */
  happened({ type, payload }) {
    this.dispatchEvent(new CustomEvent("streamevent", { detail: { type, payload } }));
  }

  /** The connection's statistics. */
  async stats() {
    return (await this.#peer?.getStats()) ?? new Map();
  }

  #become(status, info = "") {
    this.status = status;
    this.info = info;
    this.dispatchEvent(new Event("statuschange"));
  }
}

/** Camera and microphone. */
export async function camera(constraints = { audio: true, video: { width: 640, height: 480 } }) {
  if (!navigator.mediaDevices) {
    throw new Error("The browser gives camera and microphone only to pages from https or from localhost.");
  }
  try {
    return await navigator.mediaDevices.getUserMedia(constraints);
  } catch (error) {
    if (error.name === "NotAllowedError") throw new Error("Camera and microphone are not allowed for this page.");
    if (error.name === "NotFoundError") throw new Error("There is no camera or no microphone.");
    throw error;
  }
}
