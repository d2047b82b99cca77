// Runs the tests of this folder, two files at a time: they wait more than they work. Arguments name files, otherwise all.
import { readdirSync } from "node:fs";
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { fileURLToPath } from "node:url";

/** The longest begins first, so that nobody waits for it in the end. */
const LONGEST = "streams.test.js";

const here = fileURLToPath(new URL(".", import.meta.url));
const all = readdirSync(here).filter((name) => name.endsWith(".test.js"));
const chosen = process.argv.length > 2 ? process.argv.slice(2) : all.sort((one, other) => (other === LONGEST) - (one === LONGEST) || one.localeCompare(other));

const tests = run({ files: chosen.map((name) => here + name), concurrency: 2 });
tests.on("test:fail", () => (process.exitCode = 1));
tests.compose(new spec()).pipe(process.stdout);
