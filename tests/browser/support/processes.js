// Real processes on free ports: weir, nginx with its RTMP module, ffmpeg. Each ends with the test that started it.
import { spawn, execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
/** The program under test; WEIR_PROGRAM names another. */
const WEIR = process.env.WEIR_PROGRAM ?? resolve(ROOT, process.env.CARGO_TARGET_DIR ?? "target", "debug", "weir");
const NGINX_RTMP = "/usr/lib/nginx/modules/ngx_rtmp_module.so";

export const run = promisify(execFile);
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Waits until `look` gives something that is not nothing; a failure names what was waited for. */
export async function until(what, look, limit = 60_000) {
  const deadline = Date.now() + limit;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited ${limit} ms for: ${what}`);
    await sleep(50);
  }
}

export async function folder() {
  const path = await mkdtemp(join(tmpdir(), "weir-browser-"));
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

/**
 * A port that nobody has at this moment. Not one of those that the kernel gives to whoever asks for any: what runs beside
 * the test cannot be given it before the test takes it.
 */
export async function freePort() {
  for (;;) {
    const port = 15_000 + Math.floor(Math.random() * 15_000);
    const free = await new Promise((done) => {
      const server = createServer().on("error", () => done(false));
      server.listen(port, "127.0.0.1", () => server.close(() => done(true)));
    });
    if (free) return port;
  }
}

/** Starts a program; `end` asks it to end and makes sure of it. Its last words are in `log()`. */
function start(program, args, options = {}) {
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"], ...options });
  let log = "";
  child.stderr.on("data", (text) => (log = (log + text).slice(-200_000)));
  const ended = new Promise((done) => {
    child.on("exit", (code, signal) => done(code ?? signal));
    child.on("error", (error) => done((log += error.message)));
  });
  // A test that dies takes its processes along.
  const killed = () => child.kill("SIGKILL");
  process.on("exit", killed);
  return {
    child,
    log: () => log,
    ended,
    alive: () => child.exitCode === null && child.signalCode === null && child.pid !== undefined,
    async end(patience = 10_000) {
      child.kill("SIGTERM");
      const late = setTimeout(killed, patience);
      const status = await ended;
      clearTimeout(late);
      process.off("exit", killed);
      return status;
    },
  };
}

/** A weir of its own: data, recordings and ports that nothing else uses. What begins with -- is an argument, with its value next. */
export async function startWeir(...settings) {
  const more = settings[0]?.startsWith("--") ? settings.splice(0, 2) : [];
  const home = await folder();
  const sets = ["http.port=0", "ws.port=0", "webrtc.port=0", "rtmp.port=0", "ssh.port=0", "publisher_linger=0", "https.port=0", "wss.port=0", "ip_local=127.0.0.1", `record_dir=${home.path}/records`, ...settings];
  const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(WEIR|GST)_/.test(name)));
  const weir = start(WEIR, ["serve", "--data", `${home.path}/data`, ...sets.flatMap((set) => ["--set", set]), ...more], {
    cwd: home.path,
    env: { ...environment, NO_COLOR: "1" },
  });
  const ports = await until(`weir listens\n${weir.log()}`, async () => {
    if (!weir.alive()) throw new Error(`weir has ended:\n${weir.log()}`);
    return JSON.parse(await readFile(`${home.path}/data/ports.json`, "utf8").catch(() => "null"));
  });
  const http = `http://127.0.0.1:${ports["http.port"]}`;
  return {
    http,
    ws: `ws://127.0.0.1:${ports["ws.port"]}`,
    wss: `wss://127.0.0.1:${ports["wss.port"]}`,
    https: `https://127.0.0.1:${ports["https.port"]}`,
    ports,
    rtmp: (name) => `rtmp://127.0.0.1:${ports["rtmp.port"]}/live/${name}`,
    records: `${home.path}/records`,
    log: weir.log,
    /** A line of the command line. */
    ctl: (line) => run(WEIR, ["ctl", "--data", `${home.path}/data`, line]),
    /** A REST call: GET without fields, POST with them. Nothing found is null. */
    async rest(path, fields) {
      const options = fields && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(fields) };
      const response = await fetch(`${http}/rest-api/${path}`, options);
      if (response.status === 404) return null;
      const text = await response.text();
      if (!response.ok) throw new Error(`${path}: ${response.status} ${text}`);
      return text ? JSON.parse(text) : {};
    },
    /** Ends it in order; anything but an orderly end is a failure. */
    async stop() {
      const status = await weir.end(20_000);
      await home.remove();
      if (status !== 0) throw new Error(`weir ended with ${status}:\n${weir.log()}`);
    },
  };
}

