// Runs the tests of this folder. Arguments name files, otherwise all.
import { readdirSync } from "node:fs";
import { availableParallelism } from "node:os";
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { fileURLToPath } from "node:url";

/** A browser that publishes and plays keeps two cores busy: with more there are two files at a time. */
const LANES = availableParallelism() > 2 ? 2 : 1;
/** The longest begins first, so that nobody waits for it in the end. */
const LONGEST = "streams.test.js";

const here = fileURLToPath(new URL(".", import.meta.url));
const all = readdirSync(here).filter((name) => name.endsWith(".test.js"));
const chosen = process.argv.length > 2 ? process.argv.slice(2) : all.sort((one, other) => (other === LONGEST) - (one === LONGEST) || one.localeCompare(other));

const tests = run({ files: chosen.map((name) => here + name), concurrency: LANES });
tests.on("test:fail", () => (process.exitCode = 1));
tests.compose(new spec()).pipe(process.stdout);
