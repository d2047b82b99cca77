// weir as browsers know a WCS: the unmodified WebSDK publishes and plays, weir's own pages do, files come out of it.
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { after, afterEach, before, describe, it } from "node:test";
import { openPage, startBrowser } from "./support/browser.js";
import { decoded, run, sleep, startEncoder, startNginx, startWeir, until } from "./support/processes.js";
import { serveSdk } from "./support/sdk.js";

/** What `stripCodecs` takes out of the offer so that the other codec is left. */
const CODECS = { H264: "VP8,VP9,AV1", VP8: "H264,VP9,AV1" };

let browser, weir, nginx, encoder, sdk;
let open = [];
let count = 0;

before(async () => {
  // One by one: what has been started is ended even where the next does not start.
  browser = await startBrowser();
  weir = await startWeir();
  nginx = await startNginx();
  encoder = startEncoder(nginx.uri("demo"));
  assert.ok(weir.ports["ws.port"], `data/ports.json has ws.port: ${JSON.stringify(weir.ports)}`);
  sdk = await serveSdk(weir.ws);
});

after(async () => {
  await browser?.close();
  await encoder?.stop();
  await nginx?.stop();
  await sdk?.stop();
  await weir?.stop();
});

afterEach(async () => {
  for (const page of open) await page.close();
  open = [];
  await until("all sessions are gone", async () => !(await weir.rest("stream/find", { published: false })));
});

/** A page with the SDK and a session. */
async function connected() {
  const opened = await sdk.open(browser);
  open.push(opened);
  await opened.call("connect", weir.ws);
  const last = async (key) => (await opened.call("statuses", key)).at(-1) ?? [];
  const becomes = (key, ...wanted) => until(`${key} is ${wanted.join(" or ")}`, async () => {
    const [status, info, recordName] = await last(key);
    if (status === "FAILED" && !wanted.includes("FAILED")) throw new Error(`${key} FAILED: ${info}`);
    return wanted.includes(status) && { status, info, recordName };
  });
  return {
    ...opened,
    becomes,
    async publish(name, options = {}) {
      await opened.call("start", "publish", name, { name, ...options });
      await becomes(name, "PUBLISHING");
    },
    async play(name, key = "in", options = {}) {
      await opened.call("start", "play", key, { name, ...options });
      await becomes(key, "PLAYING");
    },
    /** The picture has a size, its clock goes on, and it is another one a moment later. */
    async moves(key = "in") {
      const first = await until(`${key} has a picture`, () => opened.call("picture", key));
      assert.ok(first.width > 0 && first.height > 0);
      return until(`${key} moves`, async () => {
        const now = await opened.call("picture", key);
        return now && now.at > first.at && now.hash !== first.hash && now;
      });
    },
    async sounds() {
      const before = (await opened.call("received")).energy;
      await until("there is sound", async () => (await opened.call("received")).energy > before);
    },
  };
}

const fresh = () => `s${++count}`;
const sessions = async (filter) => (await weir.rest("stream/find", filter)) ?? [];

for (const [codec, stripCodecs] of Object.entries(CODECS)) {
  it(`publishes ${codec} and plays it, with a picture that moves and sound, until it is stopped`, async () => {
    const name = fresh();
    const [publisher, viewer] = [await connected(), await connected()];
    await publisher.publish(name, { stripCodecs });
    await viewer.play(name);
    await viewer.moves();
    await viewer.sounds();
    const { codecs } = await viewer.call("received");
    assert.ok(codecs.includes(`video/${codec}`) && codecs.includes("audio/opus"), codecs.join());
    const [stream] = await sessions({ name, published: true });
    assert.equal(stream.videoCodec, codec);
    assert.equal(stream.status, "PUBLISHING");
    assert.ok(stream.width > 0 && stream.height > 0, JSON.stringify(stream));
    assert.equal((await sessions({ name, published: false })).length, 1);

    await viewer.call("stop", "in");
    await viewer.becomes("in", "STOPPED");
    await until("the viewer's session is gone", async () => !(await sessions({ name, published: false })).length);
    await publisher.call("stop", name);
    await publisher.becomes(name, "UNPUBLISHED");
    await until("the stream is gone", async () => !(await sessions({ name })).length);
  });
}

it("plays what an encoder publishes over RTMP, at once", async () => {
  const name = fresh();
  const published = startEncoder(weir.rtmp(name));
  try {
    const [viewer] = [await connected()];
    await until("the encoder publishes", async () => (await sessions({ name, status: "PUBLISHING" })).length);
    await viewer.play(name);
    await viewer.moves();
    await viewer.sounds();
    const [stream] = await sessions({ name, published: true });
    assert.equal(stream.appKey, "flashStreamingApp");
  } finally {
    await published.stop();
  }
});

