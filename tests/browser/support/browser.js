// Chromium with a camera and a microphone that are none, and pages of the tests' own on loopback.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const MODULES = fileURLToPath(new URL("../node_modules", import.meta.url));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };

export function startBrowser() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
      "--disable-sync", "--no-first-run",
      "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
      "--autoplay-policy=no-user-gesture-required",
      // A namespace of its own may have no interface but loopback.
      "--allow-loopback-in-peer-connection",
    ],
  });
}

/**
 * A page that says what goes wrong in it: errors, and what the console calls one. `problems` is to be empty at the end of
 * a test that announced none.
 */
export async function openPage(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => {
    // WCS answers "nothing" with 404, and browsers call that an error.
    const nothing = message.location().url.endsWith("/find_all") && message.text().includes("404");
    if (message.type() === "error" && !nothing) problems.push(message.text());
  });
  await page.goto(url);
  return { page, problems, close: () => context.close() };
}

/** Serves npm's packages below /node_modules, as they are, and the given pages by their path. */
export async function servePackages(pages = {}) {
  const server = createServer(async (request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://x").pathname);
    if (path === "/favicon.ico") return response.writeHead(204).end();
    try {
      const file = path.startsWith("/node_modules/") && join(MODULES, normalize(path.slice("/node_modules".length)));
      const body = pages[path] ?? (await readFile(file));
      response.setHeader("Content-Type", TYPES[extname(path)] ?? "application/octet-stream");
      response.end(body);
    } catch {
      response.statusCode = 404;
      response.end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    // A name that browsers take for this host: camera and microphone are for such pages.
    url: `http://localhost:${server.address().port}`,
    stop() {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}
