// Compiles the documents of relay/ with Relay's compiler against a schema.
// Usage: node relay.mjs <schema.graphql or its URL>
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import relay from "relay-compiler";

const schema = process.argv[2];
if (!schema) {
  console.error("usage: node relay.mjs <schema.graphql or its URL>");
  process.exit(2);
}

const here = dirname(fileURLToPath(import.meta.url));
const dir = mkdtempSync(join(tmpdir(), "backplane-relay-"));
try {
  cpSync(join(here, "relay"), join(dir, "src"), { recursive: true });
  writeFileSync(join(dir, "schema.graphql"), schema.startsWith("http") ? await (await fetch(schema)).text() : readFileSync(schema));
  writeFileSync(join(dir, "relay.config.json"), JSON.stringify({ src: "src", schema: "schema.graphql", language: "typescript", eagerEsModules: true }));
  const { status, error } = spawnSync(relay, ["relay.config.json"], { cwd: dir, stdio: "inherit" });
  if (error) {
    throw error;
  }
  const artifacts = status === 0 ? readdirSync(join(dir, "src", "__generated__")).length : 0;
  console.log(`relay-compiler: ${artifacts} artifacts`);
  process.exitCode = artifacts > 0 ? 0 : 1;
} finally {
  rmSync(dir, { recursive: true });
}
