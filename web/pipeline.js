// One pipeline: its line, its shell command, its graph, its elements with what is negotiated between them.
import { blob, call, follow } from "./weir.js";
import { badge, byId, copy, el, moment, name, rows, say } from "./page.js";

const id = new URLSearchParams(location.search).get("id") ?? "";
const path = `pipelines/${encodeURIComponent(id)}`;
/** States and caps change without an event. */
const ANEW = 5000;

function facts(pipeline) {
  const entries = [["Stream", name(pipeline.stream)], ["Template", pipeline.template], ["Since", moment(pipeline.since)]];
  byId("facts").replaceChildren(...entries.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))));
}

function values(element) {
  const entries = [...Object.entries(element.caps), ...Object.entries(element.properties)];
  if (!entries.length) return "";
  const caps = Object.keys(element.caps).length;
  const properties = entries.length - caps;
  const count = [caps && `${caps} pad${caps > 1 ? "s" : ""}`, properties && `${properties} propert${properties > 1 ? "ies" : "y"}`];
  return el("details", {}, el("summary", {}, count.filter(Boolean).join(", ")),
    el("dl", { class: "values" }, ...entries.flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, value)])));
}

async function refresh() {
  try {
    const pipeline = await call(path);
    byId("problem").textContent = "";
    for (const card of ["about", "found", "graph-card", "elements-card"]) byId(card).hidden = false;
    if (byId("state").textContent !== pipeline.state) byId("state").replaceChildren(badge(pipeline.state));
    for (const text of ["line", "shell"]) {
      // A selection in it survives what did not change.
      if (byId(text).textContent !== pipeline[text]) byId(text).textContent = pipeline[text];
    }
    if (!byId("facts").children.length) facts(pipeline);
    rows(byId("elements").tBodies[0], pipeline.elements, (element) => element.name, (element) => [
      [element.name, () => name(element.name)],
      [element.factory],
      [element.state, () => badge(element.state)],
      [JSON.stringify([element.caps, element.properties]), () => values(element)],
    ]);
    return true;
  } catch (error) {
    byId("state").replaceChildren();
    byId("problem").textContent = error.status === 404 ? `There is no pipeline ${id}, or no more.` : error.message;
    return false;
  }
}

async function draw() {
  const shown = byId("picture").src;
  try {
    const picture = await blob(`${path}/graph.svg`);
    byId("picture").src = URL.createObjectURL(picture);
    byId("graph").hidden = false;
    byId("no-graph").textContent = "";
  } catch (error) {
    byId("graph").hidden = true;
    byId("no-graph").textContent = error.message;
  }
  if (shown) URL.revokeObjectURL(shown);
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = byId(button.dataset.copy);
    const done = await copy(source.textContent, source);
    say(byId("copied"), "", done ? "Copied." : "The browser does not let this page copy; the text is selected.");
  });
}

byId("title").textContent = id;
document.title = `${id} – weir`;
byId("svg").href = `/rest-api/${path}/graph.svg`;
byId("dot").href = `/rest-api/${path}/graph.dot`;
byId("draw").addEventListener("click", draw);
follow(refresh, (up) => up && refresh());
setInterval(() => document.hidden || refresh(), ANEW);
if (await refresh()) draw();
