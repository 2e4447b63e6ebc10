// Generates TypeScript with GraphQL Code Generator, of a schema and of the documents in documents/,
// with the scalars of @backplane/client, and compiles it with code that uses it.
// Usage: node codegen.mjs <schema.graphql or URL of a server>
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generate } from "@graphql-codegen/cli";
import { config } from "../clients/typescript/dist/codegen.js";

const schema = process.argv[2];
if (!schema) {
  console.error("usage: node codegen.mjs <schema.graphql or URL>");
  process.exit(2);
}

const dir = mkdtempSync(join(tmpdir(), "backplane-codegen-"));
try {
  const generates = { [join(dir, "schema.ts")]: { plugins: ["typescript"] }, [join(dir, "types.ts")]: { plugins: ["typescript-operations"] } };
  const files = await generate({ schema, documents: "documents/*.graphql", config, generates, silent: true }, true);
  cpSync("documents/usage.ts", join(dir, "usage.ts"));
  const tsc = createRequire(import.meta.url).resolve("typescript/bin/tsc");
  const { status } = spawnSync(process.execPath, [tsc, "--noEmit", "--strict", "--target", "es2022", "schema.ts", "usage.ts"], { cwd: dir, stdio: "inherit" });
  console.log(`graphql-codegen: ${files.length} files of ${schema}, tsc exit code ${status}`);
  process.exitCode = status ?? 1;
} finally {
  rmSync(dir, { recursive: true });
}
