// What the scripts of clients share: the server, which the test that runs the script kills and
// starts on request, and tokens.
import { createInterface } from "node:readline";

export const url = process.argv[2];
if (!url) {
  console.error(`usage: node ${process.argv[1]} http://127.0.0.1:8080/graphql`);
  process.exit(2);
}
export const socketURL = url.replace(/^http/, "ws");

const replies = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const command = async (text) => {
  console.log(text);
  await replies.next();
};

// kill ends the server as a crash would, and start brings it back, on the same address and data.
export const kill = () => command("kill");
export const start = () => command("start");

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

const claims = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url").toString());
/** Whether the token has expired, or will while a request is under way that takes so many milliseconds. */
export const isExpired = (token, milliseconds = 0) => Date.now() + milliseconds >= claims(token).exp * 1000;
export const expiry = async (token) => {
  while (!isExpired(token)) await sleep(100);
};

// graphql is the plainest client, for what is not under test.
export async function graphql(query, variables, token) {
  const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify({ query, variables }) });
  const { data, errors } = await response.json();
  if (errors) throw new Error(JSON.stringify(errors));
  return Object.values(data)[0];
}

let users = 0;
export async function signUp() {
  const { user, session } = await graphql(
    `mutation($name: String!) { signUp(input: {username: $name, password: "correct horse battery"}) { user { id username } session { accessToken refreshToken } userErrors { code } } }`,
    { name: `user${process.pid}${users++}` },
  );
  return { user, ...session };
}

export const rename = `mutation($id: ID!, $name: String!) { updateUser(input: {id: $id, name: $name}) { user { id name } userErrors { code } } }`;
export const refresh = `mutation Refresh($token: String!) { refreshSession(input: {refreshToken: $token}) { session { accessToken refreshToken } userErrors { code } } }`;
export const signIn = `mutation SignIn($login: String!) { signIn(input: {login: $login, password: "correct horse battery"}) { session { accessToken refreshToken } userErrors { code } } }`;
export const viewer = `query Viewer { viewer { id user { id username } } }`;

// authErrors are the codes that a client renews its token for.
export const authErrors = ["TOKEN_EXPIRED", "UNAUTHENTICATED"];
