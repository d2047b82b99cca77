// weir's own pages against a real weir with a real source. No WebRTC of weir's is needed.
import assert from "node:assert/strict";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { openPage, startBrowser } from "./support/browser.js";
import { decoded, run, startEncoder, startNginx, startWeir, until } from "./support/processes.js";
import { fakeServer } from "./support/wcs.js";

const PAGES = ["/", "/two_way_streaming.html", "/player.html", "/stream_recording.html"];
/** A name that would do harm as HTML. */
const HOSTILE = "<img src=x onerror=\"window.harmed=1\"><script>window.harmed=1</script> \u202e&amp;";
const DESK = { width: 1280, height: 900 };
const PHONE = { width: 360, height: 740 };

let browser, weir, nginx, encoder;
let open = [];
let pulls = 0;

before(async () => {
  // One by one: what has been started is ended even where the next does not start.
  browser = await startBrowser();
  weir = await startWeir("record_rotation=2");
  nginx = await startNginx();
  encoder = startEncoder(nginx.uri("demo"));
});

after(async () => {
  await browser?.close();
  await encoder?.stop();
  await nginx?.stop();
  await weir?.stop();
});

afterEach(async () => {
  for (const page of open) await page.close();
  open = [];
});

/** A page of weir's; whatever goes wrong in it is in `problems`. */
async function visit(path, options) {
  const visited = await openPage(browser, weir.http + path, options);
  open.push(visited);
  return visited;
}

/** A picture for a person to look at, where WEIR_SCREENSHOTS names a folder. */
async function shoot(page, name) {
  const folder = process.env.WEIR_SCREENSHOTS;
  if (!folder) return;
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, `${name}.png`), await page.screenshot({ fullPage: true }));
}

const row = (page, table, text) => page.locator(`#${table} tbody tr`, { hasText: text });

async function pulled(name, more = {}) {
  // A source is pulled once: each pull has an address of its own for the same.
  await weir.rest("pull/rtmp/pull", { uri: `${nginx.uri("demo")}?n=${++pulls}`, localStreamName: name, ...more });
  await until(`${name} is live`, async () =>
    (await weir.rest("stream/find", { name }))?.some((stream) => stream.status === "PUBLISHING"));
}

async function ended(name) {
  await weir.rest("stream/terminate", { name });
  await until(`${name} is gone`, async () => !(await weir.rest("stream/find", { name })));
}

