import { kill, sleep, start } from "../../../conformance/clients/server.mjs";

/** Places orders one by one, some while the server is killed and started; returns their ids in the order of placing. */
export async function placeOrders(send, url, { count = 24, kills = [8, 16], name = "order" } = {}) {
  const placed = [];
  const document = `mutation($key: String!, $sku: String!) { placeOrder(input: {items: [{sku: $sku, quantity: 1}], idempotencyKey: $key}) { order { id } userErrors { code message } } }`;
  let restarting = Promise.resolve();
  for (let n = 0; n < count; n++) {
    if (kills.includes(n)) {
      await restarting;
      restarting = kill().then(start);
    }
    for (;;) {
      try {
        const response = await send(url, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ query: document, variables: { key: `${name} ${n}`, sku: "MUG-WHITE" } }) });
        const { data, errors } = await response.json();
        if (!data?.placeOrder?.order) throw new Error(JSON.stringify(errors ?? data));
        placed.push(data.placeOrder.order.id);
        break;
      } catch (error) {
        if (!/fetch failed|UNAVAILABLE|SERVER_BUSY/.test(error)) throw error;
        await sleep(20); // the server is away: the same order again
      }
    }
  }
  await restarting;
  return placed;
}