/** nginx with its RTMP module, for sources. Gives the address of a stream by its name. */
export async function startNginx() {
  const home = await folder();
  const port = await freePort();
  await writeFile(`${home.path}/nginx.conf`, `
load_module ${NGINX_RTMP};
daemon off;
master_process off;
pid ${home.path}/nginx.pid;
error_log stderr warn;
events {}
rtmp {
  access_log off;
  server {
    listen 127.0.0.1:${port};
    chunk_size 4096;
    application live { live on; }
  }
}`);
  const nginx = start("nginx", ["-p", home.path, "-e", "stderr", "-c", `${home.path}/nginx.conf`]);
  await until("nginx listens", async () => {
    if (!nginx.alive()) throw new Error(`nginx has ended:\n${nginx.log()}`);
    return readFile(`${home.path}/nginx.pid`, "utf8").catch(() => "");
  });
  return {
    uri: (name) => `rtmp://127.0.0.1:${port}/live/${name}`,
    async stop() {
      await nginx.end();
      await home.remove();
    },
  };
}

/**
 * A moving picture and a tone, H.264 without B-frames and AAC, as an encoder sends them to an RTMP server; 25 pictures a
 * second, a keyframe every `gop` of them.
 */
export function startEncoder(uri, gop = 25, ...more) {
  const ffmpeg = start("ffmpeg", [
    "-nostdin", "-hide_banner", "-loglevel", "warning", "-re",
    "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25",
    "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100",
    "-c:v", "libx264", "-preset", "ultrafast", "-profile:v", "baseline", "-pix_fmt", "yuv420p", "-g", `${gop}`, "-sc_threshold", "0", "-b:v", "800k",
    "-c:a", "aac", "-b:a", "96k", ...more, "-f", "flv", uri,
  ]);
  return { stop: () => ffmpeg.end(), log: ffmpeg.log };
}

/** The first tenth of each second. */
const BEEP = "if(lt(mod(t,1),0.1),0.5*sin(2*PI*1000*t),0)";

/**
 * A clip of pictures 25 times a second, each with its number (modulo 65536) in its top as sixteen bars, the lowest bit
 * first; below it is white for the first tenth of each second, while the sound is a beep, and black otherwise.
 */
export async function makeClip(file, { seconds = 20, size = "640x360", video = ["-bf", "0"], audio = ["-ar", "44100", "-ac", "2"], options = [] } = {}) {
  const [width, height] = size.split("x").map(Number);
  const [bars, rest] = [Math.ceil(height / 16), height - Math.ceil(height / 16)];
  const bit = `mod(floor(N/pow(2,floor(X*16/${width}))),2)`;
  await run("ffmpeg", [
    "-nostdin", "-v", "error", "-y",
    "-f", "lavfi", "-i", `color=black:s=${width}x${bars}:r=25,format=yuv420p,geq=lum='if(${bit},235,16)':cb=128:cr=128`,
    "-f", "lavfi", "-i", `color=black:s=${width}x${rest}:r=25,format=yuv420p,drawbox=c=white:t=fill:enable='lt(mod(t,1),0.0999)'`,
    "-f", "lavfi", "-i", `aevalsrc='${BEEP}':s=48000`,
    "-filter_complex", "[0][1]vstack", "-t", String(seconds),
    "-c:v", "libx264", "-preset", "veryfast", "-g", "50", "-sc_threshold", "0", "-b:v", "600k", "-pix_fmt", "yuv420p", ...video,
    "-c:a", "aac", "-b:a", "64k", ...audio, ...options, "-f", "flv", file,
  ]);
  return file;
}

/** The same with its pictures in H.265, B-frames among them, as Matroska. */
export async function inH265(clip) {
  const file = clip.replace(/\.flv$/, ".mkv");
  const x265 = ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "bframes=2:keyint=50:log-level=none"];
  await run("ffmpeg", ["-nostdin", "-v", "error", "-y", "-i", clip, ...x265, "-c:a", "copy", file]);
  return file;
}

/** Copies a clip with its pictures as they are, and its beeps encoded anew. */
export async function changeSound(from, to, audio) {
  const beeps = ["-f", "lavfi", "-i", `aevalsrc='${BEEP}':s=48000`];
  await run("ffmpeg", ["-nostdin", "-v", "error", "-y", "-i", from, ...beeps, "-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac", ...audio, "-shortest", "-f", "flv", to]);
  return to;
}

/** Copies a clip with its pictures as they are, and a sound as it is. */
export async function layUnder(from, to, sound) {
  await run("ffmpeg", ["-nostdin", "-v", "error", "-y", "-i", from, "-i", sound, "-map", "0:v", "-map", "1:a", "-c", "copy", "-f", "flv", to]);
  return to;
}

