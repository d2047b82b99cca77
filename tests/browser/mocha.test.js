// The WebSDK's own tests, as its package has them, against weir.
import assert from "node:assert/strict";
import { after, before, it } from "node:test";
import { startBrowser } from "./support/browser.js";
import { startWeir } from "./support/processes.js";
import { serveSdk } from "./support/sdk.js";

/** What no server can pass in this browser, and why. */
const IMPOSSIBLE = [
  // Wants an empty display; this SDK keeps its cached video elements in it.
  "should clean up video",
  // Wants Flash.
  "getMediaAccess should work with cached instance in case of Flash provider",
  // Wants a Chrome extension.
  "getMediaAccess should support screen sharing with WebRTC",
];
const ALL = 27;

let browser, weir, sdk;
before(async () => {
  browser = await startBrowser();
  weir = await startWeir();
  assert.ok(weir.ports["ws.port"], `data/ports.json has ws.port: ${JSON.stringify(weir.ports)}`);
  sdk = await serveSdk(weir.ws);
});
after(async () => {
  await browser?.close();
  await sdk?.stop();
  await weir?.stop();
});

it("passes all of the WebSDK's tests that a server can pass", async () => {
  const page = await browser.newPage();
  await page.goto(`${sdk.url}/mocha.html`);
  await page.waitForFunction(() => window.results?.done, null, { timeout: 300_000 });
  const { passed, failed } = await page.evaluate(() => window.results);
  assert.deepEqual(Object.keys(failed).sort(), [...IMPOSSIBLE].sort(), JSON.stringify(failed, null, 1));
  assert.equal(passed.length, ALL - IMPOSSIBLE.length, passed.join("\n"));
});
