// Pages with the unmodified WebSDK of Flashphoner, driven from the tests.
import { openPage, servePackages } from "./browser.js";

const SDK = "/node_modules/@flashphoner/websdk";

/**
 * Runs before the SDK in its page: keeps hold of the peers it makes, whose statistics are the tests' witnesses. Where the
 * test gave the page a line, answers lead through it.
 */
const PEERS = `
  window.peers = [];
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...args) { super(...args); window.peers.push(this); }
    async setRemoteDescription({ type, sdp }) {
      return super.setRemoteDescription({ type, sdp: window.through ? await window.through(sdp) : sdp });
    }
  };
`;

/** Runs in a worker: says when the sound and the pictures of a stream change, milliseconds since 1970. */
function meter() {
  const frames = async (readable, look) => {
    for (const reader = readable.getReader(); ; ) {
      const { value, done } = await reader.read();
      if (done) return;
      await look(value, performance.timeOrigin + performance.now());
      value.close();
    }
  };
  onmessage = ({ data: [sound, pictures] }) => {
    let [loud, last, lag, before] = [false, 0, Infinity, 0];
    // How often it has risen over nothing since it became loud, and when first and last.
    let [rises, low, first, latest] = [0, false, 0, 0];
    frames(sound, (data, now) => {
      // Its own clock tells to a fraction of a millisecond when it was given out; ours, when this worker came to look.
      // Its zero is the page's for what was given out before this worker had the track, and then this worker's.
      if (data.timestamp < before) lag = Infinity;
      before = data.timestamp;
      lag = Math.min(lag, now - data.timestamp / 1000);
      const samples = new Float32Array(data.numberOfFrames);
      data.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
      samples.forEach((sample, number) => {
        const at = lag + data.timestamp / 1000 + (number * 1000) / data.sampleRate;
        if (Math.abs(sample) > 0.1) {
          if (!loud) {
            postMessage({ loud: (loud = true), at });
            [rises, low] = [-1, false];
          }
          last = at;
        } else if (loud && at - last > 20) postMessage({ loud: (loud = false), at: last, pitch: (rises * 1000) / (latest - first) });
        if (sample < -0.05) low = true;
        if (low && sample > 0.05) {
          [rises, low, latest] = [rises + 1, false, at];
          if (rises === 0) first = at;
        }
      });
    });
    let bright = true;
    const pixels = new Uint8Array(64);
    frames(pictures, async (frame, at) => {
      const { x, y, height } = frame.visibleRect;
      await frame.copyTo(pixels, { rect: { x, y: y + Math.floor(height / 8) * 6, width: 2, height: 2 } });
      // The first byte is the pixel's luma.
      const flash = pixels[0] > 128;
      if (flash && !bright) postMessage({ flash, at });
      bright = flash;
    });
  };
}