/** Copies an FLV file with other bodies of its tags: `change` gets a type (8 sound, 9 pictures), milliseconds and a body. */
export async function changeClip(from, to, change) {
  const bytes = await readFile(from);
  const changed = tags(bytes).map((one) => tag({ ...one, body: change(one.type, one.time, one.body) }));
  await writeFile(to, Buffer.concat([bytes.subarray(0, 13), ...changed]));
  return to;
}

/** The tags of an FLV file: 8 is sound, 9 pictures, 18 what is said about both. */
function tags(bytes) {
  const found = [];
  for (let at = 13; at + 11 < bytes.length; ) {
    const length = bytes.readUIntBE(at + 1, 3);
    const time = bytes.readUIntBE(at + 4, 3) + bytes[at + 7] * 2 ** 24;
    found.push({ type: bytes[at], time, body: Buffer.from(bytes.subarray(at + 11, at + 11 + length)) });
    at += 11 + length + 4;
  }
  return found;
}

function tag({ type, time, body }) {
  const head = Buffer.alloc(11);
  head[0] = type;
  head.writeUIntBE(body.length, 1, 3);
  head.writeUIntBE(time % 2 ** 24, 4, 3);
  head[7] = time / 2 ** 24;
  const end = Buffer.alloc(4);
  end.writeUInt32BE(body.length + 11);
  return Buffer.concat([head, body, end]);
}

/** The parameter sets of a sequence header of H.264, as they stand in a picture: each behind its length in four bytes. */
function parameterSets(body) {
  const sets = [];
  let at = 10;
  for (const kind of ["sps", "pps"]) {
    for (let left = body[at++] & (kind === "sps" ? 0x1f : 0xff); left > 0; left--) {
      const length = body.readUInt16BE(at);
      sets.push(Buffer.from([0, 0, length >> 8, length & 0xff]), body.subarray(at + 2, at + 2 + length));
      at += 2 + length;
    }
  }
  return Buffer.concat(sets);
}

/**
 * Sends clips one behind the other in real time, on one clock and in one stream: what follows the first brings its
 * parameter sets in its keyframes. `next` goes on to the next one at the keyframe that comes, whatever is left of this one.
 */
export async function startParts(files, uri) {
  const clips = await Promise.all(files.map((file) => readFile(file)));
  const ffmpeg = start("ffmpeg", ["-nostdin", "-v", "error", "-f", "flv", "-i", "pipe:0", "-c", "copy", "-f", "flv", uri], {
    stdio: ["pipe", "ignore", "pipe"],
  });
  const pipe = ffmpeg.child.stdin.on("error", () => {});
  let wanted = 0;
  const began = Date.now();
  const send = async () => {
    pipe.write(clips[0].subarray(0, 13));
    let offset = 0;
    for (const [number, clip] of clips.entries()) {
      let [last, sets] = [0, null];
      for (const one of tags(clip)) {
        const [header, keyframe] = [0, 1].map((type) => one.type === 9 && one.body[0] >> 4 === 1 && one.body[1] === type);
        last = one.time;
        if (keyframe && wanted > number) break;
        if (header) sets = parameterSets(one.body);
        if (number > 0 && (header || one.type === 18)) continue;
        if (number > 0 && keyframe) one.body = Buffer.concat([one.body.subarray(0, 5), sets, one.body.subarray(5)]);
        const time = offset + one.time;
        await sleep(Math.max(0, began + time - Date.now()));
        if (!ffmpeg.alive()) return;
        pipe.write(tag({ ...one, time }));
      }
      offset += last;
    }
    pipe.end();
  };
  const sent = send();
  return {
    next: () => wanted++,
    async stop() {
      await ffmpeg.end();
      await sent;
    },
  };
}

/** Sends a clip in real time, as it is. */
export function startClip(file, uri, ...more) {
  const ffmpeg = start("ffmpeg", ["-nostdin", "-v", "error", "-re", ...more, "-i", file, "-c", "copy", "-f", "flv", "-flvflags", "no_duration_filesize", uri]);
  return { stop: () => ffmpeg.end(), ended: ffmpeg.ended, log: ffmpeg.log };
}

