// Every format a recording can be, in the browser that people watch it with: it plays, and its slider works.
// (MPEG-TS is not among them: browsers do not play it.)
import assert from "node:assert/strict";
import { after, afterEach, before, it } from "node:test";
import { openPage, startBrowser } from "./support/browser.js";
import { sleep, startWeir, until } from "./support/processes.js";
import { serveSdk } from "./support/sdk.js";

/** What `stripCodecs` takes out of the offer so that the other codec is left. */
const CODECS = { H264: "VP8,VP9,AV1", VP8: "H264,VP9,AV1" };
const FORMATS = [
  ["H264", "record_formats=h264-mp4", "mp4"],
  ["H264", "record_formats=h264-mkv", "mkv"],
  ["VP8", "record_webm_audio=vorbis", "webm"],
  ["VP8", "record_webm_audio=opus", "webm"],
  ["VP8", "record_formats=vp8-mkv", "mkv"],
];

let browser;
let started = [];

before(async () => {
  browser = await startBrowser();
});
after(() => browser?.close());
afterEach(async () => {
  for (const one of started.reverse()) await one();
  started = [];
});

for (const [codec, setting, extension] of FORMATS) {
  it(`plays ${extension} of ${codec} (${setting})`, async () => {
    const weir = await startWeir(setting);
    started.push(() => weir.stop());
    const sdk = await serveSdk(weir.ws);
    started.push(() => sdk.stop());
    const page = await sdk.open(browser);
    started.push(() => page.close());
    await page.call("connect", weir.ws);
    const status = async () => (await page.call("statuses", "film")).at(-1) ?? [];
    await page.call("start", "publish", "film", {
      name: "film", record: true, stripCodecs: CODECS[codec], constraints: { audio: true, video: { width: 320, height: 240 } },
    });
    await until("it is published", async () => (await status())[0] === "PUBLISHING");
    const began = Date.now();
    await sleep(4000);
    await page.call("stop", "film");
    const [, , name] = await until("it is over", async () => ((await status())[0] === "UNPUBLISHED") && status());
    const took = (Date.now() - began) / 1000;
    assert.ok(name.endsWith(`.${extension}`), name);

    const watched = await openPage(browser, `${weir.http}/`);
    started.push(() => watched.close());
    const seen = await watched.page.evaluate(async (source) => {
      const video = Object.assign(document.createElement("video"), { src: source, muted: true });
      document.body.append(video);
      const event = (name) => new Promise((resolve, reject) => {
        video.addEventListener(name, resolve, { once: true });
        video.addEventListener("error", () => reject(new Error(video.error?.message ?? "error")), { once: true });
        setTimeout(() => reject(new Error(`no ${name}`)), 60_000);
      });
      const metadata = event("loadedmetadata");
      await metadata;
      await video.play();
      while (video.currentTime < 1) await event("timeupdate");
      const [duration, width] = [video.duration, video.videoWidth];
      video.pause();
      const sought = event("seeked");
      video.currentTime = duration * 0.7;
      await sought;
      return { duration, width, at: video.currentTime };
    }, `/client/records/${encodeURIComponent(name)}`);
    assert.ok(seen.width > 0 && seen.duration > 2.5 && seen.duration < took + 2, `${took} s: ${JSON.stringify(seen)}`);
    assert.ok(Math.abs(seen.at - seen.duration * 0.7) < 0.2, JSON.stringify(seen));
  });
}
