// Follows a running server with EventSource and a ticket, as a page in a browser
// does, through a proxy that cuts the connection once. Usage: node tickets.mjs <url>
// It exits with 1 at the first difference.
import assert from "node:assert/strict";
import net from "node:net";
import { EventSource } from "eventsource";

const url = process.argv[2];
if (!url) {
  console.error("usage: node tickets.mjs http://127.0.0.1:8080/graphql");
  process.exit(2);
}

async function graphql(query, variables, token) {
  const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
  const { data, errors } = await (await fetch(url, { method: "POST", headers, body: JSON.stringify({ query, variables }) })).json();
  assert.equal(errors, undefined);
  const [result] = Object.values(data);
  assert.deepEqual(result.userErrors, []);
  return result;
}

const { user, session } = await graphql(
  `mutation { signUp(input: {username: "ada", password: "correct horse battery"}) { user { id } session { accessToken } userErrors { code } } }`,
);
const rename = (name) =>
  graphql(`mutation($id: ID!, $name: String!) { updateUser(input: {id: $id, name: $name}) { userErrors { code } } }`, { id: user.id, name }, session.accessToken);

// A proxy between the page and the server, whose connections can be cut.
const target = new URL(url);
const open = new Set();
const proxy = net.createServer((client) => {
  const server = net.connect(target.port, target.hostname);
  client.pipe(server).pipe(client);
  for (const end of [client, server]) end.on("error", () => {});
  open.add(client).add(server);
});
await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));

const { ticket } = await graphql(
  `mutation($query: String!, $variables: JSON) { createStreamTicket(input: {query: $query, variables: $variables}) { ticket userErrors { code } } }`,
  { query: `subscription($after: Cursor, $id: ID!) { userEvents(userId: $id, after: $after) { cursor type data } }`, variables: { id: user.id } },
  session.accessToken,
);
const source = new EventSource(`http://127.0.0.1:${proxy.address().port}${target.pathname}?ticket=${ticket}`);
const names = [];
let heard = () => {};
let ended; // the errors with which the stream ends
source.addEventListener("next", (event) => {
  const { data, errors, extensions } = JSON.parse(event.data);
  if (errors) {
    ended = errors;
    return;
  }
  assert.equal(event.lastEventId, data.userEvents.cursor);
  assert.equal(extensions.cursor, data.userEvents.cursor);
  names.push(data.userEvents.data.name);
  heard();
});
const next = () => new Promise((resolve) => (heard = resolve));

await new Promise((resolve) => (source.onopen = resolve));
let wait = next();
await rename("Ada");
await wait;
for (const end of open) end.destroy();
wait = next();
await rename("Ada Lovelace"); // while the page is away
await wait;
wait = next();
await rename("Countess");
await wait;
assert.deepEqual(names, ["Ada", "Ada Lovelace", "Countess"]);

const closed = new Promise((resolve) => source.addEventListener("complete", resolve));
await graphql("mutation { signOut(input: {}) { userErrors { code } } }", {}, session.accessToken).catch(() => {});
await closed;
assert.equal(ended[0].extensions.code, "UNAUTHENTICATED");
source.close();
console.log("tickets: EventSource followed the server over a cut, until its session ended");
process.exit(0);