describe("the overview", () => {
  // A test that fails leaves nothing to the next.
  afterEach(async () => {
    for (const { name } of (await weir.rest("stream/find_all")) ?? []) await ended(name);
  });

  it("follows a pull from its form to its end, by keyboard alone", async () => {
    const { page, problems } = await visit("/");
    await page.getByText("follows the server").waitFor();
    await page.getByLabel("Source", { exact: true }).focus();
    await page.keyboard.type(nginx.uri("demo"));
    await page.keyboard.press("Tab");
    await page.keyboard.type("keys");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Space");
    await page.keyboard.press("Enter");

    await row(page, "streams", "keys").getByText("PUBLISHING").waitFor();
    await row(page, "streams", "keys").getByText("H264 1280 × 720").waitFor();
    await row(page, "agents", "keys").getByText("PROCESSED REMOTE").waitFor();
    await row(page, "pipelines", "pull-rtmp").getByText("PLAYING").waitFor();
    await row(page, "recordings", "keys").getByText("finished").first().waitFor();
    await page.locator("#events").getByText("is live").first().waitFor();

    // What is shown anew every time leaves the focus where it is.
    const terminate = page.getByRole("button", { name: "Terminate keys" });
    await terminate.focus();
    await page.keyboard.press("Enter");
    const dialog = page.getByRole("dialog", { name: "Terminate this stream?" });
    assert.equal(await dialog.getByRole("button", { name: "Cancel" }).evaluate((button) => button === document.activeElement), true);
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "detached" });
    assert.ok(await weir.rest("stream/find", { name: "keys" }), "a question that is left means no");
    assert.equal(await terminate.evaluate((button) => button === document.activeElement), true);

    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await row(page, "streams", "keys").waitFor({ state: "detached" });
    await row(page, "agents", "keys").waitFor({ state: "detached" });
    await page.getByText("Nothing is published.").waitFor();
    assert.equal(await weir.rest("stream/find", { name: "keys" }), null);
    assert.deepEqual(problems, []);
  });

  it("says why a pull is refused, and shows the reason of one that finds no source", async () => {
    const { page } = await visit("/");
    await page.getByRole("button", { name: "Start pull" }).click();
    await page.locator("#pull-status").getByText("Which source?").waitFor();
    await page.getByLabel("Source", { exact: true }).fill("gopher://nobody");
    await page.getByRole("button", { name: "Start pull" }).click();
    await page.locator("#pull-status").getByText("gopher").waitFor();

    await page.getByLabel("Source", { exact: true }).fill("rtmp://user:secret@127.0.0.1:1/live/none");
    await page.getByLabel("Stream name").fill("none");
    await page.getByRole("button", { name: "Start pull" }).click();
    await row(page, "agents", "none").getByText("RECONNECTING").waitFor();
    await row(page, "agents", "none").getByText("Connection refused").waitFor();
    assert.ok(!(await page.content()).includes("secret"));
    await page.getByRole("button", { name: /^Stop pulling/ }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Stop" }).click();
    await row(page, "agents", "none").waitFor({ state: "detached" });
  });

  it("plays and downloads a recording", async () => {
    await pulled("film", { record: "true" });
    const { page, problems } = await visit("/");
    await row(page, "recordings", "film").getByText("writing").waitFor();
    const file = row(page, "recordings", "film").filter({ hasText: "finished" }).first();
    await file.waitFor();
    await ended("film");
    const [download] = await Promise.all([page.waitForEvent("download"), file.getByRole("link", { name: "Download" }).click()]);
    assert.match(download.suggestedFilename(), /\.mp4$/);
    const film = await decoded(await download.path());
    assert.ok(film.video.frames > 20 && film.video.width === 1280, JSON.stringify(film));
    assert.ok(film.audio.frames > 20, JSON.stringify(film));

    const link = await file.getByRole("link", { name: "Play" }).getAttribute("href");
    const played = await page.evaluate(async (src) => {
      const video = Object.assign(document.createElement("video"), { src, muted: true });
      document.body.append(video);
      await video.play();
      // A jump needs ranges.
      video.currentTime = video.duration - 0.5;
      await new Promise((resolve) => video.addEventListener("ended", resolve));
      return video.videoWidth;
    }, link);
    assert.equal(played, 1280);
    assert.deepEqual(problems, []);
  });

  it("shows names as text, whatever is in them", async () => {
    await pulled(HOSTILE);
    await copyFile(new URL("package.json", import.meta.url), join(weir.records, "<img src=x onerror=alert(1)>.mp4"));
    const { page, problems } = await visit("/");
    await row(page, "streams", "onerror").waitFor();
    await row(page, "recordings", "alert(1)").waitFor();
    await page.getByRole("button", { name: /^Terminate </ }).click();
    await page.getByRole("dialog").getByText("onerror").waitFor();
    await shoot(page, "question");
    assert.equal(await page.evaluate(() => window.harmed), undefined);
    assert.equal(await page.locator("main img, dialog img, main script").count(), 0);
    assert.equal(await row(page, "streams", "onerror").locator("bdi").first().textContent(), HOSTILE);
    await page.keyboard.press("Escape");
    await row(page, "streams", "onerror").getByRole("link", { name: /^Play/ }).click();
    await page.waitForFunction((name) => document.querySelector("#play-button") && document.querySelector("#name").value === name, HOSTILE);
    assert.deepEqual(problems, []);
    await ended(HOSTILE);
  });

  it("goes on after its server was away", async () => {
    const other = await startWeir();
    const visited = await openPage(browser, other.http);
    open.push(visited);
    await visited.page.getByText("follows the server").waitFor();
    await other.stop();
    await visited.page.getByText("The server does not answer.").waitFor();
    await visited.page.getByText("RECONNECTING").waitFor();
    const again = await startWeir(`http.port=${other.ports["http.port"]}`);
    await visited.page.getByText("follows the server").waitFor();
    await visited.page.getByText("The server does not answer.").waitFor({ state: "hidden" });
    await again.stop();
  });
});

