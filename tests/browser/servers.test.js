// Servers feed servers: Chromium publishes to one weir with the unmodified WebSDK, and watches on another.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, afterEach, before, describe, it } from "node:test";
import { startBrowser } from "./support/browser.js";
import { startWeir, until } from "./support/processes.js";
import { serveSdk } from "./support/sdk.js";

/** What `stripCodecs` takes out of the offer so that the other codec is left. */
const CODECS = { H264: "VP8,VP9,AV1", VP8: "H264,VP9,AV1" };

let browser, origin, edge, sdk;
let open = [];

before(async () => {
  browser = await startBrowser();
  origin = await startWeir();
  edge = await startWeir(`cdn_origins=${origin.ws}`, "wcs_activity_timer_timeout=1000");
  sdk = await serveSdk(origin.ws);
});

after(async () => {
  await browser?.close();
  await sdk?.stop();
  await edge?.stop();
  await origin?.stop();
});

afterEach(async () => {
  for (const page of open) await page.close();
  open = [];
  await until("all is left", async () => !(await edge.rest("stream/find_all")) && !(await origin.rest("stream/find_all")));
});

/** A page with the SDK and a session at a weir. */
async function connected(weir) {
  const opened = await sdk.open(browser);
  open.push(opened);
  await opened.call("connect", weir.ws);
  const becomes = (key, ...wanted) => until(`${key} is ${wanted.join(" or ")}`, async () => {
    const [status, info] = (await opened.call("statuses", key)).at(-1) ?? [];
    if (status === "FAILED" && !wanted.includes("FAILED")) throw new Error(`${key} FAILED: ${info}`);
    return wanted.includes(status) && { status, info };
  });
  return {
    ...opened,
    becomes,
    async start(verb, key, options, status) {
      await opened.call("start", verb, key, options);
      await becomes(key, status);
    },
    /** The picture has a size, its clock goes on, and it is another one a moment later. */
    async moves(key) {
      const first = await until(`${key} has a picture`, () => opened.call("picture", key));
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

describe("origin and edge", () => {
  for (const codec of ["H264", "VP8"]) {
    it(`a stream in ${codec} is published at the origin and watched on the edge, in the same codec`, async () => {
      const publisher = await connected(origin);
      await publisher.start("publish", "cam", { name: "cam", stripCodecs: CODECS[codec] }, "PUBLISHING");
      const players = [await connected(edge), await connected(edge)];
      for (const player of players) await player.start("play", "in", { name: "cam" }, "PLAYING");
      for (const player of players) {
        await player.moves("in");
        await player.sounds();
        assert.ok((await player.call("received")).codecs.includes(`video/${codec}`));
      }
      const [stream] = await edge.rest("stream/find", { name: "cam", published: true });
      assert.equal(stream.videoCodec, codec);
      assert.equal((await edge.rest("pull/find_all")).length, 1, "one agent for both");
      assert.equal((await origin.rest("stream/find", { published: false })).length, 1, "the origin sends it once");
      // The origin's publisher stops: the edge's players are told.
      await publisher.call("stop", "cam");
      for (const player of players) {
        const { info } = await player.becomes("in", "FAILED");
        assert.equal(info, "Stopped by publisher stop");
      }
    });
  }

  it("a viewer who comes late on the edge starts at once", async () => {
    const publisher = await connected(origin);
    await publisher.start("publish", "cam", { name: "cam" }, "PUBLISHING");
    for (const key of ["first", "second"]) {
      const player = await connected(edge);
      const since = Date.now();
      await player.start("play", key, { name: "cam" }, "PLAYING");
      await player.moves(key);
      // Chromium sends no keyframe that nobody asks for: who is not served at once is not served at all.
      console.log(`${key} waits ${Date.now() - since} ms`);
    }
  });

  it("a keyframe that is wanted far away is asked of the publisher, over three servers", async () => {
    // Chromium sends a keyframe when it is asked for one, and a snapshot asks for one.
    const far = await startWeir();
    const keyframes = async (weir) => {
      const [stream] = await weir.rest("stream/find", { name: "cam", published: true, display: ["metrics"] });
      return stream.metrics.VIDEO_K_FRAMES;
    };
    try {
      const publisher = await connected(origin);
      await publisher.start("publish", "cam", { name: "cam" }, "PUBLISHING");
      const player = await connected(edge);
      await player.start("play", "in", { name: "cam" }, "PLAYING");
      await far.rest("pull/pull", { uri: edge.ws, remoteStreamName: "cam" });
      await until("it flows", async () => (await far.rest("pull/find_all"))?.[0].status === "PROCESSED_REMOTE");
      const before = await keyframes(origin);
      await until("the publisher is asked, again and again", async () => {
        await far.rest("stream/snapshot", { streamName: "cam" });
        return (await keyframes(origin)) >= before + 3;
      });
      await until("what it sends arrives", async () => (await keyframes(far)) >= 3);
      await far.rest("pull/terminate", { remoteStreamName: "cam" });
    } finally {
      await far.stop();
    }
  });

  it("pulled by REST under another name, and pushed on to a third", async () => {
    const third = await startWeir();
    try {
      const publisher = await connected(origin);
      await publisher.start("publish", "cam", { name: "cam" }, "PUBLISHING");
      await third.rest("pull/pull", { uri: origin.ws, remoteStreamName: "cam", localStreamName: "copy" });
      await until("the copy plays", async () => (await third.rest("pull/find_all"))?.some((one) => one.status === "PROCESSED_REMOTE"));
      await third.rest("pull/push", { uri: edge.ws, localStreamName: "copy", remoteStreamName: "pushed" });
      const player = await connected(edge);
      await until("it is pushed", () => edge.rest("stream/find", { name: "pushed", status: "PUBLISHING" }));
      await player.start("play", "in", { name: "pushed" }, "PLAYING");
      await player.moves("in");
      await player.sounds();
    } finally {
      await third.stop();
    }
  });
});

describe("weir's own messages", () => {
  it("the recording they are compared with is what the SDK says", async () => {
    const { fakeServer } = await import("./support/wcs.js");
    const file = new URL("../../src/message/websdk-2.0.276.jsonl", import.meta.url);
    const recorded = (await readFile(file, "utf8")).trim().split("\n").map((line) => JSON.parse(line));
    const opened = await sdk.open(browser);
    open.push(opened);
    const fake = await fakeServer(browser, opened.page);
    const becomes = (key, status) => until(`${key} is ${status}`, async () => (await opened.call("statuses", key)).some((one) => one[0] === status));
    await opened.call("connect", "ws://127.0.0.1:9");
    await opened.call("start", "publish", "out", { name: "s1" });
    await becomes("out", "PUBLISHING");
    await opened.call("start", "play", "in", { name: "s1" });
    await becomes("in", "PLAYING");
    await opened.call("stop", "in");
    await opened.call("stop", "out");
    await until("the last message", async () => fake.of("unPublishStream").length === 1);
    const fields = (payload) => payload && Object.keys(payload).sort();
    for (const { message, data } of recorded) assert.deepEqual(fields(fake.of(message)[0]), fields(data[0]), message);
    await fake.close();
  });
});
