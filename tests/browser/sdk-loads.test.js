// The unmodified WebSDK loads from loopback and reaches a server: what the WebRTC tests stand on, without WebRTC of weir's.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { startBrowser } from "./support/browser.js";
import { until } from "./support/processes.js";
import { serveSdk } from "./support/sdk.js";
import { fakeServer } from "./support/wcs.js";

describe("the WebSDK", () => {
  let browser, sdk;
  before(async () => {
    browser = await startBrowser();
    sdk = await serveSdk("ws://127.0.0.1:1");
  });
  after(async () => {
    await browser?.close();
    await sdk?.stop();
  });

  it("loads as it is", async () => {
    const { page, problems, close } = await sdk.open(browser);
    assert.equal(await page.evaluate(() => Flashphoner.getMediaProviders()[0]), "WebRTC");
    assert.deepEqual(problems, []);
    await close();
  });

  it("publishes and plays through the tests' own helpers", async () => {
    const { page, call, close } = await sdk.open(browser);
    const server = await fakeServer(browser, page, { none: "Stream not found" });
    await call("connect", "ws://127.0.0.1:1/any/path");
    const last = async (key) => (await call("statuses", key)).at(-1)?.[0];
    await call("start", "publish", "out", { name: "a", record: true });
    await until("PUBLISHING", async () => (await last("out")) === "PUBLISHING");
    await call("start", "play", "in", { name: "a" });
    await until("PLAYING", async () => (await last("in")) === "PLAYING");
    const first = await until("a picture", () => call("picture", "in"));
    await until("another picture", async () => (await call("picture", "in")).hash !== first.hash);
    await until("sound", async () => (await call("received")).energy > 0);
    await call("stop", "in");
    await until("STOPPED", async () => (await last("in")) === "STOPPED");
    await call("stop", "out");
    await until("UNPUBLISHED", async () => (await last("out")) === "UNPUBLISHED");
    assert.equal((await call("statuses", "out")).at(-1)[2], "film.mp4");
    await call("start", "play", "none", { name: "none" });
    await until("FAILED", async () => (await last("none")) === "FAILED");
    assert.equal((await call("statuses", "none")).at(-1)[1], "Stream not found");
    await server.close();
    await close();
  });

  it("brings tests of its own, which run in the frame that is given to them", async () => {
    const page = await browser.newPage();
    await page.goto(`${sdk.url}/mocha.html`);
    await page.waitForFunction(() => window.results?.passed.includes("should create session after initialization"));
    await page.close();
  });
});
