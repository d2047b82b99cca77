// A line that loses every twentieth packet, each way: the picture goes on, because what is lost is sent again.
import assert from "node:assert/strict";
import { after, afterEach, before, it } from "node:test";
import { startBrowser } from "./support/browser.js";
import { lossyLine } from "./support/lossy.js";
import { sleep, startEncoder, startWeir, until } from "./support/processes.js";
import { serveSdk } from "./support/sdk.js";

const SHARE = 0.05;
/** A picture is watched until the line has lost so many packets, and so many seconds at the least. */
const LOST = 40;
const WINDOW = 8;

let browser, weir, sdk;
let open = [];

before(async () => {
  browser = await startBrowser();
  weir = await startWeir();
  sdk = await serveSdk(weir.ws);
});

after(async () => {
  await browser?.close();
  await sdk?.stop();
  await weir?.stop();
});

afterEach(async () => {
  for (const one of open) await one.close();
  open = [];
});

async function connected(line) {
  const page = await sdk.open(browser, line);
  open.push(page);
  await page.call("connect", weir.ws);
  const becomes = (key, wanted) => until(`${key} is ${wanted}`, async () => {
    const [status, info] = (await page.call("statuses", key)).at(-1) ?? [];
    if (status === "FAILED") throw new Error(`${key} FAILED: ${info}`);
    return status === wanted;
  });
  return {
    ...page,
    async start(verb, name, options = {}) {
      await page.call("start", verb, name, { name, ...options });
      await becomes(name, verb === "play" ? "PLAYING" : "PUBLISHING");
    },
  };
}

/**
 * What a page showed of a picture during the window: of the frames that were `sent`, freezes, and what was repaired.
 * `lost` counts what the line has lost.
 */
async function watched(page, sent, lost) {
  const report = () => page.call("pictures", "inbound-rtp");
  await until("the picture begins", async () => (await report())?.framesDecoded > 30);
  const [before, sentBefore, lostBefore] = [await report(), await sent(), lost()];
  await sleep(WINDOW * 1000);
  await until("the line loses packets", () => lost() - lostBefore > LOST);
  const [after, sentAfter] = [await report(), await sent()];
  const grown = (key) => (after[key] ?? 0) - (before[key] ?? 0);
  return {
    seconds: (after.timestamp - before.timestamp) / 1000,
    sent: sentAfter - sentBefore,
    received: grown("framesReceived"),
    decoded: grown("framesDecoded"),
    freezes: grown("freezeCount"),
    frozen: grown("totalFreezesDuration"),
    nacks: grown("nackCount"),
    repeated: grown("retransmittedPacketsReceived"),
    keyframes: grown("keyFramesDecoded"),
    packets: grown("packetsReceived"),
  };
}

/**
 * The pictures arrive and are shown: without a repair each would wait for the next keyframe, and none comes. A browser that
 * is busy with other tests may be some late, and skip some.
 */
function flows(seen, what) {
  assert.ok(seen.received > 0.85 * seen.sent, `the pictures arrive: ${what}`);
  assert.ok(seen.decoded > 0.6 * seen.sent && seen.frozen < seen.seconds / 3, `they flow: ${what}`);
}

it("plays on at 5 % loss", async () => {
  const line = lossyLine(SHARE);
  // No keyframe comes to the rescue: the next one is 40 s away and the source cannot be asked for one.
  const encoder = startEncoder(weir.rtmp("lossy"), 1000);
  try {
    const viewer = await connected(line);
    await until("the encoder publishes", () => weir.rest("stream/find", { name: "lossy", status: "PUBLISHING" }));
    await viewer.start("play", "lossy");
    const metricsOf = async (published) =>
      (await weir.rest("stream/find", { name: "lossy", published, display: ["metrics"] }))[0].metrics;
    const seen = await watched(viewer, async () => (await metricsOf(true)).VIDEO_FRAMES, () => line.counts.down.lost);
    const metrics = await until("weir is told of what was lost", async () => {
      const metrics = await metricsOf(false);
      return metrics.VIDEO_NACK > 20 && metrics.VIDEO_LOST > 20 && metrics;
    });
    const what = JSON.stringify({ ...line.counts, seen, metrics });
    assert.ok(seen.nacks > 20 && seen.repeated > 20, `lost packets are asked for, and come by RTX: ${what}`);
    flows(seen, what);
    assert.ok(metrics.BANDWIDTH_ESTIMATE > 0, `and shows the bandwidth estimate: ${what}`);
  } finally {
    await encoder.stop();
    line.stop();
  }
});

for (const [codec, stripCodecs] of [["H264", "VP8,VP9,AV1"], ["VP8", "H264,VP9,AV1"]]) {
  it(`publishes ${codec} on at 5 % loss`, async () => {
    const line = lossyLine(SHARE);
    const name = `lossy-${codec}`;
    try {
      const [publisher, viewer] = [await connected(line), await connected()];
      await publisher.start("publish", name, { stripCodecs, constraints: { audio: true, video: { width: 640, height: 480 } } });
      await viewer.start("play", name);
      const sent = () => publisher.call("pictures", "outbound-rtp");
      const seen = await watched(viewer, async () => (await sent()).framesSent, () => line.counts.up.lost);
      const after = await sent();
      const what = JSON.stringify({ ...line.counts, seen, nacks: after.nackCount, again: after.retransmittedPacketsSent });
      assert.ok(after.nackCount > 15 && after.retransmittedPacketsSent > 15, `lost packets are asked for, and sent again: ${what}`);
      assert.ok(after.rtxSsrc > 0, "on a stream of their own");
      flows(seen, what);
    } finally {
      line.stop();
    }
  });
}
