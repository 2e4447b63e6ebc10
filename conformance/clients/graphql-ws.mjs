// Does with graphql-ws what its documentation shows: connectionParams brings a token that has not expired
// to each connection, and a subscription that is sent again after a reconnect goes on after the last cursor.
import assert from "node:assert/strict";
import { createClient } from "graphql-ws";
import WebSocket from "ws";
import { graphql, isExpired, kill, refresh, rename, signUp, sleep, socketURL, start } from "./server.mjs";

const { user, ...tokens } = await signUp();
let { accessToken: token, refreshToken } = tokens;
async function current() {
  if (isExpired(token, 500)) ({ accessToken: token, refreshToken } = (await graphql(refresh, { token: refreshToken }, token)).session);
  return token;
}

const closes = [];
let connections = 0;
const client = createClient({
  url: socketURL,
  webSocketImpl: WebSocket,
  shouldRetry: () => true,
  retryAttempts: 50,
  retryWait: () => sleep(100),
  connectionParams: async () => ({ authorization: `Bearer ${await current()}` }),
  on: { connected: () => connections++, closed: (event) => closes.push(event.code) },
});

// After the cursor of a read, every event comes exactly once, whatever happens to the connection.
const names = [];
let heard = () => {};
const payload = {
  query: "subscription($after: Cursor, $id: ID!) { events(after: $after, subjectId: $id) { cursor data } }",
  variables: { id: user.id, after: await graphql("{ eventCursor }", {}, token) },
};
client.subscribe(payload, {
  next({ data, errors }) {
    assert.equal(errors, undefined);
    payload.variables.after = data.events.cursor; // so that the client sends it when it subscribes again
    names.push(data.events.data.name);
    heard();
  },
  error: (error) => assert.fail(JSON.stringify(error)),
  complete: () => assert.fail("the subscription ended"),
});
const made = [];
async function change() {
  made.push(`Ada ${made.length}`);
  await graphql(rename, { id: user.id, name: made.at(-1) }, await current());
}

// The token expires: the server closes with 4403, and the client connects with a new one.
while (!closes.includes(4403)) {
  await change();
  await sleep(100);
}
await change();
const all = async () => {
  while (names.length < made.length) await new Promise((resolve) => (heard = resolve));
};
await all();
// The server is killed: what happens before the client is back is not lost.
await kill();
await start();
await change();
await change();
await all();
assert.deepEqual(names, made);
assert.ok(connections >= 3, `${connections} connections`);
console.log(`graphql-ws: ${names.length} events over ${connections} connections, which were closed with ${closes}`);
process.exit(0);
