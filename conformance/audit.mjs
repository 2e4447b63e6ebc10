// Audits a running server against the GraphQL over HTTP specification, with the
// audit suite of the npm package graphql-http. Usage: node audit.mjs <url>
// It prints what failed and how many passed, and exits with 1 unless all did:
// SHOULD and MAY count like MUST.
import { auditServer } from "graphql-http";

const url = process.argv[2];
if (!url) {
  console.error("usage: node audit.mjs http://127.0.0.1:8080/graphql");
  process.exit(2);
}

const results = await auditServer({ url });
const failed = results.filter((result) => result.status !== "ok");
for (const { id, name, reason } of failed) {
  console.error(`failed ${id}: ${name}: ${reason}`);
}
console.log(`graphql over http: ${results.length - failed.length} of ${results.length} audits passed`);
process.exit(failed.length === 0 && results.length > 0 ? 0 : 1);
