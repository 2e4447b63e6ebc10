// Holds an OpenAPI document against the default rules of two public linters.
import { readFileSync } from 'node:fs';
import { createConfig, lintFromString } from '@redocly/openapi-core';
import spectralCore from '@stoplight/spectral-core';
import spectralParsers from '@stoplight/spectral-parsers';
import spectralRulesets from '@stoplight/spectral-rulesets';

const file = process.argv[2];
const source = readFileSync(file, 'utf8');
const found = [];

const redocly = await lintFromString({ source, absoluteRef: file, config: await createConfig({ extends: ['recommended'] }) });
for (const p of redocly) {
  found.push({ linter: 'Redocly', rule: p.ruleId, error: p.severity === 'error', message: p.message, where: p.location[0]?.pointer });
}

const spectral = new spectralCore.Spectral();
spectral.setRuleset({ extends: [spectralRulesets.oas] });
for (const p of await spectral.run(new spectralCore.Document(source, file.endsWith('.json') ? spectralParsers.Json : spectralParsers.Yaml, file))) {
  found.push({ linter: 'Spectral', rule: p.code, error: p.severity === 0, message: p.message, where: p.path.join('/') });
}

for (const f of found) {
  console.log(`${f.error ? 'error' : 'warning'} of ${f.linter}, ${f.rule}: ${f.message} (${f.where})`);
}
const errors = found.filter((f) => f.error).length;
console.log(`${errors} errors and ${found.length - errors} warnings by Redocly (recommended) and Spectral (oas)`);
process.exit(errors > 0 ? 1 : 0);
