// Tests of sessions and of the fetch wrapper against a server that is made up.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import { createFetch, createSession, memoryStorage } from "@backplane/client";

let server, url, refreshes, requests, answer;
const life = 300;

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const accessToken = (n, seconds = life) => `e.${encode({ n, iat: 1000, exp: 1000 + seconds })}.s`;
const tokens = (n, seconds) => ({ accessToken: accessToken(n, seconds), refreshToken: `r${n}` });

before(async () => {
  server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const { query, variables } = JSON.parse(body || "{}");
    const refresh = query?.includes("refreshSession");
    if (refresh) refreshes.push(variables.token);
    else requests.push({ authorization: request.headers.authorization, query });
    const { status = 200, headers = {}, json } = refresh ? { json: { data: { refreshSession: await renewed(variables.token) } } } : answer(request, query);
    response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(json));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${server.address().port}/graphql`;
});
after(() => server.close());
beforeEach(() => {
  refreshes = [];
  requests = [];
  answer = (request) => (request.headers.authorization === `Bearer ${accessToken(1)}` ? { status: 401, json: { errors: [{ extensions: { code: "TOKEN_EXPIRED" } }] } } : { json: { data: { viewer: null } } });
});

async function renewed(token) {
  await new Promise((resolve) => setTimeout(resolve, 50)); // so that other requests come meanwhile
  if (token === "r9") return { session: null, userErrors: [{ code: "REFRESH_TOKEN_INVALID" }] };
  return { session: tokens(Number(token.slice(1)) + 1), userErrors: [] };
}

const post = (fetch, query = "{ viewer { id } }") => fetch(url, { method: "POST", body: JSON.stringify({ query }) });

test("a refused token is renewed once for all requests, and each is repeated once", async () => {
  const session = createSession({ url, storage: memoryStorage() });
  session.set(tokens(1));
  const send = createFetch(session);
  const statuses = await Promise.all(Array.from({ length: 10 }, async () => (await post(send)).status));
  assert.deepEqual(statuses, Array(10).fill(200));
  assert.deepEqual(refreshes, ["r1"]);
  assert.equal(requests.length, 20);
});

test("tabs that share a storage renew a token once, without Web Locks too", async () => {
  const storage = memoryStorage();
  const tabs = [1, 2, 3, 4, 5].map((n) => createSession({ url, storage, name: "tabs" }));
  tabs[0].set(tokens(1));
  const changes = [];
  tabs[4].onChange(() => changes.push(true));
  const renewed = await Promise.all(tabs.map((tab) => tab.renew(accessToken(1))));
  assert.deepEqual(renewed, Array(5).fill(accessToken(2)));
  assert.deepEqual(refreshes, ["r1"]);
  while (changes.length === 0) await new Promise((resolve) => setTimeout(resolve, 5)); // of the tab that renewed it
});

test("a token is renewed before it ends, whatever the clock of the server says", async () => {
  const session = createSession({ url, storage: memoryStorage() });
  session.set(tokens(1, 0));
  assert.equal(await session.token(), accessToken(2));
  assert.equal(await session.token(), accessToken(2));
  assert.deepEqual(refreshes, ["r1"]);
});

test("a session that has ended is forgotten, and the answer is the refusal", async () => {
  let signedOut = 0;
  const session = createSession({ url, storage: memoryStorage(), onSignedOut: () => signedOut++ });
  session.set({ ...tokens(1), refreshToken: "r9" });
  assert.equal((await post(createFetch(session))).status, 401);
  assert.equal(session.signedIn, false);
  assert.equal(signedOut, 1);
  assert.equal((await post(createFetch(session))).status, 200); // without a token
  assert.equal(requests.at(-1).authorization, undefined);
});

test("a renewal that fails for another reason keeps the session", async () => {
  const session = createSession({ url, storage: memoryStorage(), fetch: () => Promise.reject(new TypeError("network")) });
  session.set(tokens(1));
  await assert.rejects(session.renew(), /network/);
  assert.equal(session.signedIn, true);
});

test("half an answer repeats a query, but no mutation", async () => {
  const session = createSession({ url, storage: memoryStorage() });
  answer = (request) => (request.headers.authorization === `Bearer ${accessToken(1)}`
    ? { headers: { "www-authenticate": 'Bearer error="invalid_token"' }, json: { data: { a: 1, b: null }, errors: [{ extensions: { code: "TOKEN_EXPIRED" } }] } }
    : { json: { data: { a: 1, b: 2 } } });
  session.set(tokens(1));
  assert.equal((await (await post(createFetch(session))).json()).data.b, 2);
  assert.equal(requests.length, 2);
  session.set(tokens(1));
  assert.equal((await (await post(createFetch(session), "mutation { a b }")).json()).data.b, null);
  assert.equal(requests.length, 3);
});

test("no other server gets the token", async () => {
  const session = createSession({ url: "http://api.invalid/graphql", storage: memoryStorage() });
  session.set(tokens(1));
  await post(createFetch(session));
  assert.equal(requests[0].authorization, undefined);
});
