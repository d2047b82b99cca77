// Browsers over TLS: the WebSDK over wss, and weir's own pages over https, which take their camera there.
import assert from "node:assert/strict";
import { after, before, it } from "node:test";
import { openPage, startBrowser } from "./support/browser.js";
import { startWeir, until } from "./support/processes.js";
import { serveSdk } from "./support/sdk.js";

let browser, weir, sdk;

before(async () => {
  browser = await startBrowser();
  weir = await startWeir();
  sdk = await serveSdk(weir.wss);
});

after(async () => {
  await browser?.close();
  await sdk?.stop();
  await weir?.stop();
});

/** Who opens a page has looked at the certificate that weir made for itself, and went on. */
const trusted = { ignoreHTTPSErrors: true };

const status = (page, key, wanted) => until(`${key} is ${wanted}`, async () => {
  const [last, info] = (await page.evaluate((key) => window.h.statuses(key), key)).at(-1) ?? [];
  if (last === "FAILED") throw new Error(`${key} FAILED: ${info}`);
  return last === wanted;
});

it("the WebSDK publishes and plays over wss", async () => {
  const { page, problems, close } = await openPage(browser, `${sdk.url}/sdk.html`, trusted);
  await page.evaluate((url) => window.h.connect(url), weir.wss);
  await page.evaluate(() => window.h.start("publish", "out", { name: "secure" }));
  await status(page, "out", "PUBLISHING");
  await page.evaluate(() => window.h.start("play", "in", { name: "secure" }));
  await status(page, "in", "PLAYING");
  await until("pictures come", async () => (await page.evaluate(() => window.h.received())).frames > 10);
  assert.equal((await weir.rest("connection/find_all")).length, 1);
  assert.deepEqual(problems, []);
  await close();
});

it("weir's page over https finds the signalling over wss", async () => {
  const { page, problems, close } = await openPage(browser, `${weir.https}/two_way_streaming.html`, trusted);
  assert.equal(await page.evaluate(() => window.isSecureContext), true);
  await page.getByRole("button", { name: "Connect" }).click();
  await page.locator("#connection-status").getByText("ESTABLISHED").waitFor();
  await page.getByLabel("Stream to publish").fill("page");
  await page.getByRole("button", { name: "Publish" }).click();
  await page.locator("#publish-status").getByText("PUBLISHING").waitFor();
  assert.deepEqual(problems, []);
  await close();
});

it("a browser that was not asked does not trust the certificate", async () => {
  await assert.rejects(openPage(browser, `${weir.https}/`), /ERR_CERT_AUTHORITY_INVALID/);
});
