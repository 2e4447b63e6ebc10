// Does with urql what its documentation shows: authExchange renews an expired token by a mutation and
// repeats what failed, retryExchange waits for a server that is away.
import assert from "node:assert/strict";
import { cacheExchange, createClient, fetchExchange } from "@urql/core";
import { authExchange } from "@urql/exchange-auth";
import { retryExchange } from "@urql/exchange-retry";
import { authErrors, expiry, graphql, kill, refresh, signIn, signUp, start, url, viewer } from "./server.mjs";

const account = await signUp();
let { accessToken: token, refreshToken } = account;
let refreshes = 0;
let loggedOut = false;
const client = createClient({
  url,
  preferGetMethod: false,
  requestPolicy: "network-only",
  exchanges: [
    cacheExchange,
    retryExchange({ initialDelayMs: 50, maxDelayMs: 500, randomDelay: true, maxNumberAttempts: 50, retryIf: (error) => Boolean(error?.networkError) }),
    authExchange(async (utils) => ({
      addAuthToOperation: (operation) => (token ? utils.appendHeaders(operation, { Authorization: `Bearer ${token}` }) : operation),
      didAuthError: (error) => error.graphQLErrors.some((e) => authErrors.includes(e.extensions?.code)),
      async refreshAuth() {
        refreshes++;
        const result = await utils.mutate(refresh, { token: refreshToken }); // with the expired token in its header
        if (result.data?.refreshSession?.session) {
          ({ accessToken: token, refreshToken } = result.data.refreshSession.session);
        } else {
          loggedOut = true;
        }
      },
    })),
    fetchExchange,
  ],
});

const ask = async (query, variables) => {
  const result = await client.query(query, variables).toPromise();
  assert.equal(result.error, undefined);
  return result;
};

// A token that has expired: public data needs none, and the answer says so; the rest renews it.
await expiry(token);
const { data, extensions } = await ask("query Products { products(first: 1) { nodes { id } } }");
assert.deepEqual(data.products.nodes, []);
assert.equal(extensions.credential.code, "TOKEN_EXPIRED");
assert.equal(refreshes, 0);
assert.equal((await ask(viewer)).data.viewer.user.username, account.user.username);
assert.equal(refreshes, 1);

// Half of a document fails: both halves are answered in the end.
await expiry(token);
const both = await ask("query Both { products(first: 1) { nodes { id } } viewer { id } }");
assert.deepEqual([both.data.products.nodes.length, both.data.viewer !== null, refreshes], [0, true, 2]);

// The server is killed, and comes back while the client retries.
await kill();
const retried = ask(viewer);
await start();
assert.equal((await retried).data.viewer.user.username, account.user.username);

// The session ended elsewhere: refreshing fails, and signing in works with the old header.
await graphql("mutation { signOut(input: {}) { userErrors { code } } }", {}, token);
const ended = await client.query(viewer, {}).toPromise();
assert.ok(ended.error.graphQLErrors.every((e) => e.extensions.code === "UNAUTHENTICATED"));
assert.ok(loggedOut);
const signedIn = await client.mutation(signIn, { login: account.user.username }).toPromise();
assert.equal(signedIn.error, undefined);
({ accessToken: token, refreshToken } = signedIn.data.signIn.session);
assert.equal((await ask(viewer)).data.viewer.user.username, account.user.username);
console.log("urql: refreshed, retried and signed in again");
process.exit(0);
