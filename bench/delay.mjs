// What a viewer in Chromium waits for: the first picture of a live stream, and every picture of a running one.
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { startBrowser, servePackages, openPage } from "../tests/browser/support/browser.js";
import { folder, makeClip, sleep, startEncoder, startWeir, until } from "../tests/browser/support/processes.js";

const option = (name, otherwise) => Number(process.argv.find((word) => word.startsWith(`--${name}=`))?.split("=")[1] ?? otherwise);
const JOINS = option("joins", 20);
const PICTURES = option("pictures", 300);
const ROUNDS = option("rounds", 3);
const ONLY = process.argv.find((word) => word.startsWith("--only="))?.split("=")[1];
const CLIENTS = process.env.RTMP_CLIENTS ?? fileURLToPath(new URL("../target/release/examples/rtmp_clients", import.meta.url));

/** Runs in the page: WCS's protocol as far as a benchmark needs it, and decoded pictures with the moment they are there. */
function client() {
  const now = () => performance.timeOrigin + performance.now();
  const CELLS = 48;
  let socket;
  const answers = new Map();
  const say = (message, data) => socket.send(JSON.stringify({ message, data: [data] }));
  window.b = {
    connect: (url) => new Promise((done, failed) => {
      socket = new WebSocket(url);
      socket.onopen = () => say("connection", { appKey: "defaultApp", clientVersion: "2.0" });
      socket.onerror = failed;
      socket.onmessage = ({ data }) => {
        const { message, data: [first, second] } = JSON.parse(data);
        if (message === "ping") say("pong", null);
        if (message === "getUserData") done();
        if (message === "setRemoteSDP") answers.get(first).answered(second);
        if (message === "notifyStreamStatusEvent" && first.status === "FAILED") answers.get(first.mediaSessionId)?.failed(new Error(first.info));
      };
    }),
    async call(message, id, name, peer) {
      const sent = now();
      await peer.setLocalDescription();
      const sdp = await new Promise((answered, failed) => {
        answers.set(id, { answered, failed });
        say(message, { mediaSessionId: id, name, published: message === "publishStream", sdp: peer.localDescription.sdp });
      });
      await peer.setRemoteDescription({ type: "answer", sdp });
      return sent;
    },
    /** Plays once; milliseconds from the call to the first decoded picture. */
    async firstPicture(name) {
      const id = crypto.randomUUID();
      const peer = new RTCPeerConnection();
      peer.addTransceiver("audio", { direction: "recvonly" });
      const { track } = peer.addTransceiver("video", { direction: "recvonly" }).receiver;
      const reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
      const sent = await window.b.call("playStream", id, name, peer);
      const { value } = await reader.read();
      const took = now() - sent;
      value.close();
      say("stopStream", { mediaSessionId: id, name, published: false });
      peer.close();
      return took;
    },
    /** Asks for a stream until there is one; when its first picture was decoded. */
    async awaited(name) {
      for (;;) {
        const took = await window.b.firstPicture(name).catch(() => undefined);
        if (took !== undefined) return now();
        await new Promise((done) => setTimeout(done, 20));
      }
    },
    /** Plays until the page is gone, and notes when the newest picture was decoded, and the first one after a pause. */
    async follow(name) {
      const peer = new RTCPeerConnection();
      peer.addTransceiver("audio", { direction: "recvonly" });
      const { track } = peer.addTransceiver("video", { direction: "recvonly" }).receiver;
      window.follower = peer;
      await window.b.call("playStream", crypto.randomUUID(), name, peer);
      const reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        value.close();
        if (now() - window.newest > 500) window.again = now();
        window.newest = now();
      }
    },
    following(name) { void window.b.follow(name); },
    newest: () => window.newest,
    again: () => window.again,
    /** A picture that shows the time it was drawn at, as 48 black and white cells. */
    clock() {
      const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 360 });
      const paint = canvas.getContext("2d", { alpha: false });
      const draw = () => {
        let time = Math.round(now());
        paint.fillStyle = `hsl(${time % 360} 40% 50%)`;
        paint.fillRect(0, 0, 640, 360);
        for (let cell = 0; cell < CELLS; cell++, time = Math.floor(time / 2)) {
          paint.fillStyle = time % 2 ? "#fff" : "#000";
          paint.fillRect((cell % 12) * 48 + 32, Math.floor(cell / 12) * 48 + 80, 48, 48);
        }
      };
      setInterval(draw, 33);
      return canvas.captureStream(30).getVideoTracks()[0];
    },
    async publish(name) {
      const peer = new RTCPeerConnection();
      const sender = peer.addTransceiver(window.b.clock(), { direction: "sendonly" });
      const codecs = RTCRtpSender.getCapabilities("video").codecs;
      sender.setCodecPreferences(codecs.filter(({ mimeType }) => /H264|rtx/.test(mimeType)));
      await window.b.call("publishStream", crypto.randomUUID(), name, peer);
      window.publisher = peer;
    },
    /** The delays of this many pictures of a track, in milliseconds. */
    async delays(track, count) {
      const reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
      const delays = [];
      while (delays.length < count) {
        const { value: frame } = await reader.read();
        const at = now();
        const { codedWidth: stride } = frame;
        const bytes = new Uint8Array(frame.allocationSize());
        const [plane] = await frame.copyTo(bytes);
        const scale = frame.displayWidth / 640;
        let time = 0;
        for (let cell = CELLS - 1; cell >= 0; cell--) {
          const x = Math.round(((cell % 12) * 48 + 56) * scale);
          const y = Math.round((Math.floor(cell / 12) * 48 + 104) * scale);
          time = time * 2 + (bytes[plane.offset + y * plane.stride + x] > 128 ? 1 : 0);
        }
        frame.close();
        const delay = at - time;
        if (!(delay > -50 && delay < 5000)) throw new Error(`the clock cannot be read: ${time}, it is ${at} (${stride})`);
        delays.push(delay);
      }
      return delays;
    },
    /** Plays until the page is gone. */
    async watch(name) {
      const peer = new RTCPeerConnection();
      peer.addTransceiver("video", { direction: "recvonly" });
      await window.b.call("playStream", crypto.randomUUID(), name, peer);
      window.viewer = peer;
    },
    async watched(name, count) {
      const id = crypto.randomUUID();
      const peer = new RTCPeerConnection();
      const { track } = peer.addTransceiver("video", { direction: "recvonly" }).receiver;
      await window.b.call("playStream", id, name, peer);
      const delays = await window.b.delays(track, count);
      say("stopStream", { mediaSessionId: id, name, published: false });
      peer.close();
      return delays;
    },
    /** The same from one peer to another without a server. */
    async direct(count) {
      const [from, to] = [new RTCPeerConnection(), new RTCPeerConnection()];
      from.onicecandidate = ({ candidate }) => to.addIceCandidate(candidate);
      to.onicecandidate = ({ candidate }) => from.addIceCandidate(candidate);
      const sender = from.addTransceiver(window.b.clock(), { direction: "sendonly" });
      sender.setCodecPreferences(RTCRtpSender.getCapabilities("video").codecs.filter(({ mimeType }) => /H264|rtx/.test(mimeType)));
      const came = new Promise((done) => (to.ontrack = ({ track }) => done(track)));
      await from.setLocalDescription();
      await to.setRemoteDescription(from.localDescription);
      await to.setLocalDescription();
      await from.setRemoteDescription(to.localDescription);
      const delays = await window.b.delays(await came, count);
      from.close();
      to.close();
      return delays;
    },
  };
}