/** Runs in the page beside the SDK: streams by a key of the test's, each with every status it had. */
function helpers() {
  const { SESSION_STATUS, STREAM_STATUS } = Flashphoner.constants;
  const streams = {};
  const warnings = [];
  let session;
  const receiver = ({ id }) => window.peers.flatMap((peer) => peer.getReceivers()).find(({ track }) => track.id === id);
  const inbound = async (receiver) => [...(await receiver.getStats()).values()].find(({ type }) => type === "inbound-rtp");
  const arrived = async ({ srcObject }) => (await inbound(receiver(srcObject.getVideoTracks()[0])))?.framesReceived ?? 0;
  Flashphoner.init();
  window.h = {
    connect: (urlServer, options = {}) => new Promise((resolve, reject) => {
      session = Flashphoner.createSession({ urlServer, ...options })
        .on(SESSION_STATUS.WARN, (_, warning) => warnings.push(warning ?? _))
        .on(SESSION_STATUS.ESTABLISHED, () => resolve())
        .on(SESSION_STATUS.FAILED, () => reject(new Error("session FAILED")))
        .on(SESSION_STATUS.DISCONNECTED, () => reject(new Error("session DISCONNECTED")));
    }),
    disconnect: () => session.disconnect(),
    /** What the server complained of. */
    warnings: () => warnings,
    /** Data for the application's own server: what became of it. */
    sendData: (data) => session.sendData(data).then((taken) => taken, (refused) => refused),
    /** Begins to publish or to play; what becomes of it is in `statuses`. */
    start(verb, key, options) {
      const display = document.createElement("div");
      display.style = "width: 640px; height: 480px";
      document.body.append(display);
      const one = (streams[key] = { statuses: [], display });
      one.stream = session.createStream({ display, ...options });
      for (const status of Object.values(STREAM_STATUS)) {
        one.stream.on(status, (stream) => one.statuses.push([stream.status(), stream.getInfo() ?? null, stream.getRecordInfo() ?? null]));
      }
      one.stream[verb]();
    },
    stop: (key) => streams[key].stream.stop(),
    statuses: (key) => streams[key].statuses,
    /** The picture of a stream: its size, its clock, and a hash of what it shows now. */
    picture(key) {
      const video = [...streams[key].display.querySelectorAll("video")].find((one) => one.videoWidth > 0);
      if (!video) return null;
      const canvas = Object.assign(document.createElement("canvas"), { width: 160, height: 120 });
      const paint = canvas.getContext("2d");
      paint.drawImage(video, 0, 0, 160, 120);
      const pixels = paint.getImageData(0, 0, 160, 120).data;
      let hash = 0;
      for (const byte of pixels) hash = (hash * 31 + byte) | 0;
      return { width: video.videoWidth, height: video.videoHeight, at: video.currentTime, hash };
    },
    /**
     * From now on notes each picture that is shown: when, and the number that `startClip` has drawn into its top as bars.
     */
    async watch(key) {
      const video = streams[key].display.querySelector("video");
      streams[key].before = await arrived(video);
      const seen = (streams[key].seen = []);
      const paint = Object.assign(document.createElement("canvas"), { width: 16, height: 1 }).getContext("2d", { willReadFrequently: true });
      const look = (now, { expectedDisplayTime, width, height }) => {
        paint.drawImage(video, 0, 0, width, height / 16, 0, 0, 16, 1);
        const bars = paint.getImageData(0, 0, 16, 1).data;
        let number = 0;
        for (let bar = 0; bar < 16; bar++) number += bars[bar * 4] > 128 ? 1 << bar : 0;
        paint.drawImage(video, 0, height / 2, width, height / 2, 0, 0, 1, 1);
        seen.push({ number, at: expectedDisplayTime, bright: paint.getImageData(0, 0, 1, 1).data[0] > 128, width });
        video.requestVideoFrameCallback(look);
      };
      video.requestVideoFrameCallback(look);
    },
    seen: (key) => streams[key].seen,
    /** How many pictures have come since `watch`, shown or not: a browser that is busy leaves some out. */
    arrived: async (key) => (await arrived(streams[key].display.querySelector("video"))) - streams[key].before,
    /**
     * From now on notes when the sound of a stream becomes loud after it was silent and when silent again with the pitch
     * it had, Hz, and when its picture becomes bright: as the browser gives both to its outputs. What is noted behind them is later by what they
     * hold back, which grows on a busy machine: Web Audio alone adds 50 ms and more.
     */
    listen(key) {
      const one = Object.assign(streams[key], { heard: [], flashes: [] });
      const { srcObject } = one.display.querySelector("video");
      const [sound, pictures] = [srcObject.getAudioTracks()[0], srcObject.getVideoTracks()[0]];
      // Not in the page's own thread, which is busy with pictures.
      const worker = new Worker(URL.createObjectURL(new Blob([`(${meter})()`], { type: "text/javascript" })));
      const [ear, eye] = [sound, pictures].map(receiver);
      const playing = async (receiver) => (await inbound(receiver))?.estimatedPlayoutTimestamp;
      worker.onmessage = async ({ data: { flash, loud, at, pitch } }) => {
        if (!flash) return one.heard.push({ loud, at, pitch });
        const [heard, seen] = await Promise.all([ear, eye].map(playing));
        one.flashes.push({ at, known: heard && seen && seen - heard });
      };
      const readables = [sound, pictures].map((track) => new MediaStreamTrackProcessor({ track, maxBufferSize: 100 }).readable);
      worker.postMessage(readables, readables);
    },
    /**
     * When pictures became bright, since `listen`, and how much later than its picture the sound was then by what the
     * browser itself knows: by the sender's clocks, once it has both.
     */
    flashes: (key) => streams[key].flashes,
    heard: (key) => streams[key].heard,
    /** What all peers of the page received: frames, codecs, energy of sound. */
    async received() {
      const sum = { frames: 0, energy: 0, codecs: [], viewers: 0, width: 0 };
      for (const peer of window.peers) {
        const reports = await peer.getStats();
        for (const report of reports.values()) {
          if (report.type !== "inbound-rtp") continue;
          const codec = reports.get(report.codecId)?.mimeType;
          if (codec) sum.codecs.push(codec);
          if (report.kind === "audio") sum.energy += report.totalAudioEnergy ?? 0;
          if (report.kind === "video") {
            sum.frames += report.framesDecoded ?? 0;
            sum.viewers += report.framesDecoded > 0 ? 1 : 0;
            sum.width = report.frameWidth ?? 0;
          }
        }
      }
      return sum;
    },
    /** The browser's own figures of the pictures it sends ("outbound-rtp") or receives ("inbound-rtp"), one peer's. */
    async pictures(type) {
      for (const peer of window.peers) {
        for (const report of (await peer.getStats()).values()) {
          if (report.type === type && report.kind === "video") return report;
        }
      }
      return null;
    },
  };
}

