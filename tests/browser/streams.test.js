// Streams as encoders send them, in a browser: what is seen and heard, by what was drawn and played.
import assert from "node:assert/strict";
import { mkdir, readdir, writeFile } from "node:fs/promises";
import { basename } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { startBrowser } from "./support/browser.js";
import { changeClip, changeSound, decoded, folder, freePort, inH265, layUnder, makeClip, offsetsOf, pitchOf, startCamera, startClip, startJumpingClip, startParts, sleep, startNginx, startWeir, until } from "./support/processes.js";
import { serveSdk } from "./support/sdk.js";

let browser, weir, sdk, clips;
let open = [];

before(async () => {
  browser = await startBrowser();
  weir = await startWeir("record_flash_published_streams=true", "stream_record_policy=streamName");
  sdk = await serveSdk(weir.ws);
  clips = await folder();
});

after(async () => {
  await browser?.close();
  await sdk?.stop();
  await weir?.stop();
  await clips?.remove();
});

afterEach(async () => {
  for (const one of open.reverse()) await one();
  open = [];
});

/** A clip that is made once, whoever asks for it. */
const made = new Map();
const clip = (name, options) => {
  if (!made.has(name)) made.set(name, makeClip(`${clips.path}/${name}.flv`, options));
  return made.get(name);
};
const B_FRAMES = ["-bf", "3", "-b_strategy", "0"];
const plain = () => clip("plain", { seconds: 30 });
const withB = () => clip("b-frames", { seconds: 40, video: B_FRAMES });

/** A page that plays a stream of a server, and what it has seen. */
async function viewer(name, server = weir) {
  const page = await sdk.open(browser);
  open.push(() => page.close());
  await page.call("connect", server.ws);
  await page.call("start", "play", "in", { name });
  await until(`${name} plays`, async () => {
    const [status, info] = (await page.call("statuses", "in")).at(-1) ?? [];
    assert.notEqual(status, "FAILED", info);
    return status === "PLAYING";
  });
  await until(`${name} has a picture`, () => page.call("picture", "in"));
  await page.call("watch", "in");
  return { ...page, seen: () => page.call("seen", "in") };
}

async function publish(file, name, server = weir, ...options) {
  const encoder = startClip(file, server.rtmp(name), ...options);
  open.push(() => encoder.stop());
  await until(`${name} is published`, () => server.rest("stream/find", { name, status: "PUBLISHING", published: true }));
  return encoder;
}

/** The pictures were shown in their order, and all came, whatever a browser that is busy with other tests has shown of them. */
async function smooth(one, seen) {
  const steps = seen.slice(1).map(({ number }, at) => number - seen[at].number);
  const [back, missing] = [steps.filter((step) => step < 0).length, steps.filter((step) => step > 1).reduce((sum, step) => sum + step - 1, 0)];
  const all = seen.at(-1).number - seen[0].number + 1;
  const arrived = await one.call("arrived", "in");
  console.log(`${seen.length} pictures shown, ${missing} of ${all} left out, ${back} steps back, ${arrived} arrived`);
  assert.equal(back, 0, "a picture was shown after a later one");
  assert.ok(arrived > 0.9 * all, `${arrived} of ${all} pictures came`);
}

/** The pictures of some milliseconds. */
const pictures = (one, ms) => until(`pictures for ${ms} ms`, async () => {
  const seen = await one.seen();
  return seen.length > 1 && seen.at(-1).at - seen[0].at > ms && seen;
}, ms + 30_000);

const finished = async () => (await readdir(weir.records)).filter((name) => name.endsWith(".mp4"));

const renditions = async (name, server = weir) => (await server.rest("stream/find", { name, published: true }))?.[0].renditions;

const running = async (server) => (await server.rest("pipelines")).map(({ template }) => template).sort().join();