describe("a pipeline's page", () => {
  beforeEach(() => pulled("piped"));
  afterEach(() => ended("piped"));
  const piped = async () => (await weir.rest("pipelines")).find((pipeline) => pipeline.stream === "piped");

  it("shows the line, the command, the caps and the graph", async () => {
    const pipeline = await piped();
    const { page, problems } = await visit("/");
    await page.getByRole("link", { name: pipeline.id }).click();
    await page.getByText("rtmp2src location=").first().waitFor();
    assert.equal(await page.locator("#line").textContent(), pipeline.line);
    await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
    await page.locator("[data-copy=shell]").click();
    await page.getByText("Copied.").waitFor();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), pipeline.shell);

    await page.waitForFunction(() => document.querySelector("#picture").naturalWidth > 100);
    const demuxer = row(page, "elements", "flvdemux");
    await demuxer.getByText("pads").click();
    await demuxer.getByText("video/x-h264").waitFor();
    assert.deepEqual(problems, []);
    await ended("piped");
    await page.getByText("or no more").waitFor();
    await pulled("piped");
  });

  it("copies without a clipboard, too", async () => {
    const { page } = await visit(`/pipeline.html?id=${(await piped()).id}`);
    await page.getByText("rtmp2src location=").first().waitFor();
    await page.evaluate(() => Object.defineProperty(navigator, "clipboard", { value: undefined }));
    await page.locator("[data-copy=line]").click();
    await page.getByText("Copied.").waitFor();
  });

  it("says what is missing where the graph cannot be drawn", async () => {
    const { page } = await visit("/");
    await page.route("**/graph.svg", (route) => route.fulfill({
      status: 501, contentType: "application/json", body: JSON.stringify({ exception: "GraphvizMissing", message: "install the package graphviz" }),
    }));
    await page.goto(`${weir.http}/pipeline.html?id=${(await piped()).id}`);
    await page.getByText("install the package graphviz").waitFor();
    assert.equal(await page.locator("#graph").isVisible(), false);
    await shoot(page, "no-graphviz");
  });
});

