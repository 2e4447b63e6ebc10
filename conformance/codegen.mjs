// Generates TypeScript with GraphQL Code Generator, of the schema and of the
// documents in documents/, and compiles it with code that uses it.
// Usage: node codegen.mjs <schema.graphqls>
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { codegen } from "@graphql-codegen/core";
import * as typescript from "@graphql-codegen/typescript";
import * as operations from "@graphql-codegen/typescript-operations";
import { buildSchema, parse } from "graphql";

const schemaPath = process.argv[2];
if (!schemaPath) {
  console.error("usage: node codegen.mjs schema.graphqls");
  process.exit(2);
}

const here = dirname(fileURLToPath(import.meta.url));
const sdl = readFileSync(schemaPath, "utf8");
const documents = readdirSync(join(here, "documents"))
  .filter((name) => name.endsWith(".graphql"))
  .map((name) => ({ location: name, document: parse(readFileSync(join(here, "documents", name), "utf8")) }));
const config = {
  strictScalars: true, // each custom scalar must be known here
  scalars: {
    CurrencyCode: "string", Cursor: "string", DateTime: "string", Decimal: "string", Duration: "string", JSON: "unknown",
    Long: "number", StringMap: "Record<string, string>",
  },
};

const dir = mkdtempSync(join(tmpdir(), "backplane-codegen-"));
try {
  for (const [filename, plugin] of Object.entries({ "schema.ts": typescript, "types.ts": operations })) {
    const code = await codegen({
      filename,
      schema: parse(sdl),
      schemaAst: buildSchema(sdl),
      documents,
      config,
      plugins: [{ plugin: {} }],
      pluginMap: { plugin },
    });
    writeFileSync(join(dir, filename), code);
  }
  cpSync(join(here, "documents", "usage.ts"), join(dir, "usage.ts"));
  const tsc = createRequire(import.meta.url).resolve("typescript/bin/tsc");
  const { status } = spawnSync(process.execPath, [tsc, "--noEmit", "--strict", "--target", "es2022", "schema.ts", "usage.ts"], { cwd: dir, stdio: "inherit" });
  console.log(`graphql-codegen: ${documents.flatMap((d) => d.document.definitions).length} documents, tsc exit code ${status}`);
  process.exitCode = status ?? 1;
} finally {
  rmSync(dir, { recursive: true });
}
