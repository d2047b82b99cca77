// A hook server: it takes every call down, and answers as a test wants.
import { createServer } from "node:http";
import { until } from "./processes.js";

/** `answer(method, body)` gives a status, or an object that is mirrored with what was sent; nothing mirrors it. */
export async function startHooks() {
  const calls = [];
  let answer = () => ({});
  const server = createServer((request, response) => {
    let text = "";
    request.setEncoding("utf8");
    request.on("data", (chunk) => (text += chunk));
    request.on("end", () => {
      const method = request.url.split("/").at(-1);
      const body = JSON.parse(text || "{}");
      calls.push({ method, body });
      const reply = answer(method, body) ?? {};
      response.statusCode = typeof reply === "number" ? reply : 200;
      response.setHeader("Content-Type", "application/json");
      response.end(typeof reply === "number" ? "" : JSON.stringify({ ...body, ...reply }));
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const of = (method, fits = () => true) => calls.filter((call) => call.method === method && fits(call.body)).map((call) => call.body);
  return {
    url: `http://127.0.0.1:${server.address().port}/MyAPI`,
    answers: (how) => (answer = how),
    of,
    /** The first such call, which may come after the answer, the status or the picture that it tells of. */
    told: (method, fits) => until(`the hook ${method} is called`, () => of(method, fits)[0]),
    stop() {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}