it("shows B-frames in their order, and encodes anew only while a browser watches", async () => {
  await publish(await withB(), "b");
  assert.deepEqual(await renditions("b"), []);
  const first = await viewer("b");
  const second = await viewer("b");
  await until("its renditions", async () => (await renditions("b")).sort().join() === "H264 with B-frames to H264,mpeg4-generic to opus");
  for (const one of [first, second]) {
    await smooth(one, await pictures(one, 6000));
  }
  await until("one pipeline for both", async () => (await running(weir)) === "ingest-rtmp,play-webrtc,record-mp4,transcode-x264");
  for (const one of [first, second]) await one.call("stop", "in");
  await until("the rendition has ended", async () => !(await renditions("b")).length);
});

it("shows the B-frames of a pulled stream in their order", async () => {
  const nginx = await startNginx();
  open.push(() => nginx.stop());
  const encoder = startClip(await withB(), nginx.uri("b"));
  open.push(() => encoder.stop());
  const one = await viewer(nginx.uri("b"));
  await smooth(one, await pictures(one, 4000));
  await weir.rest("pull/rtmp/terminate", { uri: nginx.uri("b") });
});

it("shows a camera that is asked for by its address, B-frames or not", async () => {
  for (const film of [plain, withB]) {
    const camera = await startCamera(await film());
    open.push(() => camera.stop());
    const one = await viewer(camera.uri);
    const before = (await one.call("received")).energy;
    await smooth(one, await pictures(one, 4000));
    await until("it is heard", async () => (await one.call("received")).energy > before);
    const [agent] = await weir.rest("rtsp/find", { uri: camera.uri });
    assert.equal(agent.status, "PLAYING");
    await weir.rest("rtsp/terminate", { uri: camera.uri });
  }
});

it("shows a camera's H.265 in its order, encoded anew once for all who watch", async () => {
  const camera = await startCamera(await inH265(await makeClip(`${clips.path}/h265.flv`, { seconds: 30, size: "480x272" })));
  open.push(() => camera.stop());
  const first = await viewer(camera.uri);
  const second = await viewer(camera.uri);
  const before = (await first.call("received")).energy;
  for (const one of [first, second]) await smooth(one, await pictures(one, 4000));
  await until("it is heard", async () => (await first.call("received")).energy > before);
  const [stream] = await weir.rest("stream/find", { name: camera.uri, published: true });
  assert.equal(stream.videoCodec, "H265");
  assert.deepEqual(stream.renditions.sort(), ["H265 to H264", "mpeg4-generic to opus"]);
  const encoders = (await weir.rest("pipelines")).filter(({ template }) => template.startsWith("transcode-"));
  assert.equal(encoders.length, 1);
  await weir.rest("rtsp/terminate", { uri: camera.uri });
});

it("tells who asks for a camera why there is none", async () => {
  const camera = await startCamera(await plain());
  open.push(() => camera.stop());
  const page = await sdk.open(browser);
  open.push(() => page.close());
  await page.call("connect", weir.ws);
  for (const [name, info] of [
    [camera.uri.replace("/cam", "/nothing"), "Rtsp stream not found"],
    [`rtsp://127.0.0.1:${await freePort()}/cam`, "Failed to connect to rtsp stream"],
    ["rtsp:///cam", "Rtsp has wrong format"],
    ["rtps://127.0.0.1/cam", "Failed to get agent storage"],
  ]) {
    await page.call("start", "play", name, { name });
    await until(`${name} fails`, async () => (await page.call("statuses", name)).at(-1)?.[0] === "FAILED");
    assert.equal((await page.call("statuses", name)).at(-1)[1], info);
  }
});

it("takes openh264 where x264 is not installed", async () => {
  const templates = `${clips.path}/templates`;
  await mkdir(templates, { recursive: true });
  await writeFile(`${templates}/transcode-x264.launch`, "[video] {video_in} ! nosuchthing bitrate={kbps} name=pictures ! {video_out}");
  const other = await startWeir("--pipelines", templates);
  try {
    await publish(await withB(), "b", other);
    const one = await viewer("b", other);
    await smooth(one, await pictures(one, 5000));
    assert.equal(await running(other), "ingest-rtmp,play-webrtc,transcode-openh264");
  } finally {
    for (const one of open.splice(0).reverse()) await one();
    await other.stop();
  }
});

