// Every call of openapi.json, with a form that sends it. Calls are real: a terminate ends what it names.
import { byId, el } from "./page.js";

const METHODS = ["get", "post", "delete"];

/** An example of a schema: every field with an empty value of its type. */
function example(schema, schemas) {
  const resolved = schema.$ref ? schemas[schema.$ref.split("/").pop()] : schema;
  const empty = (field) => {
    if (field.enum) return field.enum.includes(true) ? true : field.enum[0];
    const type = [field.type].flat()[0];
    return { string: "", boolean: true, integer: 0, number: 0, array: [] }[type] ?? null;
  };
  const fields = Object.entries(resolved?.properties ?? {});
  return Object.fromEntries(fields.map(([name, field]) => [name, empty(field)]));
}

/** The path with its holes filled. */
const filled = (path, holes) => path.replace(/\{(\w+)\}/g, (_, hole) => encodeURIComponent(holes[hole].value));

function form(path, method, operation, schemas) {
  const id = operation.operationId;
  const holes = {};
  const fields = [];
  for (const { name } of operation.parameters ?? []) {
    holes[name] = el("input", { id: `${id}-${name}`, type: "text", required: true });
    fields.push(el("label", { for: `${id}-${name}` }, name), holes[name]);
  }
  const schema = operation.requestBody?.content["application/json"].schema;
  const body = schema && el("textarea", { id: `${id}-body`, rows: 8, spellcheck: "false" });
  if (body) {
    body.value = JSON.stringify(example(schema, schemas), null, 2);
    fields.push(el("label", { for: `${id}-body` }, "Body"), body);
  }
  const answer = el("pre", { class: "line", "aria-live": "polite", hidden: true });
  const made = el("form", { class: "stack" }, ...fields, el("p", {}, el("button", { type: "submit" }, "Send")), answer);
  made.addEventListener("submit", async (event) => {
    event.preventDefault();
    answer.hidden = false;
    answer.textContent = "…";
    try {
      const options = { method: method.toUpperCase() };
      if (body) Object.assign(options, { body: body.value, headers: { "Content-Type": "application/json" } });
      const response = await fetch(filled(path, holes), options);
      const text = await response.text();
      const json = response.headers.get("content-type")?.startsWith("application/json");
      answer.textContent = `${response.status} ${response.statusText}\n${json ? JSON.stringify(JSON.parse(text), null, 2) : text}`;
    } catch (error) {
      answer.textContent = String(error);
    }
  });
  return made;
}

function call(path, method, operation, schemas) {
  const title = `${method.toUpperCase()} ${path}`;
  return el(
    "details",
    { class: "card" },
    el("summary", {}, el("code", {}, title), ` ${operation.summary}`),
    form(path, method, operation, schemas),
  );
}

try {
  const response = await fetch("rest-api/openapi.json");
  if (!response.ok) throw new Error(`openapi.json: ${response.status}`);
  const { paths, components } = await response.json();
  for (const [path, operations] of Object.entries(paths)) {
    for (const method of METHODS.filter((method) => operations[method])) {
      byId("calls").append(call(path, method, operations[method], components.schemas));
    }
  }
} catch (error) {
  byId("problem").textContent = error.message;
}