for (const [track, left] of [["pictures", "-an"], ["sound", "-vn"]]) {
  it(`plays an RTMP encoder of ${track} alone`, async () => {
    const name = fresh();
    const published = startEncoder(weir.rtmp(name), 25, left);
    try {
      const viewer = await connected();
      await until("the encoder publishes", async () => (await sessions({ name, status: "PUBLISHING" })).length);
      await viewer.play(name);
      await (track === "pictures" ? viewer.moves() : viewer.sounds());
      const [stream] = await sessions({ name, published: true });
      assert.deepEqual([stream.hasVideo, stream.hasAudio], [track === "pictures", track === "sound"]);
      const { frames, energy } = await viewer.call("received");
      assert.deepEqual([frames > 0, energy > 0], [track === "pictures", track === "sound"]);
    } finally {
      await published.stop();
    }
  });
}

it("gives RTMP players a browser's H.264 with its Opus as AAC, and refuses VP8", async () => {
  const [name, other] = [fresh(), fresh()];
  const [publisher, second] = [await connected(), await connected()];
  await publisher.publish(name, { stripCodecs: CODECS.H264 });
  await second.publish(other, { stripCodecs: CODECS.VP8 });
  const file = `${weir.records}/../played.nut`;
  const play = (name, ...more) => run("ffmpeg", ["-nostdin", "-v", "error", "-i", weir.rtmp(name), ...more, "-y", file]);
  await assert.rejects(play(other, "-t", "1", "-c", "copy"), /VP8/);
  await play(name, "-t", "4", "-c", "copy");
  const { video, audio, seconds } = await decoded(file);
  assert.deepEqual([video.codec, audio.codec], ["h264", "aac"]);
  assert.ok(seconds > 3.5 && video.frames > 20 && audio.frames > 140, JSON.stringify({ video, audio, seconds }));
  await until("the rendition is gone", async () => !/play-rtmp/.test(JSON.stringify(await weir.rest("pipelines"))));
});

it("ends what REST terminates, viewer or publisher, with the words of WCS", async () => {
  const name = fresh();
  const [publisher, viewer, other] = [await connected(), await connected(), await connected()];
  await publisher.publish(name);
  await viewer.play(name);
  await other.play(name);
  const playing = await sessions({ name, published: false });
  await weir.rest("stream/terminate", { mediaSessionId: playing[0].mediaSessionId });
  await until("one viewer is gone", async () => (await sessions({ name, published: false })).length === 1);
  // REST knows it before the page does.
  const words = await until("it is told", async () => {
    const last = await Promise.all([viewer, other].map(async (one) => (await one.call("statuses", "in")).at(-1)));
    return last.some(([status]) => status !== "PLAYING") && last;
  });
  assert.equal(words.filter(([, info]) => info === "Stopped by rest /terminate").length, 1, JSON.stringify(words));

  await weir.rest("stream/terminate", { name, published: true });
  const { info } = await publisher.becomes(name, "UNPUBLISHED", "FAILED");
  assert.equal(info, "Stopped by rest /terminate");
  const left = words.findIndex(([, info]) => info !== "Stopped by rest /terminate");
  assert.equal((await [viewer, other][left].becomes("in", "FAILED")).info, "Stopped by publisher stop");
});

it("tells a viewer whose publisher leaves, by stopping or by closing its page", async () => {
  for (const leave of [(publisher, name) => publisher.call("stop", name), (publisher) => publisher.page.close()]) {
    const name = fresh();
    const [publisher, viewer] = [await connected(), await connected()];
    await publisher.publish(name);
    await viewer.play(name);
    await viewer.moves();
    await leave(publisher, name);
    assert.equal((await viewer.becomes("in", "FAILED")).info, "Stopped by publisher stop");
    await until("the name is free", async () => !(await sessions({ name })).length);
  }
});

it("refuses a name that is taken and a stream that is not there", async () => {
  const name = fresh();
  const [first, second] = [await connected(), await connected()];
  await first.publish(name);
  await second.call("start", "publish", name, { name });
  assert.equal((await second.becomes(name, "FAILED")).info, "Stream name is already in use");
  await second.call("start", "play", "none", { name: "nobody-publishes-this" });
  assert.equal((await second.becomes("none", "FAILED")).info, "Stream not found");
  await first.moves(name);
});

it("serves ten viewers of one stream", async () => {
  const name = fresh();
  const [publisher, page] = [await connected(), await connected()];
  await publisher.publish(name);
  const keys = Array.from({ length: 10 }, (_, at) => `viewer-${at}`);
  for (const key of keys) await page.call("start", "play", key, { name });
  for (const key of keys) await page.becomes(key, "PLAYING");
  for (const key of keys) await page.moves(key);
  assert.equal((await sessions({ name, published: false })).length, 10);
  assert.equal((await page.call("received")).viewers, 10);
  for (const key of keys.slice(0, 5)) await page.call("stop", key);
  for (const key of keys.slice(0, 5)) await page.becomes(key, "STOPPED");
  for (const key of keys.slice(5)) await page.moves(key);
});