const sorted = (values) => [...values].sort((a, b) => a - b);
const at = (values, share) => sorted(values)[Math.ceil(values.length * share) - 1];
const row = (name, values) => `| ${name} | ${values.length} | ${[0.5, 0.95, 1].map((share) => at(values, share).toFixed(0)).join(" | ")} |`;
const say = (text) => console.error(`bench: ${text}`);

const cleanups = [];
const kept = (thing, stop) => (cleanups.unshift(() => stop(thing)), thing);

async function run() {
  const browser = kept(await startBrowser(), (one) => one.close());
  const weir = kept(await startWeir("publisher_linger=15000"), (one) => one.stop());
  const pages = kept(await servePackages({ "/bench.html": `<!doctype html><script>(${client})()</script>` }), (one) => one.stop());
  const open = async () => {
    const { page } = await openPage(browser, `${pages.url}/bench.html`);
    await page.evaluate((url) => window.b.connect(url), weir.ws);
    return (name, ...args) => page.evaluate(([name, args]) => window.b[name](...args), [name, args]);
  };
  const parts = { publish: publishToPicture, join: firstPictures, delay: delays };
  for (const [name, part] of Object.entries(parts)) {
    if (!ONLY || ONLY === name) await part(weir, open);
  }
}

/** An encoder that sends a file as the stream 0, and when it began to connect. */
function startSender(weir, file) {
  const child = spawn(CLIENTS, ["publish", file, `127.0.0.1:${weir.ports["rtmp.port"]}`, "1"], { stdio: ["ignore", "pipe", "inherit"] });
  const killed = () => child.kill("SIGKILL");
  process.on("exit", killed);
  const ended = new Promise((done) => child.on("exit", () => done(process.off("exit", killed))));
  const began = new Promise((done, failed) => {
    child.stdout.once("data", (line) => done(JSON.parse(String(line).split("\n")[0]).began));
    child.on("error", failed);
  });
  return { began, stop: () => (child.kill(), ended) };
}

