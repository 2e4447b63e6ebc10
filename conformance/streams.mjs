// Speaks to a running server with the clients that applications use: graphql-ws,
// graphql-sse, subscriptions-transport-ws and EventSource. Usage: node streams.mjs <url>
// The schema must be that of streams_test.go. It exits with 1 at the first
// difference.
import assert from "node:assert/strict";
import { EventSource } from "eventsource";
import { createClient as createEventsClient } from "graphql-sse";
import { createClient as createSocketClient } from "graphql-ws";
import legacy from "subscriptions-transport-ws";
import WebSocket from "ws";

const url = process.argv[2];
if (!url) {
  console.error("usage: node streams.mjs http://127.0.0.1:8080/graphql");
  process.exit(2);
}
const socketURL = url.replace(/^http/, "ws");
const both = [{ data: { tocks: 1 } }, { data: { tocks: 2 } }];

// all collects the results of one operation of a client.
function all(client, query, variables) {
  return new Promise((resolve, reject) => {
    const results = [];
    client.subscribe({ query, variables }, { next: (result) => results.push(result), error: reject, complete: () => resolve(results) });
  });
}

async function speaksLikeOthers(client) {
  const who = "usr_1";
  assert.deepEqual(await all(client, "{hello}"), [{ data: { hello: who } }]);
  assert.deepEqual(await all(client, "mutation{touch}"), [{ data: { touch: "touched" } }]);
  assert.deepEqual(await Promise.all([all(client, "subscription{tocks}"), all(client, "subscription{tocks}")]), [both, both]);
  assert.deepEqual(await all(client, "subscription($n:Int){ticks(upTo:$n)}", { n: 7 }), [{ data: { ticks: 7 }, extensions: { cursor: "c7" } }]);
}

// stopping ends a subscription that would go on for ever, and then uses the client again.
async function stops(client) {
  for await (const result of client.iterate({ query: "subscription{ticks}" })) {
    assert.deepEqual(result, { data: { ticks: 1 } });
    break;
  }
  assert.deepEqual(await all(client, "subscription{tocks}"), both);
}

const checks = {
  "graphql-ws": async () => {
    const closed = [];
    const client = createSocketClient({
      url: socketURL, webSocketImpl: WebSocket, lazy: false, keepAlive: 20, onNonLazyError: () => {},
      connectionParams: { authorization: "Bearer good" }, on: { closed: (event) => closed.push(event.code) },
    });
    await speaksLikeOthers(client);
    await stops(client);
    await assert.rejects(all(client, "{nothing}"), (errors) => Array.isArray(errors) && errors[0].extensions.code === "GRAPHQL_VALIDATION_FAILED");
    assert.deepEqual(await all(client, "subscription{tocks}"), both); // on the same socket
    assert.deepEqual(closed, []);
    await client.dispose();
  },
  "graphql-ws, refused": async () => {
    const client = createSocketClient({ url: socketURL, webSocketImpl: WebSocket, retryAttempts: 0, connectionParams: { authorization: "bad" } });
    await assert.rejects(all(client, "{hello}"), (event) => event.code === 4403);
  },
  "graphql-sse": async () => {
    const client = createEventsClient({ url, headers: { authorization: "Bearer good" }, retryAttempts: 0 });
    await speaksLikeOthers(client);
    await stops(client);
    assert.equal((await all(client, "{nothing}"))[0].errors[0].extensions.code, "GRAPHQL_VALIDATION_FAILED");
    client.dispose();
  },
  "graphql-sse, single connection": async () => {
    const client = createEventsClient({ url, singleConnection: true, headers: { authorization: "Bearer good" }, retryAttempts: 0 });
    await speaksLikeOthers(client);
    await stops(client);
    client.dispose();
  },
  "subscriptions-transport-ws": async () => {
    const client = new legacy.SubscriptionClient(socketURL, { connectionParams: { authorization: "Bearer good" } }, WebSocket);
    const request = (query, variables) =>
      new Promise((resolve, reject) => {
        const results = [];
        client.request({ query, variables }).subscribe({ next: (result) => results.push(result), error: reject, complete: () => resolve(results) });
      });
    await speaksLikeOthers({ subscribe: ({ query, variables }, sink) => request(query, variables).then((results) => (results.forEach(sink.next), sink.complete()), sink.error) });
    await new Promise((resolve, reject) => {
      const live = client.request({ query: "subscription{ticks}" }).subscribe({
        next: (result) => (live.unsubscribe(), resolve(assert.deepEqual(result, { data: { ticks: 1 } }))), error: reject,
      });
    });
    await assert.rejects(request("{nothing}"), (error) => error.extensions.code === "GRAPHQL_VALIDATION_FAILED");
    assert.deepEqual(await request("subscription{tocks}"), both);
    client.close();
  },
  EventSource: async () => {
    const source = new EventSource(`${url}?query=${encodeURIComponent("subscription{ticks(upTo:7)}")}`);
    const results = await new Promise((resolve, reject) => {
      const results = [];
      source.addEventListener("next", (event) => results.push([event.lastEventId, JSON.parse(event.data).data]));
      source.addEventListener("complete", () => (source.close(), resolve(results)));
      source.onerror = reject;
    });
    assert.deepEqual(results, [["c7", { ticks: 7 }]]);
  },
};

for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
  } catch (cause) {
    console.error(`${name}:`, cause);
    process.exit(1);
  }
}
console.log(`streams: ${Object.keys(checks).length} clients understood the server`);
process.exit(0);
