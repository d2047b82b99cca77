// What the unmodified WebSDK sees of a hook server's decisions, in an application that was set up by the command line.
import assert from "node:assert/strict";
import { after, afterEach, before, it } from "node:test";
import { startBrowser } from "./support/browser.js";
import { startHooks } from "./support/hooks.js";
import { startWeir, until } from "./support/processes.js";
import { serveSdk } from "./support/sdk.js";

let browser, weir, hooks, sdk;
let open = [];

before(async () => {
  browser = await startBrowser();
  hooks = await startHooks();
  weir = await startWeir("keep_alive_streaming_sessions_enabled=true", "streaming_sessions_keep_alive_interval=1000");
  await weir.ctl(`update app -l ${hooks.url} defaultApp`);
  await weir.ctl("add app-rest-method defaultApp StreamKeepAliveEvent");
  sdk = await serveSdk(weir.ws);
});

after(async () => {
  await browser?.close();
  await weir?.stop();
  await hooks?.stop();
  await sdk?.stop();
});

afterEach(async () => {
  for (const page of open) await page.close();
  open = [];
  hooks.answers(() => ({}));
  await until("all sessions are gone", async () => !(await weir.rest("stream/find_all")));
});

async function page() {
  const opened = await sdk.open(browser);
  open.push(opened);
  const becomes = (key, ...wanted) => until(`${key} is ${wanted.join(" or ")}`, async () => {
    const [status, info] = (await opened.call("statuses", key)).at(-1) ?? [];
    return wanted.includes(status) && { status, info };
  });
  return { ...opened, becomes };
}

async function connected(options) {
  const opened = await page();
  await opened.call("connect", weir.ws, options);
  return opened;
}

it("ends the session of a browser that may not connect, and says why", async () => {
  hooks.answers((method, body) => (method === "connect" && body.custom?.token !== "good" ? 403 : {}));
  const stranger = await page();
  await assert.rejects(stranger.call("connect", weir.ws, { custom: { token: "bad" } }), /session (DISCONNECTED|FAILED)/);
  const { apiMethod, info } = (await stranger.call("warnings"))[0];
  assert.deepEqual([apiMethod, info], ["connect", "REST 403 Forbidden"]);
  await until("its connection is gone", async () => !(await weir.rest("connection/find_all")));
  await connected({ custom: { token: "good" } });
  const asked = hooks.of("connect", (body) => body.custom?.token === "good")[0];
  assert.equal(asked.origin, sdk.url);
  assert.match(asked.clientBrowserVersion, /Chrom/);
  const established = await hooks.told("ConnectionStatusEvent", (body) => body.sessionId === asked.sessionId);
  assert.equal(established.status, "ESTABLISHED");
});

it("fails what a hook refuses, and gives a stream the name that a hook gives it", async () => {
  hooks.answers((method, body) => {
    const overwrite = { restOnError: "FAIL", restPolicy: "OVERWRITE", restOverwrite: "name" };
    if (method === "connect") return { restClientConfig: { publishStream: overwrite, playStream: overwrite } };
    if (body.name === "forbidden") return 403;
    return /^(publish|play)Stream$/.test(method) ? { name: `hidden-${body.name}` } : {};
  });
  const [publisher, viewer] = [await connected(), await connected()];
  for (const [verb, key] of [["publish", "p1"], ["play", "p2"]]) {
    await publisher.call("start", verb, key, { name: "forbidden" });
    assert.equal((await publisher.becomes(key, "FAILED")).info, "REST 403 Forbidden");
  }
  await publisher.call("start", "publish", "out", { name: "cam" });
  await publisher.becomes("out", "PUBLISHING");
  await viewer.call("start", "play", "in", { name: "cam" });
  await viewer.becomes("in", "PLAYING");
  await until("there is a picture", () => viewer.call("picture", "in"));
  assert.equal((await weir.rest("stream/find", { name: "hidden-cam" })).length, 2);
  assert.equal(await weir.rest("stream/find", { name: "cam" }), null);
  const sent = await hooks.told("StreamStatusEvent", (body) => body.status === "PUBLISHING" && body.name === "hidden-cam");
  assert.deepEqual([sent.hasVideo, sent.hasAudio, sent.audioCodec, sent.mediaType], [true, true, "opus", "publish"]);
  assert.match(sent.videoCodec, /^(H264|VP8)$/);
  assert.ok(sent.width > 0 && sent.height > 0, JSON.stringify(sent));
  await viewer.call("stop", "in");
  await viewer.becomes("in", "STOPPED");
  await publisher.call("stop", "out");
  await publisher.becomes("out", "UNPUBLISHED");
  for (const status of ["PUBLISHING", "UNPUBLISHED", "PLAYING", "STOPPED"]) {
    const told = await hooks.told("StreamStatusEvent", (body) => body.status === status && body.name === "hidden-cam");
    assert.equal(told.published, /PUBLISH/.test(status));
  }
});