describe("the pages with videos", () => {
  /** A page of weir's whose WebSockets end at a server of the test's. */
  async function withServer(path, names) {
    const visited = await visit("/");
    const server = await fakeServer(browser, visited.page, names);
    open.push(server);
    await visited.page.goto(weir.http + path);
    return { ...visited, server };
  }

  const moves = (page, selector) => page.waitForFunction((selector) => {
    const video = document.querySelector(selector);
    return video.videoWidth > 0 && video.currentTime > 0.5 && !video.paused;
  }, selector);

  it("publish and play, both ways", async () => {
    const { page, problems, server } = await withServer("/two_way_streaming.html", { taken: "Stream name is already in use" });
    assert.equal(await page.getByRole("button", { name: "Publish" }).isDisabled(), true);
    await page.getByRole("button", { name: "Connect" }).click();
    await page.locator("#connection-status").getByText("ESTABLISHED").waitFor();
    await until("a pong", () => server.of("pong").length);
    const [connection] = server.of("connection");
    assert.equal(connection.appKey, "defaultApp");
    assert.deepEqual(connection.mediaProviders, ["WebRTC"]);

    await page.getByRole("button", { name: "Publish" }).click();
    await page.locator("#publish-status").getByText("PUBLISHING").waitFor();
    await moves(page, "#local-video");
    const [offered] = server.of("publishStream");
    assert.equal(offered.name, await page.getByLabel("Stream to publish").inputValue());
    assert.deepEqual([offered.published, offered.record, offered.hasVideo, offered.hasAudio], [true, false, true, true]);
    assert.match(offered.sdp, /a=sendonly/);
    assert.doesNotMatch(offered.sdp, /a=candidate|a=recvonly|a=sendrecv/);

    await page.getByRole("button", { name: "Play", exact: true }).click();
    await page.locator("#play-status").getByText("PLAYING").waitFor();
    await moves(page, "#player-video");
    await page.locator("#measures").getByText(/320 × 240 · \d+ frames\/s · \d+ kbit\/s/).waitFor();
    await shoot(page, "both-ways");
    const [wanted] = server.of("playStream");
    assert.equal(wanted.sdp.match(/a=recvonly/g).length, 2);
    assert.doesNotMatch(wanted.sdp, /a=candidate|a=sendonly|a=sendrecv/);

    await page.locator("#play").getByRole("button", { name: "Stop" }).click();
    await page.locator("#play-status").getByText("STOPPED").waitFor();
    await page.locator("#publish").getByRole("button", { name: "Stop" }).click();
    await page.locator("#publish-status").getByText("UNPUBLISHED").waitFor();
    assert.equal(server.of("stopStream")[0].mediaSessionId, wanted.mediaSessionId);
    assert.equal(server.of("unPublishStream")[0].mediaSessionId, offered.mediaSessionId);

    await page.getByLabel("Stream to publish").fill("taken");
    await page.getByRole("button", { name: "Publish" }).click();
    await page.locator("#publish-status").getByText("Stream name is already in use").waitFor();

    await page.getByRole("button", { name: "Play", exact: true }).click();
    await page.locator("#play-status").getByText("PLAYING").waitFor();
    await page.getByRole("button", { name: "Disconnect" }).click();
    await page.locator("#connection-status").getByText("DISCONNECTED").waitFor();
    await page.locator("#play-status").getByText("FAILED").waitFor();
    assert.equal(await page.getByRole("button", { name: "Connect" }).isEnabled(), true);
    assert.deepEqual(problems, []);
  });

  it("bear messages that make no sense", async () => {
    const { page, problems, server } = await withServer("/two_way_streaming.html");
    await page.getByRole("button", { name: "Connect" }).click();
    await page.locator("#connection-status").getByText("ESTABLISHED").waitFor();
    await page.getByRole("button", { name: "Play", exact: true }).click();
    await page.locator("#play-status").getByText("PLAYING").waitFor();
    for (const [message, ...data] of [
      ["setRemoteSDP", "nobody", "v=0"], ["setRemoteSDP"], ["notifyStreamStatusEvent", null], ["notifyStreamStatusEvent", {}],
      ["notifyStreamEvent", { mediaSessionId: "x" }], ["fail", { id: "x" }], ["fail", null], ["what", 1],
    ]) server.say(message, ...data);
    server.say("ping", null);
    await until("two pongs", () => server.of("pong").length === 2);
    const { mediaSessionId } = server.of("playStream")[0];
    server.say("notifyStreamStatusEvent", { mediaSessionId, status: "FAILED", info: "Stopped by publisher stop" });
    await page.locator("#play-status").getByText("Stopped by publisher stop").waitFor();
    assert.deepEqual(problems, []);
  });

  it("play what the address names, by name or URL", async () => {
    const { page, problems, server } = await withServer("/player.html?name=rtmp%3A%2F%2Fhost%2Flive%2Fa", { none: "Stream not found" });
    await page.getByRole("button", { name: "Play", exact: true }).click();
    await page.locator("#status").getByText("PLAYING").waitFor();
    await moves(page, "#video");
    assert.equal(server.of("playStream")[0].name, "rtmp://host/live/a");
    await page.getByRole("button", { name: "Stop" }).click();
    await page.locator("#status").getByText("STOPPED").waitFor();
    await page.getByLabel("Stream", { exact: true }).fill("none");
    await page.keyboard.press("Enter");
    await page.locator("#status").getByText("Stream not found").waitFor();
    assert.equal(server.of("connection").length, 1, "the session is used again");
    await page.getByLabel("Stream", { exact: true }).fill("");
    await page.keyboard.press("Enter");
    await page.locator("#status").getByText("Which stream?").waitFor();
    assert.deepEqual(problems, []);
  });

  it("record, and link the file by its recordName", async () => {
    const film = join(weir.records, "film.mp4");
    await mkdir(weir.records, { recursive: true });
    await run("ffmpeg", ["-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=320x240", "-t", "2", "-pix_fmt", "yuv420p", film]);
    const { page, problems, server } = await withServer("/stream_recording.html");
    await page.getByRole("button", { name: "Start" }).click();
    await page.locator("#status").getByText("PUBLISHING").waitFor();
    assert.equal(server.of("publishStream")[0].record, true);
    await page.getByRole("button", { name: "Stop" }).click();
    await page.locator("#status").getByText("UNPUBLISHED").waitFor();
    await page.getByText("film.mp4").waitFor();
    await page.locator("#recorded").evaluate((video) => video.play());
    await moves(page, "#recorded");
    await shoot(page, "recorded");
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "Download" }).click()]);
    assert.deepEqual(await readFile(await download.path()), await readFile(film));
    assert.deepEqual(problems, []);
  });

  it("say that a server is not there, and let one try again", async () => {
    for (const [path, act, status] of [
      ["/two_way_streaming.html", "Connect", "#connection-status"], ["/player.html?name=a", "Play", "#status"],
      ["/stream_recording.html", "Start", "#status"],
    ]) {
      const { page } = await visit(path);
      await page.getByLabel("Server").fill("ws://127.0.0.1:1");
      for (const _ of ["once", "again"]) {
        await page.getByRole("button", { name: act, exact: true }).click();
        await page.locator(status).getByText("FAILED").waitFor();
        await page.locator(status).getByText("The connection cannot be made.").waitFor();
      }
      await page.getByLabel("Server").fill("not an address");
      await page.getByRole("button", { name: act, exact: true }).click();
      await page.locator(status).getByText("FAILED").waitFor();
    }
  });

  it("know the server's WebSocket port", async () => {
    const { page } = await visit("/");
    await page.route("**/rest-api/ports", (route) => route.fulfill({ json: { "http.port": 1, "ws.port": 4711 } }));
    await page.goto(`${weir.http}/player.html`);
    await page.waitForFunction(() => document.querySelector("#server").value === "ws://127.0.0.1:4711");
    await page.unroute("**/rest-api/ports");
  });
});