it("goes on when B-frames come later, and when the picture changes its size", async () => {
  const parts = [
    await makeClip(`${clips.path}/part1.flv`, { seconds: 20, video: ["-bf", "0"] }),
    await makeClip(`${clips.path}/part2.flv`, { seconds: 20, size: "960x544", video: ["-bf", "0"] }),
    await makeClip(`${clips.path}/part3.flv`, { seconds: 20, size: "960x544", video: B_FRAMES }),
    await makeClip(`${clips.path}/part4.flv`, { seconds: 20, size: "480x272", video: B_FRAMES }),
  ];
  const encoder = await startParts(parts, weir.rtmp("later"));
  open.push(() => encoder.stop());
  await until("later is published", () => weir.rest("stream/find", { name: "later", status: "PUBLISHING", published: true }));
  const one = await viewer("later");
  const carried = async (width, transcoded) => {
    await until(`a picture ${width} wide`, async () => (await one.seen()).at(-1)?.width === width);
    const wanted = ["mpeg4-generic to opus", ...(transcoded ? ["H264 with B-frames to H264"] : [])].sort().join();
    await until(`the renditions ${wanted}`, async () => (await renditions("later")).sort().join() === wanted);
    await one.call("watch", "in");
    const seen = await pictures(one, 3000);
    await smooth(one, seen);
    assert.equal(seen.at(-1).width, width);
  };
  await carried(640, false);
  encoder.next();
  await carried(960, false);
  encoder.next();
  await carried(960, true);
  encoder.next();
  await carried(480, true);
  assert.equal((await weir.rest("stream/find", { name: "later", published: true }))[0].width, 480);
  await encoder.stop();
  const files = await until("a part for each size", async () => {
    const files = (await finished()).filter((name) => name.startsWith("later"));
    return files.length === 3 && files;
  });
  const films = await Promise.all(files.sort().map((name) => decoded(`${weir.records}/${name}`)));
  console.log("recorded", films.map(({ video, seconds }) => `${video.width} wide, ${video.frames} pictures, ${seconds} s`).join("; "));
  assert.deepEqual(films.map(({ video }) => video.width).sort(), [480, 640, 960]);
});

/** How much later a beep is heard than its flash is seen, milliseconds, for each pair; and what the browser knows of that. */
function offsets(flashes, heard) {
  const beeps = heard.filter(({ loud }) => loud).map(({ at }) => at);
  return flashes.flatMap(({ at, known }) => {
    const beep = beeps.find((beep) => Math.abs(beep - at) < 450);
    return beep === undefined ? [] : [{ late: Math.round(beep - at), known: Math.round(known) }];
  });
}

const written = (offsets) => offsets.map(({ late, known }) => `${late} (${known})`).join();

const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];

/** AAC as encoders send it, and what becomes of it on the way: `change` gets the tag's body and the number of the frame. */
const damaged = (body, frame) => {
  // Frame 0 is the configuration. One is noise, one is cut, one is empty, one begins with a null and what WCS dropped.
  if (frame > 20 && frame % 23 === 0) return Buffer.concat([body.subarray(0, 2), Buffer.from(body.subarray(2).map((byte, at) => byte ^ (at * 37)))]);
  if (frame > 20 && frame % 29 === 0) return body.subarray(0, 2 + (body.length >> 2));
  if (frame > 20 && frame % 31 === 0) return body.subarray(0, 2);
  if (frame > 20 && frame % 37 === 0) return Buffer.concat([body.subarray(0, 2), Buffer.from("00119056e500", "hex"), body.subarray(2)]);
  return body;
};
const described = (config) => (body, frame) => (frame === 0 ? Buffer.concat([body.subarray(0, 2), Buffer.from(config, "hex")]) : body);
const SOUNDS = {
  ...Object.fromEntries([8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000].flatMap((rate) =>
    [1, 2].map((channels) => [`${rate}-${channels}`, { rate, channels }]))),
  // HE-AAC whose configuration says nothing of it, says it, and says it behind what older decoders read; then v2, which is
  // one channel where nothing is said. Half the rate would be half the pitch.
  "he-aac": { sound: "he-aac.aac" },
  "he-aac-said": { sound: "he-aac.aac", change: described("2b118800") },
  "he-aac-added": { sound: "he-aac.aac", change: described("131056e598") },
  "he-aac-v2": { sound: "he-aac-v2.aac" },
  "he-aac-v2-said": { sound: "he-aac-v2.aac", change: described("eb098800") },
  // What the configuration calls stereo begins with the element of one channel, type 0.
  "mono-called-stereo": { rate: 44100, channels: 1, change: described("1210") },
  damaged: { rate: 44100, channels: 2, change: damaged },
};

