// Does with Apollo Client what its documentation shows: an ErrorLink renews an expired token by a mutation
// and forwards the operation again, a RetryLink waits for a server that is away.
import assert from "node:assert/strict";
import { ApolloClient, ApolloLink, gql, HttpLink, InMemoryCache } from "@apollo/client";
import { CombinedGraphQLErrors } from "@apollo/client/errors";
import { SetContextLink } from "@apollo/client/link/context";
import { ErrorLink } from "@apollo/client/link/error";
import { RetryLink } from "@apollo/client/link/retry";
import { from, switchMap } from "rxjs";
import { authErrors, expiry, graphql, kill, refresh, signIn, signUp, start, url, viewer } from "./server.mjs";

const account = await signUp();
let { accessToken: token, refreshToken } = account;
let refreshes = 0;

const authLink = new SetContextLink(({ headers }) => ({ headers: { ...headers, authorization: `Bearer ${token}` } }));
const errorLink = new ErrorLink(({ error, operation, forward }) => {
  const renewable = CombinedGraphQLErrors.is(error) && error.errors.some((e) => authErrors.includes(e.extensions?.code));
  if (!renewable || operation.getContext().renewed) return undefined;
  refreshes++;
  const renewed = client.mutate({ mutation: gql(refresh), variables: { token: refreshToken }, context: { renewed: true } }).then(({ data }) => {
    if (data.refreshSession.session) ({ accessToken: token, refreshToken } = data.refreshSession.session);
  });
  operation.setContext({ renewed: true });
  return from(renewed).pipe(switchMap(() => forward(operation)));
});
const retryLink = new RetryLink({ delay: { initial: 50, max: 500, jitter: true }, attempts: { max: 50, retryIf: (error) => !CombinedGraphQLErrors.is(error) } });
const client = new ApolloClient({
  cache: new InMemoryCache(),
  link: ApolloLink.from([errorLink, authLink, retryLink, new HttpLink({ uri: url })]),
  defaultOptions: { query: { fetchPolicy: "network-only" } },
});
const ask = async (query) => (await client.query({ query: gql(query) })).data;

// A token that has expired: public data needs none, the rest renews it.
await expiry(token);
assert.deepEqual((await ask("query Products { products(first: 1) { nodes { id } } }")).products.nodes, []);
assert.equal(refreshes, 0);
assert.equal((await ask(viewer)).viewer.user.username, account.user.username);
assert.equal(refreshes, 1);

// Half of a document fails: both halves are answered in the end.
await expiry(token);
const both = await ask("query Both { products(first: 1) { nodes { id } } viewer { id } }");
assert.deepEqual([both.products.nodes.length, both.viewer !== null, refreshes], [0, true, 2]);

// The server is killed, and comes back while the client retries.
await kill();
const retried = ask(viewer);
await start();
assert.equal((await retried).viewer.user.username, account.user.username);

// The session ended elsewhere: refreshing fails, and signing in works with the old header.
await graphql("mutation { signOut(input: {}) { userErrors { code } } }", {}, token);
await assert.rejects(ask(viewer), (error) => CombinedGraphQLErrors.is(error) && error.errors[0].extensions.code === "UNAUTHENTICATED");
const { data } = await client.mutate({ mutation: gql(signIn), variables: { login: account.user.username } });
({ accessToken: token, refreshToken } = data.signIn.session);
assert.equal((await ask(viewer)).viewer.user.username, account.user.username);
console.log("Apollo Client: refreshed, retried and signed in again");
process.exit(0);
