// Runs the pages of docs/frontend.md in a browser, each in two tabs, against a server that is killed twice while orders are
// placed. The tokens live for four seconds. Usage: node pages.mjs SERVER/graphql ORIGIN_OF_THE_PAGES BROWSER
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { build } from "esbuild";
import puppeteer from "puppeteer-core";
import { createFetch, createSession, memoryStorage } from "@backplane/client";
import { graphql, sleep, url } from "../../../conformance/clients/server.mjs";
import { placeOrders } from "./orders.mjs";

const [origin, executablePath] = process.argv.slice(3);
const names = ["apollo", "urql"];
const pages = Object.fromEntries(await Promise.all(names.map(async (name) => [`/${name}`, await bundle(name)])));

/** Returns the page of the documentation with its modules in it. */
async function bundle(name) {
  const text = readFileSync("../../docs/frontend.md", "utf8");
  const page = text.match(new RegExp("^```html " + name + "\n(.*?)^```", "ms"))[1];
  assert.ok(page.trim().split("\n").length < 30, `the page of ${name} has less than 30 lines`);
  const [, head, script, foot] = page.match(/(.*<script type="module">)(.*)(<\/script>.*)/s);
  const contents = script.replace("http://127.0.0.1:8080/graphql", url);
  const { outputFiles } = await build({ stdin: { contents, resolveDir: "." }, bundle: true, format: "esm", write: false, define: { "process.env.NODE_ENV": '"production"' } });
  return `${head}${outputFiles[0].text.replaceAll("</script", "<\\/script")}${foot}`;
}

const server = createServer(({ url }, response) => response.writeHead(pages[url] ? 200 : 404, { "content-type": "text/html; charset=utf-8" }).end(pages[url]));
await new Promise((resolve) => server.listen(new URL(origin).port, "127.0.0.1", resolve));
const browser = await puppeteer.launch({ executablePath, args: ["--no-sandbox"] });
const problems = [];
const refreshes = [];
const received = new Map(); // the orders in the messages to each tab: the pages themselves show an order once

async function open(context, name) {
  const tab = await context.newPage();
  tab.on("pageerror", (error) => problems.push(`${name}: ${error.stack ?? error}`));
  tab.on("console", (message) => message.text().startsWith("backplane:") && problems.push(`${name}: ${message.text()}`));
  tab.on("request", (request) => {
    if (request.method() === "POST" && request.postData()?.includes("refreshSession")) refreshes.push(JSON.parse(request.postData()).variables.token);
  });
  const wire = await tab.createCDPSession();
  wire.on("Network.webSocketFrameReceived", ({ response }) => {
    const { type, payload } = JSON.parse(response.payloadData);
    const event = type === "next" && payload.data?.orderEvents;
    if (event && event.type === "ORDER_PLACED") received.get(tab).push(event.subject.id);
  });
  received.set(tab, []);
  await wire.send("Network.enable");
  await tab.goto(`${origin}/${name}`);
  return tab;
}

const idsOf = (tab) => tab.$$eval("li", (items) => items.map((item) => item.id));
async function until(what, condition) {
  for (const end = Date.now() + 60_000; !(await condition()); await sleep(50)) if (Date.now() > end) throw new Error(`${what}: not in a minute. ${problems.join("\n")}`);
}

try {
  const login = `page${process.pid}`;
  const { session: tokens } = await signUp(login);
  const session = createSession({ url, storage: memoryStorage() });
  session.set(tokens);

  // Each page in a browser of its own with two tabs: the second is signed in by the first.
  const tabs = [];
  for (const name of names) {
    const context = await browser.createBrowserContext();
    const first = await open(context, name);
    await first.type("input[name=login]", login);
    await first.type("input[name=password]", "correct horse battery");
    await first.click("button");
    await until(`${name} signs in`, () => first.evaluate(() => localStorage.getItem("backplane") !== null));
    tabs.push([name, first], [`${name}, second tab`, await open(context, name)]);
  }
  const send = createFetch(session);
  const placed = await placeOrders(send, url, { count: 3, kills: [] });
  for (const [name, tab] of tabs) await until(`${name} follows`, async () => (await idsOf(tab)).length === 3);

  // Long enough that each tab renews its token: all four with what the other of their browser renewed.
  await until("tokens are renewed", () => refreshes.length >= 4);
  assert.equal(new Set(refreshes).size, refreshes.length, "each refresh token is used once, whatever tab needs it");

  placed.push(...(await placeOrders(send, url, { name: "killed" })));
  for (const [name, tab] of tabs) await until(`${name} has all`, async () => (await idsOf(tab)).length >= placed.length);
  await sleep(200); // for orders that come twice
  for (const [name, tab] of tabs) assert.deepEqual([await idsOf(tab), received.get(tab)], [placed, placed], name);

  // Reloaded, a page shows the same list.
  await tabs[0][1].reload();
  await until("the reloaded page shows the list", async () => (await idsOf(tabs[0][1])).length === placed.length);
  assert.deepEqual(await idsOf(tabs[0][1]), placed);
  assert.deepEqual(problems, []);
  console.log(`pages: ${tabs.map(([name]) => name).join("; ")}: ${placed.length} orders each, once; ${refreshes.length} refreshes`);
} finally {
  await browser.close();
}
process.exit(0);

function signUp(username) {
  return graphql(`mutation($name: String!) { signUp(input: {username: $name, password: "correct horse battery"}) { session { accessToken refreshToken } userErrors { code } } }`, { name: username });
}
