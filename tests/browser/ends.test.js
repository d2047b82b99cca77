// The last words that the unmodified WebSDK hears of its streams when somebody else closes its connection.
import assert from "node:assert/strict";
import { after, before, it } from "node:test";
import { startBrowser } from "./support/browser.js";
import { startHooks } from "./support/hooks.js";
import { startWeir, until } from "./support/processes.js";
import { serveSdk } from "./support/sdk.js";

let browser, weir, hooks, sdk;

before(async () => {
  browser = await startBrowser();
  hooks = await startHooks();
  weir = await startWeir("stream_record_policy=streamName");
  await weir.ctl(`update app -l ${hooks.url} defaultApp`);
  sdk = await serveSdk(weir.ws);
});

after(async () => {
  await browser?.close();
  await weir?.stop();
  await hooks?.stop();
  await sdk?.stop();
});

async function connected() {
  const page = await sdk.open(browser);
  await page.call("connect", weir.ws);
  const last = async (key) => (await page.call("statuses", key)).at(-1) ?? [];
  const becomes = (key, wanted) => until(`${key} is ${wanted}`, async () => (await last(key))[0] === wanted);
  return { ...page, last, becomes };
}

/** A page that publishes `cam` and has it recorded, and one that plays it. */
async function pair() {
  const [publisher, viewer] = [await connected(), await connected()];
  await publisher.call("start", "publish", "out", { name: "cam", record: true });
  await publisher.becomes("out", "PUBLISHING");
  await viewer.call("start", "play", "in", { name: "cam" });
  await viewer.becomes("in", "PLAYING");
  await until("a file is written", async () => (await weir.rest("recorder/find_all"))?.[0]?.state === "RECORDING");
  return { publisher, viewer };
}

const over = (statuses) => statuses.map(([status]) => status).filter((status) => /FAILED|STOPPED|UNPUBLISHED/.test(status));

it("hears them from a connection that REST terminates", async () => {
  const { publisher, viewer } = await pair();
  const [{ sessionId }] = await weir.rest("stream/find", { name: "cam", published: true });
  await weir.rest("connection/terminate", { sessionId });
  await publisher.becomes("out", "UNPUBLISHED");
  assert.deepEqual(await publisher.last("out"), ["UNPUBLISHED", "Stopped by session disconnect", "cam.mp4"]);
  await viewer.becomes("in", "FAILED");
  assert.deepEqual((await viewer.last("in")).slice(0, 2), ["FAILED", "Stopped by publisher stop"]);
  for (const page of [publisher, viewer]) await page.close();
});

it("hears them from a server that stops, its recordings' names among them", async () => {
  const { publisher, viewer } = await pair();
  await weir.stop();
  weir = null;
  await publisher.becomes("out", "FAILED");
  assert.deepEqual(await publisher.last("out"), ["FAILED", "Requested stream shutdown", "cam-2.mp4"]);
  await viewer.becomes("in", "FAILED");
  // Whichever ends first: the viewer's own connection, or the publisher's.
  assert.match((await viewer.last("in"))[1], /^(Requested stream shutdown|Stopped by publisher stop)$/);
  for (const [page, key] of [[publisher, "out"], [viewer, "in"]]) {
    assert.equal(over(await page.call("statuses", key)).length, 1, "each hears one last word");
    await page.close();
  }
  const told = (published) => hooks.of("StreamStatusEvent", (body) => body.published === published).at(-1);
  assert.deepEqual([told(true).status, told(true).info, told(true).recordName], ["FAILED", "Requested stream shutdown", "cam-2.mp4"]);
  assert.equal(told(false).status, "FAILED");
});
