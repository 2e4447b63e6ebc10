// Uses GraphiQL as a newcomer does, in a browser: node graphiql.mjs URL BROWSER
import assert from "node:assert/strict";
import puppeteer from "puppeteer-core";

const [url, executablePath] = process.argv.slice(2);
const browser = await puppeteer.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
try {
  await usePage(await browser.newPage());
} finally {
  await browser.close();
}

async function usePage(page) {
  const failures = [];
  page.on("pageerror", (e) => failures.push(e.message));
  await page.goto(url);
  await page.waitForSelector(".graphiql-tab");
  assert.deepEqual(await tabs(page), ["Products", "SignUp", "PlaceOrder", "FollowOrders"]);

  await run(page, "Products");
  const products = await result(page, (r) => r.data?.products);
  assert.ok(products.data.products.nodes.length > 0, "there are products");
  await run(page, "SignUp");
  const signedUp = await result(page, (r) => r.data?.signUp);
  assert.deepEqual(signedUp.data.signUp.userErrors, []);

  await signIn(page, "not the password");
  await page.waitForFunction(() => document.querySelector("#account-error").textContent !== "");
  await signIn(page, "a long enough password");
  await page.waitForFunction(() => document.querySelector("#account-name").textContent === "grace");
  await run(page, "PlaceOrder");
  const placed = await result(page, (r) => r.data?.placeOrder);
  assert.equal(placed.data.placeOrder.order.status, "PENDING");

  await run(page, "FollowOrders");
  const events = await result(page, (r) => r.received >= 3, () => placeOrder(page)); // none arrives before the subscription has begun
  const times = events.newestFirst.map((r) => r.data.orderEvents.occurredAt);
  assert.deepEqual(times, times.toSorted().reverse(), "a list, the newest first");
  await new Promise((done) => setTimeout(done, 5500)); // longer than a token is valid
  await placeOrder(page);
  await result(page, (r) => r.received > events.received);

  await page.reload();
  await page.waitForFunction(() => document.querySelector("#account-name")?.textContent === "grace");
  await page.waitForSelector(".graphiql-tab");
  assert.equal((await tabs(page)).length, 4, "tabs survive a reload");
  await run(page, "PlaceOrder");
  await result(page, (r) => r.data?.placeOrder?.order);

  await page.setViewport({ width: 390, height: 844 });
  const layout = await page.evaluate(() => {
    const box = (selector) => document.querySelector(selector).getBoundingClientRect();
    const [editor, response, play] = [box(".graphiql-editors"), box(".graphiql-response"), box(".graphiql-execute-button")];
    return { width: document.documentElement.scrollWidth, stacked: response.top >= editor.bottom - 1, play: play.right <= 390, response: Math.round(response.width) };
  });
  assert.equal(layout.width, 390, "nothing stands beyond the screen");
  assert.ok(layout.stacked && layout.play && layout.response > 250, JSON.stringify(layout));

  await page.click("#sign-out button");
  await page.waitForSelector("#sign-in:not([hidden])");
  assert.deepEqual(failures, []);
}

function tabs(page) {
  return page.$$eval(".graphiql-tab-button", (all) => all.map((tab) => tab.textContent));
}

// run chooses the tab of the name and presses the play button once the page has parsed its operation.
async function run(page, name) {
  const all = await page.$$(".graphiql-tab-button");
  await all[(await tabs(page)).indexOf(name)].click();
  await page.waitForFunction((name) => document.querySelector(".graphiql-query-editor .CodeMirror")?.CodeMirror.getValue().includes(name), {}, name);
  await new Promise((done) => setTimeout(done, 400));
  await page.click(".graphiql-execute-button");
}

// result waits until the shown response fits.
async function result(page, fits, between = () => {}) {
  for (let tries = 0; ; tries++) {
    const text = await page.$eval(".result-window .CodeMirror", (e) => e.CodeMirror.getValue());
    try {
      const shown = JSON.parse(text);
      if (fits(shown)) return shown;
    } catch (e) {
      if (!(e instanceof SyntaxError)) throw e;
    }
    assert.ok(tries < 300, `the page shows ${text}`);
    await new Promise((done) => setTimeout(done, 100));
    if (tries % 5 === 4) await between();
  }
}

async function signIn(page, password) {
  for (const [name, value] of Object.entries({ login: "grace", password })) {
    await page.$eval(`#sign-in input[name=${name}]`, (input, value) => { input.value = value; }, value);
  }
  await page.click("#sign-in button");
}

// placeOrder places an order outside of GraphiQL.
function placeOrder(page) {
  return page.evaluate(async () => {
    const headers = { "Content-Type": "application/json", ...(await window.backplaneAccount.authorization()) };
    const query = `mutation { placeOrder(input: {items: [{sku: "TEA-GREEN", quantity: 1}]}) { order { id } } }`;
    await fetch("graphql", { method: "POST", headers, body: JSON.stringify({ query }) });
  });
}