it("bears a page that is loaded anew, as publisher and as viewer", async () => {
  const name = fresh();
  const [publisher, viewer] = [await connected(), await connected()];
  await publisher.publish(name);
  await viewer.play(name);
  await viewer.page.reload();
  await viewer.call("connect", weir.ws);
  await until("the first view is gone", async () => !(await sessions({ name, published: false })).length);
  await viewer.play(name);
  await viewer.moves();

  await publisher.page.reload();
  await viewer.becomes("in", "FAILED");
  await publisher.call("connect", weir.ws);
  await publisher.publish(name);
  await viewer.play(name, "again");
  await viewer.moves("again");
});

it("plays an rtmp:// URL of a real RTMP server, pulled once for two viewers", async () => {
  const uri = nginx.uri("demo");
  const viewers = [await connected(), await connected()];
  for (const viewer of viewers) await viewer.play(uri);
  for (const viewer of viewers) {
    const picture = await viewer.moves();
    assert.equal(picture.width, 1280);
    // The source's AAC, made Opus.
    await viewer.sounds();
  }
  const agents = (await weir.rest("pull/rtmp/find_all")).filter((agent) => agent.uri === uri);
  assert.equal(agents.length, 1);
  await weir.rest("pull/rtmp/terminate", { uri });
  for (const viewer of viewers) await viewer.becomes("in", "FAILED");
});

it("fails a play whose source is not there", async () => {
  const viewer = await connected();
  await viewer.call("start", "play", "in", { name: "rtmp://127.0.0.1:1/live/none" });
  assert.ok((await viewer.becomes("in", "FAILED")).info);
});

for (const [codec, expected] of [["H264", { file: /\.mp4$/, video: "h264", audio: "aac" }], ["VP8", { file: /\.webm$/, video: "vp8", audio: "vorbis" }]]) {
  it(`records ${codec} to a file that is downloaded and decodes in full`, async () => {
    const name = fresh();
    const publisher = await connected();
    await publisher.publish(name, { record: true, stripCodecs: CODECS[codec], constraints: { audio: true, video: { width: 640, height: 480 } } });
    const began = Date.now();
    await sleep(4000);
    await publisher.call("stop", name);
    const { recordName } = await publisher.becomes(name, "UNPUBLISHED");
    const took = (Date.now() - began) / 1000;
    assert.match(recordName, expected.file);
    const response = await fetch(`${weir.http}/client/records/${encodeURIComponent(recordName)}`);
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("content-type"), `video/${recordName.split(".").at(-1)}`);
    const file = `${weir.records}/../downloaded`;
    await writeFile(file, Buffer.from(await response.arrayBuffer()));
    const film = await decoded(file);
    assert.deepEqual([film.video.codec, film.audio.codec], [expected.video, expected.audio]);
    assert.ok(film.seconds > 2.5 && film.seconds < took + 2, `${took} s: ${JSON.stringify(film)}`);
    assert.ok(film.video.frames > 30, JSON.stringify(film));
  });
}

describe("weir's own pages", () => {
  async function visit(path) {
    const visited = await openPage(browser, weir.http + path);
    open.push(visited);
    return visited;
  }
  const moves = (page, selector) => page.waitForFunction((selector) => {
    const video = document.querySelector(selector);
    return video.videoWidth > 0 && video.currentTime > 1;
  }, selector);

  it("publish in one tab and play in another", async () => {
    const [out, viewer] = [await visit("/two_way_streaming.html"), await visit("/")];
    await out.page.getByRole("button", { name: "Connect" }).click();
    await out.page.locator("#connection-status").getByText("ESTABLISHED").waitFor();
    const name = fresh();
    await out.page.getByLabel("Stream to publish").fill(name);
    await out.page.getByRole("button", { name: "Publish" }).click();
    await out.page.locator("#publish-status").getByText("PUBLISHING").waitFor();
    await viewer.page.getByRole("link", { name: `Play ${name}` }).click();
    await viewer.page.getByRole("button", { name: "Play", exact: true }).click();
    await viewer.page.locator("#status").getByText("PLAYING").waitFor();
    await moves(viewer.page, "#video");
    await out.page.locator("#publish").getByRole("button", { name: "Stop" }).click();
    await out.page.locator("#publish-status").getByText("UNPUBLISHED").waitFor();
    await viewer.page.locator("#status").getByText("Stopped by publisher stop").waitFor();
    assert.deepEqual([...out.problems, ...viewer.problems], []);
  });

  it("record, and play the file", async () => {
    const { page, problems } = await visit("/stream_recording.html");
    await page.getByRole("button", { name: "Start" }).click();
    await page.locator("#status").getByText("PUBLISHING").waitFor();
    await sleep(3000);
    await page.getByRole("button", { name: "Stop" }).click();
    await page.locator("#status").getByText("UNPUBLISHED").waitFor();
    await page.locator("#recorded").evaluate((video) => video.play());
    await moves(page, "#recorded");
    assert.deepEqual(problems, []);
  });
});