/** A clip of that sound over the pictures of `film`. */
async function soundClip(name, film) {
  const { rate, channels, sound, change } = SOUNDS[name];
  const file = `${clips.path}/${name}-over-${basename(film)}`;
  if (sound) await layUnder(film, file, new URL(`sounds/${sound}`, import.meta.url).pathname);
  else await changeSound(film, file, ["-ar", String(rate), "-ac", String(channels), "-b:a", `${Math.max(24, rate / 1000)}k`]);
  if (!change) return file;
  let frame = 0;
  return changeClip(file, `${clips.path}/changed-${basename(file)}`, (type, _, body) => (type === 8 ? change(body, frame++) : body));
}

describe("sound", () => {
  // They are watched beside the other tests: what parts slowly needs its minute.
  const LONG = ["11025-1", "damaged"];
  const [encoders, longer] = [{}, {}];
  let long;

  before(async () => {
    const film = await clip("long", { seconds: 105, size: "160x96", options: ["-an"] });
    long = await sdk.open(browser);
    await long.call("connect", weir.ws);
    for (const name of LONG) {
      longer[name] = startClip(await soundClip(name, film), weir.rtmp(`long-${name}`));
      await play(long, name, `long-${name}`);
    }
  });

  after(async () => {
    await long?.close();
    for (const encoder of [encoders, longer].flatMap(Object.values)) await encoder.stop();
  });

  async function play(page, key, name) {
    await until(`${name} is published`, () => weir.rest("stream/find", { name, status: "PUBLISHING", published: true }));
    await page.call("start", "play", key, { name });
    await until(`${name} has a picture`, () => page.call("picture", key));
    await page.call("listen", key);
  }

  for (const names of Array.from({ length: 3 }, (_, at) => Object.keys(SOUNDS).slice(at * 9, at * 9 + 9))) {
    it(`plays AAC: ${names.join(", ")}`, async () => {
      const film = await clip("short", { seconds: 16, size: "320x192", options: ["-an"] });
      const page = await sdk.open(browser);
      open.push(() => page.close());
      await page.call("connect", weir.ws);
      for (const name of names) {
        encoders[name] = startClip(await soundClip(name, film), weir.rtmp(name));
        await play(page, name, name);
      }
      for (const name of names) {
        let heard;
        const beeps = await until(`five beeps of ${name}`, async () => {
          heard = await page.call("heard", name);
          const beeps = heard.slice(1).flatMap(({ loud, at }, before) => (loud ? [] : [at - heard[before].at]));
          return beeps.length >= 5 && beeps;
        });
        console.log(name, "beeps of", beeps.map(Math.round).join(), "ms, late by", written(offsets(await page.call("flashes", name), await page.call("heard", name))), "ms");
        assert.ok(Math.abs(median(beeps) - 100) < 50, `${name}: beeps of ${beeps} ms`);
        const pitches = heard.flatMap(({ loud, pitch }) => (loud ? [] : [Math.round(pitch)]));
        console.log(name, "sounds at", pitches.join(), "Hz");
        assert.ok(Math.abs(median(pitches) - 1000) < 50, `${name}: ${pitches} Hz`);
      }
    });
  }

  /** How much later than its picture the sound of a finished recording is. */
  const recorded = async (name) => {
    const file = await until(`${name} is recorded`, async () => (await finished()).find((file) => file === `${name}.mp4`));
    const late = await offsetsOf(`${weir.records}/${file}`);
    console.log(name, "recorded, late by", late.join(), "ms");
    assert.ok(late.every((ms) => Math.abs(ms) < 60), `${name}: ${late}`);
    return late.length;
  };

  it("records all of them", async () => {
    for (const name of Object.keys(SOUNDS)) {
      const beeps = await recorded(name);
      assert.ok(beeps >= (name === "damaged" ? 8 : 13), `${name}: ${beeps} beeps`);
      const pitch = Math.round(await pitchOf(`${weir.records}/${name}.mp4`));
      console.log(name, "recorded at", pitch, "Hz");
      assert.ok(Math.abs(pitch - 1000) < 50, `${name}: ${pitch} Hz`);
    }
  });

  it("keeps sound and picture together for more than a minute, 11025 Hz and damaged frames included", async () => {
    for (const name of LONG) {
      const late = await until(`more than a minute of ${name}`, async () => {
        const flashes = await long.call("flashes", name);
        const late = flashes.filter(({ at }) => at - flashes[0].at > 60_000);
        const both = offsets(late, await long.call("heard", name));
        return both.length >= 9 && both;
      }, 110_000);
      console.log(name, "after a minute late by (and known to the browser)", written(late), "ms");
      // On a busy machine the browser's sound waits for what comes late, and its picture follows by some tens of
      // milliseconds a second. It knows how far it is with that; what it does not know of is what was sent apart.
      const unknown = late.map(({ late, known }) => late - known).filter((ms) => !Number.isNaN(ms));
      assert.ok(Math.abs(median(unknown)) < 60, `${name}: ${written(late)}`);
    }
    for (const name of LONG) {
      await longer[name].stop();
      const beeps = await recorded(`long-${name}`);
      assert.ok(beeps >= 50, `${name}: ${beeps} beeps`);
    }
  });
});