it("ends a publisher, or one viewer of several, that a keep-alive is answered 403 for", async () => {
  const [publisher, viewer, other] = [await connected(), await connected(), await connected()];
  await publisher.call("start", "publish", "out", { name: "cam" });
  await publisher.becomes("out", "PUBLISHING");
  for (const one of [viewer, other]) {
    await one.call("start", "play", "in", { name: "cam" });
    await one.becomes("in", "PLAYING");
  }
  const players = await weir.rest("stream/find", { name: "cam", published: false });
  const unwanted = players[0].mediaSessionId;
  hooks.answers((method, body) => (method === "StreamKeepAliveEvent" && body.mediaSessionId === unwanted ? 403 : {}));
  await until("one viewer is gone", async () => (await weir.rest("stream/find", { name: "cam", published: false }))?.length === 1);
  // REST knows it before the page does.
  const words = await until("it is told", async () => {
    const last = await Promise.all([viewer, other].map(async (one) => (await one.call("statuses", "in")).at(-1)));
    return last.some(([status]) => status === "FAILED") && last;
  });
  assert.deepEqual(words.map(([status]) => status).sort(), ["FAILED", "PLAYING"]);
  assert.ok(words.some(([, info]) => info === "Terminated by keep-alive"), JSON.stringify(words));

  hooks.answers((method, body) => (method === "StreamKeepAliveEvent" && body.published ? 403 : {}));
  assert.equal((await publisher.becomes("out", "FAILED")).info, "Terminated by keep-alive");
  const left = words.findIndex(([status]) => status === "PLAYING");
  assert.equal((await [viewer, other][left].becomes("in", "FAILED")).info, "Stopped by publisher stop");
  hooks.answers(() => ({}));
  await publisher.call("start", "publish", "again", { name: "cam" });
  await publisher.becomes("again", "PUBLISHING");
});

it("passes data on, and tells the page whether it was taken", async () => {
  hooks.answers((method, body) => {
    if (method === "connect") return { restClientConfig: { OnDataEvent: { restOnError: "FAIL" } } };
    return method === "OnDataEvent" && body.payload.bad ? 403 : {};
  });
  const one = await connected();
  assert.equal((await one.call("sendData", { hello: 1 })).status, "ACCEPTED");
  assert.deepEqual(hooks.of("OnDataEvent")[0].payload, { hello: 1 });
  assert.equal((await one.call("sendData", { bad: 1 })).status, "FAILED");
});

it("tells the SDK's room API that there are no rooms", async () => {
  const { page: room } = await page();
  await room.addScriptTag({ url: `${sdk.url}/node_modules/@flashphoner/websdk/flashphoner-room-api-webrtc-only.js` });
  const info = await room.evaluate((urlServer) => new Promise((resolve, reject) => {
    RoomApi.sdk.init();
    const session = RoomApi.connect({ urlServer, username: "alice" });
    session.on("FAILED", () => reject(new Error("no session")));
    session.on("ESTABLISHED", () => session.join({ name: "room" }).on("FAILED", (_, why) => resolve(why)));
  }), weir.ws);
  assert.equal(info, "there are no rooms on this server");
});
