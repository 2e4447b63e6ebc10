// Does with Relay what its documentation shows: a network layer of fetch and graphql-ws that renews an
// expired token; a query, a mutation and a subscription that keeps the store up to date.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { createClient } from "graphql-ws";
import compiler from "relay-compiler";
import relay from "relay-runtime";
import WebSocket from "ws";
import { authErrors, expiry, graphql, isExpired, kill, refresh, rename, signUp, sleep, socketURL, start, url } from "./server.mjs";

const { commitMutation, createOperationDescriptor, Environment, fetchQuery, Network, Observable, RecordSource, requestSubscription, Store } = relay;
const documents = await compile(process.argv[3]);

// compile returns the artifacts of the documents of Account.js.
async function compile(schema) {
  const dir = mkdtempSync(join(tmpdir(), "backplane-relay-")); // the compiler looks into no node_modules
  try {
    mkdirSync(join(dir, "src"));
    cpSync("clients/Account.js", join(dir, "src", "Account.js"));
    cpSync(schema, join(dir, "schema.graphql"));
    writeFileSync(join(dir, "package.json"), '{"type": "module"}');
    writeFileSync(join(dir, "relay.config.json"), JSON.stringify({ src: "src", schema: "schema.graphql", language: "javascript", eagerEsModules: true }));
    const { status, stdout, stderr } = spawnSync(compiler, ["relay.config.json"], { cwd: dir });
    assert.equal(status, 0, `${stdout}${stderr}`);
    const load = async (name) => (await import(pathToFileURL(join(dir, "src", "__generated__", `${name}.graphql.js`)).href)).default;
    return { query: await load("AccountQuery"), mutation: await load("AccountRenameMutation"), subscription: await load("AccountEventsSubscription") };
  } finally {
    rmSync(dir, { recursive: true });
  }
}

const { user, ...tokens } = await signUp();
let { accessToken: token, refreshToken } = tokens;
let refreshes = 0;
async function renew() {
  refreshes++;
  ({ accessToken: token, refreshToken } = (await graphql(refresh, { token: refreshToken }, token)).session);
}

async function post(request, variables) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
    body: JSON.stringify({ query: request.text, variables }),
  });
  return response.json();
}

async function fetchFn(request, variables) {
  const response = await post(request, variables);
  if (!response.errors?.some((e) => authErrors.includes(e.extensions?.code))) return response;
  await renew();
  return post(request, variables);
}

const socket = createClient({
  url: socketURL,
  webSocketImpl: WebSocket,
  shouldRetry: () => true,
  retryAttempts: 50,
  retryWait: () => sleep(100),
  async connectionParams() {
    if (isExpired(token)) await renew();
    return { authorization: `Bearer ${token}` };
  },
});
const subscribeFn = (request, variables) => {
  const payload = { operationName: request.name, query: request.text, variables: { ...variables } };
  return Observable.create((sink) =>
    socket.subscribe(payload, {
      ...sink,
      next(result) {
        payload.variables.after = result.data.events.cursor; // for the next connection
        sink.next(result);
      },
    }),
  );
};

const environment = new Environment({ network: Network.create(fetchFn, subscribeFn), store: new Store(new RecordSource()) });
const query = () => fetchQuery(environment, documents.query, { id: user.id }, { fetchPolicy: "network-only" }).toPromise();
const stored = () => environment.lookup(createOperationDescriptor(documents.query, { id: user.id }).fragment).data.node?.name;
const retained = environment.retain(createOperationDescriptor(documents.query, { id: user.id }));

// A query renews the expired token.
await expiry(token);
assert.equal((await query()).node.username, user.username);
assert.equal(refreshes, 1);

// A mutation does, and changes the store.
await expiry(token);
const { updateUser } = await new Promise((onCompleted, onError) =>
  commitMutation(environment, { mutation: documents.mutation, variables: { input: { id: user.id, name: "Ada" } }, onCompleted, onError }),
);
assert.deepEqual([updateUser.userErrors, stored(), refreshes], [[], "Ada", 2]);

// A subscription brings what other clients change, also while the server is away.
const after = await graphql("{ eventCursor }", {}, token);
const subscription = requestSubscription(environment, {
  subscription: documents.subscription,
  variables: { id: user.id, after },
  onError: (error) => assert.fail(error.stack ?? JSON.stringify(error)),
});
for (const name of ["Ada Lovelace", "Countess"]) {
  if (isExpired(token)) await renew();
  await graphql(rename, { id: user.id, name }, token);
  while (stored() !== name) await sleep(20);
  await kill();
  await start();
}
if (isExpired(token)) await renew();
await graphql(rename, { id: user.id, name: "Ada King" }, token);
while (stored() !== "Ada King") await sleep(20);
subscription.dispose();
retained.dispose();
console.log(`Relay: query, mutation and subscription with ${refreshes} refreshes`);
process.exit(0);
