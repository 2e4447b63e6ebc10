// Follows a running server that is killed twice while orders are placed, with each client that the package
// serves: none may miss an order or get one twice. The tokens live for four seconds.
// Usage: node live.mjs http://127.0.0.1:8080/graphql, with the test that kills the server at the other end of the standard streams.
import assert from "node:assert/strict";
import { ApolloClient, ApolloLink, gql, HttpLink, InMemoryCache } from "@apollo/client";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { createFetch, createSession, followStream, memoryStorage } from "@backplane/client";
import { apolloLink } from "@backplane/client/apollo";
import { urqlExchange } from "@backplane/client/urql";
import { createSocket } from "@backplane/client/ws";
import { Client, fetchExchange, subscriptionExchange } from "@urql/core";
import { EventSource } from "eventsource";
import WebSocket from "ws";
import { graphql, signUp, url } from "../../../conformance/clients/server.mjs";
import { placeOrders } from "./orders.mjs";

globalThis.WebSocket = WebSocket; // Apollo Client looks at it
const { user, ...tokens } = await signUp();
const closes = [];
let renewals = 0;
const options = { webSocketImpl: WebSocket, on: { closed: (event) => closes.push(event.code), pong: (received, payload) => (renewals += received && payload?.expiresAt ? 1 : 0) } };
const storage = memoryStorage();
const newSession = () => createSession({ url, storage }); // as many tabs, whose user is the same
const session = newSession();
session.set(tokens);
const after = await graphql("{ eventCursor }", {}, tokens.accessToken);
const query = "subscription Orders($after: Cursor) { orderEvents(after: $after) { type subjectId } }";
const variables = { after };

const got = {};
const collect = (name) => {
  got[name] = [];
  return (data) => data.orderEvents.type === "ORDER_PLACED" && got[name].push(data.orderEvents.subjectId);
};
const failed = (name) => (error) => {
  console.error(name, error);
  process.exit(1);
};

const next = { "graphql-ws": collect("graphql-ws"), Apollo: collect("Apollo"), urql: collect("urql"), EventSource: collect("EventSource") };
createSocket(session, options).subscribe({ query, variables }, { next: ({ data }) => next["graphql-ws"](data), error: failed("graphql-ws"), complete: failed("graphql-ws") });

const apollo = new ApolloClient({ link: apolloLink(newSession(), { ApolloLink, HttpLink, GraphQLWsLink }, options), cache: new InMemoryCache() });
apollo.subscribe({ query: gql(query), variables }).subscribe({ next: ({ data, error }) => (error ? failed("Apollo")(error) : next.Apollo(data)), error: failed("Apollo"), complete: failed("Apollo") });

const urql = new Client({ url, fetch: createFetch(session), preferGetMethod: false, exchanges: [fetchExchange, urqlExchange(newSession(), subscriptionExchange, options)] });
urql.subscription(query, variables).subscribe(({ data, error }) => (error ? failed("urql")(error) : next.urql(data)));

followStream(newSession(), { query, variables }, { next: next.EventSource, error: failed("EventSource") }, EventSource);

const placed = await placeOrders(createFetch(session), url);
while (renewals < 3) await new Promise((resolve) => setTimeout(resolve, 20)); // one on each connection
placed.push(...(await placeOrders(createFetch(session), url, { count: 3, kills: [], name: "late order" })));
while (Object.values(got).some((ids) => ids.length < placed.length)) await new Promise((resolve) => setTimeout(resolve, 20));
for (const [name, ids] of Object.entries(got)) assert.deepEqual(ids, placed, name);
assert.ok(!closes.includes(4403), `tokens are renewed on the connection, which was closed with ${closes}`);
assert.ok(closes.length >= 6, `three connections are cut twice, but were closed with ${closes}`);

// A cursor that the server does not know is told to the page.
const gap = await new Promise((onGap) => createSocket(session, { ...options, onGap }).subscribe({ query, variables: { after: after.slice(0, -4) + "AAAA" } }, { next() {}, error() {}, complete() {} }));
assert.match(gap.code, /^CURSOR_(UNKNOWN|EXPIRED)$/);

// So are clients: queries and mutations of theirs renew the token.
assert.equal((await apollo.query({ query: gql("{ viewer { id user { id } } }") })).data.viewer.user.id, user.id);
assert.equal((await urql.query("{ viewer { user { id } } }", {})).data.viewer.user.id, user.id);
console.log(`live: ${Object.keys(got).join(", ")} got ${placed.length} orders each, once, over ${closes.length} closed connections and ${renewals} renewals`);
process.exit(0);