it("goes on when the encoder's clock jumps by an hour", async () => {
  const file = await makeClip(`${clips.path}/jumps.flv`, { seconds: 22 });
  const encoder = startJumpingClip(file, weir.rtmp("jumps"), 11_500);
  open.push(() => encoder.stop());
  await until("jumps is published", () => weir.rest("stream/find", { name: "jumps", status: "PUBLISHING", published: true }));
  const one = await viewer("jumps");
  await one.call("listen", "in");
  // The jump is at the picture 287.
  const seen = await until("pictures from beyond the jump", async () => {
    const seen = await one.seen();
    return seen.at(-1)?.number > 370 && seen;
  });
  assert.ok(seen[0].number < 260, "the jump was watched");
  await smooth(one, seen);
  const heard = (await one.call("heard", "in")).filter(({ loud }) => loud).map(({ at }) => at);
  const apart = heard.slice(1).map((at, before) => Math.round(at - heard[before]));
  console.log("beeps are", apart.join(), "ms apart");
  // None is missing and none comes twice; a browser that is busy plays a little faster or slower.
  assert.ok(apart.length >= 4 && apart.every((ms) => Math.abs(ms - 1000) < 450), apart.join());
  const record = await until("it is recorded", async () => (await finished()).find((name) => name === "jumps.mp4"), 30_000);
  const late = await offsetsOf(`${weir.records}/${record}`);
  const { seconds } = await decoded(`${weir.records}/${record}`);
  console.log("recorded", seconds, "s, late by", late.join(), "ms");
  assert.ok(late.length >= 20 && late.every((ms) => Math.abs(ms) < 60) && Math.abs(seconds - 22) < 0.5);
});

it("keeps a viewer whose encoder goes and comes back", async () => {
  const other = await startWeir("publisher_linger=60000");
  try {
    const file = await withB();
    const encoder = await publish(file, "back", other);
    const one = await viewer("back", other);
    await smooth(one, await pictures(one, 2000));
    await encoder.stop();
    const last = await until("the picture stands still", async () => {
      const seen = (await one.seen()).length;
      await sleep(1000);
      return (await one.seen()).length === seen && seen;
    });
    await publish(file, "back", other);
    await until("the picture goes on", async () => (await one.seen()).length > last + 5);
    await one.call("watch", "in");
    await smooth(one, await pictures(one, 4000));
    assert.equal((await one.call("statuses", "in")).at(-1)[0], "PLAYING");
    assert.equal((await other.rest("stream/find", { name: "back", published: false })).length, 1);
  } finally {
    for (const one of open.splice(0).reverse()) await one();
    await other.stop();
  }
});