const PAGE = `<!doctype html><meta charset="utf-8"><title>WebSDK</title>
<script>${PEERS}</script><script src="${SDK}/flashphoner.js"></script><script>${meter}; (${helpers})()</script>`;

/** The frame that the SDK's own tests have in their test.html, with another server and the results where they can be read. */
const mochaPage = (urlServer) => `<!doctype html><meta charset="utf-8"><title>mocha</title><div id="mocha"></div>
<script src="${SDK}/flashphoner.js"></script>
<script src="/node_modules/chai/chai.js"></script>
<script src="/node_modules/mocha/mocha.js"></script>
<script>
  mocha.setup("bdd");
  var expect = chai.expect;
  var sOptions = { urlServer: ${JSON.stringify(urlServer)} };
  var initOptions = { flashMediaProviderSwfLocation: "../media-provider.swf", screenSharingExtensionId: "nlbaajplpmleofphigmgaifhoikjmbkg" };
  function addDisplay(width, height) {
    var display = document.createElement("div");
    display.setAttribute("style", "width:" + (width || 320) + "px; height:" + (height || 240) + "px; border: solid; border-width: 1px");
    document.body.insertBefore(display, document.body.firstChild);
    return display;
  }
  function removeDisplay(display) { document.body.removeChild(display); }
</script>
<script>
  // How long the tests wait is meant for a machine that does nothing else.
  var timeout = Mocha.Context.prototype.timeout;
  Mocha.Context.prototype.timeout = function (ms) {
    return arguments.length ? timeout.call(this, ms * 6) : timeout.call(this);
  };
  // One test listens for the size of a picture once it hears that it plays. A browser that is busy may know the size by then.
  var listen = HTMLVideoElement.prototype.addEventListener;
  HTMLVideoElement.prototype.addEventListener = function (name) {
    listen.apply(this, arguments);
    if (name === "resize" && this.videoWidth > 0) this.dispatchEvent(new Event("resize"));
  };
</script>
<script src="${SDK}/test/test.js"></script>
<script src="${SDK}/test/media-device-test.js"></script>
<script>
  window.results = { passed: [], failed: {}, done: false };
  mocha.run()
    .on("pass", function (test) { results.passed.push(test.title); })
    .on("fail", function (test, error) { results.failed[test.title] = String(error && error.message || error); })
    .on("end", function () { results.done = true; });
</script>`;

/** Serves the SDK's pages from loopback. `urlServer` is where the SDK's own tests connect to. */
export async function serveSdk(urlServer) {
  const server = await servePackages({ "/sdk.html": PAGE, "/mocha.html": mochaPage(urlServer) });
  return {
    ...server,
    /** A page with the SDK; every call of its helpers by name. `line` is what its media goes through. */
    async open(browser, line) {
      const opened = await openPage(browser, `${server.url}/sdk.html`);
      if (line) await opened.page.exposeFunction("through", line.through);
      const call = (name, ...args) => opened.page.evaluate(([name, args]) => window.h[name](...args), [name, args]);
      return { ...opened, call };
    },
  };
}
