// Opens each operation of the page of the legacy REST routes in a browser, presses "Execute" and wants a 2xx.
// Path parameters, and the bodies of the few operations that speak of one object, come from the demo data.
// Usage: node docs.mjs URL BROWSER LOGIN PASSWORD, those of an ADMIN of the demo
import puppeteer from "puppeteer-core";

const [url, executablePath, login, password] = process.argv.slice(2);
const post = async (path, body, token) => {
  const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
  const response = await fetch(url + path, { method: "POST", headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`POST ${path}: ${response.status} ${await response.text()}`);
  return response.json();
};
const signIn = async () => (await post("/auth/sign-in", { login, password })).access_token;
let key = await signIn();
let signedInAt = Date.now();
const get = async (path) => {
  const response = await fetch(url + path, { headers: { authorization: `Bearer ${key}` } });
  if (!response.ok) throw new Error(`GET ${path}: ${response.status} ${await response.text()}`);
  return response.json();
};
const orderWith = async (status) => (await get(`/orders?status=${status}&limit=2`)).map((order) => order.id);
const [pending, paid, shipped] = [await orderWith("PENDING"), await orderWith("PAID"), await orderWith("SHIPPED")];
const products = (await get("/products?limit=100"));
const tea = products.find((product) => product.sku === "TEA-GREEN").id;
const users = (await get("/users?limit=100"));
const user = (name) => users.find((user) => user.username === name).id;
const { id: instance, incarnation } = (await get("/services/echo/instances"))[0];
const visitor = { username: "visitor", password: "a long enough password" };
await post("/users", visitor);
const session = await post("/auth/sign-in", { login: visitor.username, password: visitor.password });

await post("/orders", { items: [{ sku: "TEA-GREEN", quantity: 1 }] }, key);
let payments = [];
for (let tries = 0; payments.length === 0 && tries < 120; tries++) { // the payment is made a moment after the order
  await new Promise((resolve) => setTimeout(resolve, 250));
  payments = await get("/payments?limit=1");
}

const product = { id: tea };
const service = { name: "echo" };
const ofInstance = { name: "echo", instance_id: instance };
const values = {
  getOrder: { id: pending[0] }, cancelOrder: { id: pending[0] }, shipOrder: { id: paid[0] }, refundOrder: { id: paid[1] }, deliverOrder: { id: shipped[0] }, getPayment: { id: payments[0].id },
  getProduct: product, changeProduct: product, replaceProduct: product, adjustStock: product, withdrawProduct: { id: products[0].id },
  getUser: { id: user("carol") }, changeUser: { id: user("tom") }, replaceUser: { id: user("tom") }, setPassword: { id: user("nora") }, deleteUser: { id: user("mei") },
  getService: service, replaceService: service, listInstances: service, addInstance: service, pickInstance: service, deregisterService: { name: "mirror" },
  registerInstance: { name: "echo", instance_id: "mine" }, instanceHealth: ofInstance, heartbeat: ofInstance, changeInstance: ofInstance, drainInstance: ofInstance, setInstanceMaintenance: ofInstance, deregisterInstance: ofInstance,
};
const bodies = {
  signIn: { login: visitor.username, password: visitor.password },
  refreshSession: { refresh_token: session.refresh_token },
  heartbeat: { incarnation },
  changeInstance: { weight: 2 },
  drainInstance: { reason: "update" },
  setInstanceMaintenance: { enabled: false },
  reportOutcome: async () => ({ lease: (await post("/services/echo/pick", {}, key)).lease, ok: true }), // a pick is valid for a minute
  createProduct: { sku: "TEA-WHITE", name: "White tea", price: { amount: "12.90", currency: "EUR" } },
  createUser: { username: "grace", password: "a long enough password" },
  changeUser: { username: "thomas" },
  replaceUser: { username: "thomas" },
};

const browser = await puppeteer.launch({ executablePath, args: ["--no-sandbox"], defaultViewport: { width: 800, height: 400 } });
const failures = [];
let count = 0;
try {
  const page = await browser.newPage();
  page.on("pageerror", (error) => failures.push(`the page: ${error}`));
  await page.goto(`${url}/docs`);
  await page.waitForSelector(".opblock");
  await authorize(page);
  const ids = await page.$$eval(".opblock", (blocks) => blocks.map((block) => block.id));
  const toggle = (tag) => page.$eval(`[id="operations-tag-${tag}"]`, (element) => element.click());
  const tagOf = (id) => id.split("-")[1];
  for (const tag of new Set(ids.map(tagOf))) await toggle(tag); // what is closed costs no time
  let open;
  const deletes = (id) => /-(delete|deregister|withdraw)[A-Z]/.test(id); // what they remove, others need
  for (const id of ids.sort((a, b) => deletes(a) - deletes(b))) {
    const name = id.split("-").at(-1);
    if (open !== tagOf(id)) {
      if (open) await toggle(open);
      await toggle((open = tagOf(id)));
      await page.waitForSelector(`[id="${id}"]`);
    }
    if (Date.now() - signedInAt > 120_000) { // an access token is valid for five minutes
      [key, signedInAt] = [await signIn(), Date.now()];
      await authorize(page);
    }
    await run(page, id, name).catch((error) => failures.push(`${name}: ${error}`));
    count++;
  }
} finally {
  await browser.close();
}

// authorize gives the page the token, in place of an older one.
async function authorize(page) {
  await page.click(".auth-wrapper .authorize");
  await page.waitForSelector(".auth-btn-wrapper");
  for (const button of await page.$$(".auth-btn-wrapper .auth:not(.authorize):not(.btn-done)")) await button.click(); // signs out
  await page.waitForSelector(".auth-container input");
  await page.type(".auth-container input", key);
  await page.click(".auth-btn-wrapper .authorize");
  await page.click(".auth-btn-wrapper .btn-done");
}

async function run(page, id, name) {
  const within = (selector) => `[id="${id}"] ${selector}`;
  const click = (selector) => page.$eval(within(selector), (element) => element.click());
  await click(".opblock-summary-control");
  await page.waitForSelector(within(".try-out__btn"), { timeout: 30_000 });
  await click(".try-out__btn");
  await page.waitForSelector(within(".execute"), { timeout: 30_000 });
  const fill = (selector, value) =>
    page.$eval(within(selector), (element, value) => {
      Object.getOwnPropertyDescriptor(Object.getPrototypeOf(element), "value").set.call(element, value); // past React, which looks for changes
      element.dispatchEvent(new Event(element.tagName === "TEXTAREA" ? "change" : "input", { bubbles: true }));
      element.dispatchEvent(new FocusEvent("focusout", { bubbles: true }));
    }, value);
  for (const [param, value] of Object.entries(values[name] ?? {})) await fill(`tr[data-param-name="${param}"][data-param-in="path"] input`, String(value));
  const body = typeof bodies[name] === "function" ? await bodies[name]() : bodies[name];
  if (body) await fill("textarea.body-param__text", JSON.stringify(body));
  await new Promise((resolve) => setTimeout(resolve, 100)); // the page takes what was typed a moment later
  await click(".execute");
  await page.waitForSelector(within(".live-responses-table .response-col_status"), { timeout: 30_000 }).catch(() => undefined);
  const status = await page.$eval(within(".live-responses-table tr.response .response-col_status"), (element) => element.textContent).catch(() => "nothing was sent");
  const text = await page.$$eval(within(".live-responses-table .microlight, .opblock-body .validation-errors"), (all) => all.map((element) => element.textContent).join(" ")).catch(() => "");
  if (!/^2\d\d/.test(status)) failures.push(`${name}: ${status} ${text.replace(/\s+/g, " ").slice(0, 420)}`);
  await click(".opblock-summary-control");
}

if (failures.length > 0) {
  console.error(failures.join("\n"));
  process.exit(1);
}
console.log(`docs: ${count} operations answered with 2xx`);
process.exit(0);