async function publishToPicture(weir, open) {
  const clips = kept(await folder(), (one) => one.remove());
  const file = await makeClip(`${clips.path}/medium.flv`, { seconds: 12, size: "1280x720" });
  console.log("| from an encoder's first byte to a picture | times | median, ms | 95 %, ms | slowest, ms |\n|---|---|---|---|---|");
  const viewer = await open();
  const asks = [];
  for (let join = 0; join < JOINS; join++) {
    const seen = viewer("awaited", "0");
    await sleep(200 + Math.random() * 200);
    const sender = startSender(weir, file);
    asks.push((await seen) - (await sender.began));
    await sender.stop();
    await weir.rest("stream/terminate", { name: "0" });
  }
  console.log(row("a viewer asks until there is a stream", asks));

  const waits = [];
  let sender = startSender(weir, file);
  await until("it is published", () => weir.rest("stream/find", { name: "0", status: "PUBLISHING" }));
  await viewer("following", "0");
  await until("a picture", () => viewer("newest"));
  for (let join = 0; join < JOINS; join++) {
    await sender.stop();
    await until("the picture stands still", async () => performance.timeOrigin + performance.now() - (await viewer("newest")) > 700);
    const before = await viewer("again");
    sender = startSender(weir, file);
    const again = await until("the picture goes on", async () => {
      const now = await viewer("again");
      return now !== before && now;
    });
    waits.push(again - (await sender.began));
  }
  await sender.stop();
  console.log(`${row("a viewer waits for an encoder that comes back", waits)}\n`);
}

async function firstPictures(weir, open) {
  console.log("| first picture | joins | median, ms | 95 %, ms | slowest, ms |\n|---|---|---|---|---|");
  for (const [gop, seconds] of [[50, 2], [250, 10]]) {
    const name = `gop-${seconds}`;
    const encoder = startEncoder(weir.rtmp(name), gop);
    try {
      await until("the encoder publishes", () => weir.rest("stream/find", { name, status: "PUBLISHING" }));
      await sleep(3000);
      const viewer = await open();
      // The first viewer of a stream starts its payloader, which ends with the last: every join here is a first one.
      const alone = [];
      for (let join = 0; join < JOINS; join++) {
        alone.push(await viewer("firstPicture", name));
        await sleep(300 + Math.random() * 700);
        await until("the payloader ends", async () => !JSON.stringify(await weir.rest("pipelines")).includes("play-webrtc"));
      }
      console.log(row(`a keyframe every ${seconds} s, first viewer`, alone));
      const other = await open();
      await other("watch", name);
      const later = [];
      await sleep(500);
      for (let join = 0; join < JOINS; join++) {
        later.push(await viewer("firstPicture", name));
        await sleep(300 + Math.random() * 700);
      }
      console.log(row(`a keyframe every ${seconds} s, later viewer`, later));
    } finally {
      await encoder.stop();
    }
  }

}

async function delays(weir, open) {
  console.log("\n| delay of pictures | pictures | median, ms | 95 %, ms | slowest, ms |\n|---|---|---|---|---|");
  const publisher = await open();
  await publisher("publish", "clock");
  await until("the browser publishes", () => weir.rest("stream/find", { name: "clock", status: "PUBLISHING" }));
  // The first seconds are the bandwidth estimate's, and the jitter buffer's.
  await sleep(5000);
  const [through, direct] = [[], []];
  for (let round = 0; round < ROUNDS; round++) {
    say(`delay, round ${round + 1} of ${ROUNDS}`);
    const viewer = await open();
    through.push((await viewer("watched", "clock", PICTURES + 60)).slice(60));
    const alone = await open();
    direct.push((await alone("direct", PICTURES + 60)).slice(60));
  }
  console.log(row("through weir", through.flat()));
  console.log(row("from browser to browser", direct.flat()));
  const added = sorted(through.map((delays, round) => at(delays, 0.5) - at(direct[round], 0.5)));
  console.log(`\nadded by weir: ${added.map((ms) => ms.toFixed(0)).join(", ")} ms (difference of the medians, each round)`);
}

try {
  await run();
} finally {
  for (const cleanup of cleanups) await cleanup();
}
process.exit(0);