describe("every page", () => {
  const all = async () => [...PAGES, `/pipeline.html?id=${(await weir.rest("pipelines"))[0].id}`];
  before(() => pulled("looked-at", { record: "true" }));
  after(() => ended("looked-at"));

  it("loads cleanly, fits a phone and a desk, in the light and in the dark", async () => {
    for (const path of await all()) {
      for (const [width, viewport, colorScheme] of [["desk", DESK, "light"], ["phone", PHONE, "light"], ["desk-dark", DESK, "dark"]]) {
        const { page, problems } = await visit(path, { viewport, colorScheme });
        await page.waitForLoadState("load");
        if (path === "/") await row(page, "streams", "looked-at").waitFor();
        if (path.startsWith("/pipeline")) await page.waitForFunction(() => document.querySelector("#picture").naturalWidth > 0);
        const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
        assert.ok(wide <= room, `${path} is ${wide} wide in ${room}`);
        await shoot(page, `${path.split(/[./?]/)[1] || "overview"}-${width}`);
        assert.deepEqual(problems, [], path);
      }
    }
  });

  it("names all that can be used, and can be read against its ground", async () => {
    for (const path of await all()) {
      for (const colorScheme of ["light", "dark"]) {
        const { page } = await visit(path, { colorScheme });
        if (path === "/") await row(page, "streams", "looked-at").waitFor();
        const findings = await page.evaluate(audit);
        assert.deepEqual(findings, [], `${path} in the ${colorScheme}`);
      }
    }
  });
});

/** Runs in a page: what has no name, and text whose contrast with its ground is under 4.5 to 1 (WCAG 1.4.3). */
function audit() {
  const findings = [];
  const named = (element) => element.getAttribute("aria-label") || element.getAttribute("aria-labelledby")
    || element.labels?.length || element.textContent.trim() || element.getAttribute("alt") !== null;
  for (const element of document.querySelectorAll("a, button, input, video, img, table, pre, dialog, [tabindex='0'], section, nav")) {
    if (!named(element)) findings.push(`no name: ${element.outerHTML.slice(0, 80)}`);
  }
  if (document.querySelectorAll("h1").length !== 1) findings.push("not one h1");
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  if (new Set(ids).size !== ids.length) findings.push("an id is there twice");
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  for (const element of document.querySelectorAll("body *")) {
    const words = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    if (!words || !element.checkVisibility() || element.disabled || element.matches("script, noscript *")) continue;
    let under = element;
    while (under && (numbers(getComputedStyle(under).backgroundColor)[3] ?? 1) === 0) under = under.parentElement;
    const [text, ground] = [element, under ?? document.documentElement]
      .map((one, at) => light(numbers(getComputedStyle(one)[at ? "backgroundColor" : "color"])));
    const contrast = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    if (contrast < 4.5) findings.push(`contrast ${contrast.toFixed(1)}: ${element.textContent.trim().slice(0, 40)}`);
  }
  return findings;
}
