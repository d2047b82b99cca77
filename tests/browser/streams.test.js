// Streams as encoders send them, in a browser: what is seen and heard, by what was drawn and played.
import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { after, afterEach, before, it } from "node:test";
import { startBrowser } from "./support/browser.js";
import { folder, makeClip, startClip, startNginx, startWeir, until } from "./support/processes.js";
import { serveSdk } from "./support/sdk.js";

let browser, weir, sdk, clips;
let open = [];

before(async () => {
  browser = await startBrowser();
  weir = await startWeir();
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

/** The pictures were shown in their order, and nearly all of them. */
function smooth(seen) {
  const steps = seen.slice(1).map(({ number }, at) => number - seen[at].number);
  const [back, missing] = [steps.filter((step) => step < 0).length, steps.filter((step) => step > 1).reduce((sum, step) => sum + step - 1, 0)];
  const all = seen.at(-1).number - seen[0].number + 1;
  console.log(`${seen.length} pictures shown, ${missing} of ${all} left out, ${back} steps back`);
  assert.equal(back, 0, "a picture was shown after a later one");
  assert.ok(missing < all / 4, `${missing} of ${all} pictures were not shown`);
}

/** The pictures of some milliseconds. */
const pictures = (one, ms) => until(`pictures for ${ms} ms`, async () => {
  const seen = await one.seen();
  return seen.length > 1 && seen.at(-1).at - seen[0].at > ms && seen;
}, 30_000);

const renditions = async (name, server = weir) => (await server.rest("stream/find", { name, published: true }))?.[0].renditions;

it("shows B-frames in their order, and encodes anew only while a browser watches", async () => {
  const file = await makeClip(`${clips.path}/b.flv`, { seconds: 60, video: ["-bf", "3", "-b_strategy", "0"] });
  await publish(file, "b");
  assert.deepEqual(await renditions("b"), []);
  const first = await viewer("b");
  const second = await viewer("b");
  assert.deepEqual((await renditions("b")).sort(), ["H264 with B-frames to H264", "mpeg4-generic to opus"]);
  for (const one of [first, second]) {
    smooth(await pictures(one, 6000));
  }
  const running = (await weir.rest("pipelines")).map(({ template }) => template).sort();
  assert.deepEqual(running, ["ingest-rtmp", "play-webrtc", "transcode-x264"]);
  for (const one of [first, second]) await one.call("stop", "in");
  await until("the rendition has ended", async () => !(await renditions("b")).length);
});

it("shows the B-frames of a pulled stream in their order", async () => {
  const nginx = await startNginx();
  open.push(() => nginx.stop());
  const file = await makeClip(`${clips.path}/pulled.flv`, { seconds: 40, video: ["-bf", "3", "-b_strategy", "0"] });
  const encoder = startClip(file, nginx.uri("b"));
  open.push(() => encoder.stop());
  const one = await viewer(nginx.uri("b"));
  smooth(await pictures(one, 4000));
  await weir.rest("pull/rtmp/terminate", { uri: nginx.uri("b") });
});

it("takes openh264 where x264 is not installed", async () => {
  const templates = `${clips.path}/templates`;
  await mkdir(templates, { recursive: true });
  await writeFile(`${templates}/transcode-x264.launch`, "[video] {video_in} ! nosuchthing bitrate={kbps} name=pictures ! {video_out}");
  const other = await startWeir("--pipelines", templates);
  try {
    const file = await makeClip(`${clips.path}/b2.flv`, { seconds: 40, video: ["-bf", "3", "-b_strategy", "0"] });
    await publish(file, "b", other);
    const one = await viewer("b", other);
    smooth(await pictures(one, 5000));
    const running = (await other.rest("pipelines")).map(({ template }) => template).sort();
    assert.deepEqual(running, ["ingest-rtmp", "play-webrtc", "transcode-openh264"]);
  } finally {
    for (const one of open.splice(0).reverse()) await one();
    await other.stop();
  }
});

it("goes on when B-frames come later, and when the picture changes its size", async () => {
  const parts = [
    await makeClip(`${clips.path}/part1.flv`, { seconds: 12, video: ["-bf", "0"] }),
    await makeClip(`${clips.path}/part2.flv`, { seconds: 12, video: ["-bf", "3", "-b_strategy", "0"] }),
    await makeClip(`${clips.path}/part3.flv`, { seconds: 20, size: "960x540", video: ["-bf", "3", "-b_strategy", "0"] }),
  ];
  await writeFile(`${clips.path}/parts.txt`, parts.map((part) => `file ${part}\n`).join(""));
  await publish(`${clips.path}/parts.txt`, "later", weir, "-f", "concat", "-safe", "0");
  const one = await viewer("later");
  smooth(await pictures(one, 2000));
  assert.deepEqual(await renditions("later"), ["mpeg4-generic to opus"]);
  await until("a rendition", async () => (await renditions("later")).includes("H264 with B-frames to H264"), 30_000);
  await one.call("watch", "in");
  smooth(await pictures(one, 4000));
  await until("the new size", async () => (await one.seen()).at(-1)?.width === 960, 30_000);
  await one.call("watch", "in");
  smooth(await pictures(one, 4000));
  assert.equal((await weir.rest("stream/find", { name: "later", published: true }))[0].width, 960);
});