/** A camera that plays a clip in real time, from its beginning for the first who asks: H.264 in FLV, H.265 in Matroska. */
export async function startCamera(file) {
  const flv = file.endsWith(".flv");
  const [demuxer, video, codec] = flv ? ["flvdemux", "video", "h264"] : ["matroskademux", "video_0", "h265"];
  const launch = `filesrc location=${file} ! ${demuxer} name=d d.${video} ! queue ! ${codec}parse ! rtp${codec}pay name=pay0 pt=96 config-interval=-1 `
    + `d.${flv ? "audio" : "audio_0"} ! queue ! aacparse ! rtpmp4gpay name=pay1 pt=97`;
  const program = resolve(ROOT, "tests/suite/support/rtsp_server.py");
  const port = await freePort();
  // Debian's own: another Python that comes first in the path has no GStreamer.
  const server = start("/usr/bin/python3", [program, "--port", String(port), `/cam=${launch}`]);
  await until("the camera listens", () => new Promise((done) => {
    const socket = connect(port, "127.0.0.1", () => done(socket.destroy())).on("error", () => done(false));
  }));
  return { uri: `rtsp://127.0.0.1:${port}/cam`, stop: () => server.end() };
}

/** The same with a clock that jumps ahead by an hour after some milliseconds. */
export function startJumpingClip(file, uri, after) {
  const clock = `setts=ts=if(gte(TS\\,${after})\\,TS+3600000\\,TS)`;
  const ffmpeg = start("ffmpeg", ["-nostdin", "-v", "error", "-re", "-i", file, "-c", "copy", "-bsf:v", clock, "-bsf:a", clock, "-f", "flv", uri]);
  return { stop: () => ffmpeg.end(), ended: ffmpeg.ended, log: ffmpeg.log };
}

/** How much later the sound of a recorded clip is than its picture, milliseconds, for each flash with a beep. */
export async function offsetsOf(file) {
  const read = async (...filter) => {
    const { stdout, stderr } = await run("ffmpeg", ["-nostdin", "-hide_banner", "-v", "info", "-i", file, ...filter, "-f", "null", "-"], { maxBuffer: 1 << 26 });
    return stdout + stderr;
  };
  const levels = await read("-an", "-fps_mode", "passthrough", "-vf", "crop=iw:ih/2:0:ih/2,signalstats,metadata=print:key=lavfi.signalstats.YAVG:file=-");
  const bright = [...levels.matchAll(/pts_time:([\d.]+)\s+lavfi\.signalstats\.YAVG=([\d.]+)/g)].map(([, at, level]) => ({ at: Number(at), bright: Number(level) > 128 }));
  const flashes = bright.filter((one, at) => at > 0 && one.bright && !bright[at - 1].bright).map(({ at }) => at);
  const silences = await read("-vn", "-af", "silencedetect=n=-24dB:d=0.3");
  const beeps = [...silences.matchAll(/silence_end: ([\d.]+)/g)].map(([, at]) => Number(at));
  return flashes.flatMap((flash) => {
    const beep = beeps.find((beep) => Math.abs(beep - flash) < 0.45);
    return beep === undefined ? [] : [Math.round((beep - flash) * 1000)];
  });
}

/** The pitch of a file's beeps, Hz: how often they rise over nothing. */
export async function pitchOf(file) {
  const raw = ["-vn", "-ac", "1", "-ar", "48000", "-f", "f32le", "-"];
  const { stdout } = await run("ffmpeg", ["-nostdin", "-v", "error", "-i", file, ...raw], { encoding: "buffer", maxBuffer: 1 << 28 });
  const samples = new Float32Array(stdout.buffer.slice(stdout.byteOffset, stdout.byteOffset + (stdout.length & ~3)));
  const pitches = [];
  let [rises, low, began, last] = [0, false, 0, -4800];
  samples.forEach((sample, at) => {
    if (sample < -0.05) low = true;
    if (low && sample > 0.05) {
      if (at - last > 960) {
        if (rises > 50) pitches.push((rises * 48000) / (last - began));
        [rises, began] = [0, at];
      } else rises += 1;
      [low, last] = [false, at];
    }
  });
  return pitches.sort((a, b) => a - b)[pitches.length >> 1];
}

/** Decodes a whole file and counts; an error anywhere in it is a failure. */
export async function decoded(file) {
  // In the file's own time base: a browser's frames come when they come, and a frame rate guessed from them makes two of
  // them one.
  const own = ["-enc_time_base", "-1"];
  const { stderr } = await run("ffmpeg", ["-nostdin", "-v", "error", "-xerror", "-i", file, ...own, "-f", "null", "-"]);
  if (stderr.trim()) throw new Error(`ffmpeg on ${file}: ${stderr}`);
  const { stdout } = await run("ffprobe", ["-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json", file]);
  const { streams, format } = JSON.parse(stdout);
  const track = (kind) => {
    const stream = streams.find((one) => one.codec_type === kind);
    return stream && { codec: stream.codec_name, frames: Number(stream.nb_read_frames), width: stream.width };
  };
  return { video: track("video"), audio: track("audio"), seconds: Number(format.duration) };
}
