// Generates the types of a client from the server's OpenAPI document, holds
// rest/client.ts against them, and runs it: node client.mjs BASE_URL API_KEY
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import openapiTS, { astToString } from 'openapi-typescript';
import ts from 'typescript';

const [baseUrl, key] = process.argv.slice(2);
mkdirSync('node_modules/.cache', { recursive: true });
const dir = mkdtempSync('node_modules/.cache/rest-'); // where imports of packages are found

try {
  const document = await (await fetch(`${baseUrl}/openapi.json`)).json();
  writeFileSync(join(dir, 'schema.d.ts'), astToString(await openapiTS(document)));
  cpSync('rest/client.ts', join(dir, 'client.ts'));
  writeFileSync(join(dir, 'package.json'), '{"type": "module"}');

  const program = ts.createProgram([join(dir, 'client.ts')], {
    strict: true,
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ESNext,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    lib: ['lib.es2022.d.ts', 'lib.dom.d.ts', 'lib.dom.iterable.d.ts'],
    types: [],
    skipLibCheck: true,
  });
  const emitted = program.emit();
  const mistakes = [...ts.getPreEmitDiagnostics(program), ...emitted.diagnostics];
  if (mistakes.length > 0) {
    throw new Error(ts.formatDiagnostics(mistakes, { getCanonicalFileName: (f) => f, getCurrentDirectory: () => '', getNewLine: () => '\n' }));
  }
  const { run } = await import(pathToFileURL(join(dir, 'client.js')).href);
  console.log(await run(baseUrl, key));
} finally {
  rmSync(dir, { recursive: true });
}
