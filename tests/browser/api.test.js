// The page that lets a person try REST's calls.
import assert from "node:assert/strict";
import { after, before, it } from "node:test";
import { openPage, startBrowser } from "./support/browser.js";
import { startWeir } from "./support/processes.js";

let browser, weir;

before(async () => {
  browser = await startBrowser();
  weir = await startWeir();
});

after(async () => {
  await browser?.close();
  await weir?.stop();
});

it("every call has a form, which sends it and shows the answer", async () => {
  const { page, problems, close } = await openPage(browser, `${weir.http}/api.html`);
  const { paths } = await (await fetch(`${weir.http}/rest-api/openapi.json`)).json();
  const operations = Object.values(paths).reduce((sum, path) => sum + Object.keys(path).length, 0);
  await page.locator("details").nth(operations - 1).waitFor();
  assert.equal(await page.locator("details").count(), operations);

  const ports = page.locator("details").filter({ has: page.getByText("GET /rest-api/ports", { exact: true }) });
  await ports.locator("summary").click();
  await ports.getByRole("button", { name: "Send" }).click();
  await ports.getByText(`"http.port": ${weir.ports["http.port"]}`).waitFor();

  const find = page.locator("details").filter({ has: page.getByText("POST /rest-api/stream/find", { exact: true }) });
  await find.locator("summary").click();
  assert.ok("mediaSessionId" in JSON.parse(await find.getByLabel("Body").inputValue()));
  await find.getByLabel("Body").fill('{"name": "nobody"}');
  await find.getByRole("button", { name: "Send" }).click();
  await find.getByText("StreamNotFound").waitFor();

  const one = page.locator("details").filter({ has: page.getByText("GET /rest-api/pipelines/{id}", { exact: true }) });
  await one.locator("summary").click();
  await one.getByLabel("id").fill("a/b");
  await one.getByRole("button", { name: "Send" }).click();
  await one.getByText("PipelineNotFound").waitFor();
  assert.deepEqual(problems.filter((problem) => !problem.includes("404")), []);
  await close();
});
