// Fails if what a page loads of the package has grown past its bound: bytes after esbuild and gzip, without graphql-ws.
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const bounds = { "dist/index.js": 2700, "dist/ws.js": 1500, "dist/apollo.js": 2000, "dist/urql.js": 1600, "dist/codegen.js": 300 };

for (const [entry, bound] of Object.entries(bounds)) {
  const { outputFiles } = await build({ entryPoints: [entry], bundle: true, minify: true, format: "esm", write: false, external: ["graphql-ws"] });
  const bytes = gzipSync(outputFiles[0].contents, { level: 9 }).length;
  console.log(`${entry}: ${bytes} bytes of ${bound}`);
  if (bytes > bound) process.exitCode = 1;
}

// A page that only signs in and calls loads neither streams nor sockets.
const { outputFiles } = await build({ stdin: { contents: 'import { createFetch, createSession } from "@backplane/client"; createFetch(createSession({ url: "/graphql" }));', resolveDir: "." }, bundle: true, minify: true, format: "esm", write: false });
if (/EventSource|graphql-ws/.test(outputFiles[0].text)) {
  console.error("the package cannot be shaken: a page that follows nothing loads the code of streams");
  process.exitCode = 1;
}
