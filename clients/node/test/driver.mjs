// Does what lines of JSON on the standard input ask for, for the tests in e2e/client, and answers each by a line.
import { createInterface } from "node:readline";
import { Balancer, Client } from "../lib/index.js";
import { Policies } from "../lib/policy.js";

let client;
const things = {}; // registrations, watches and balancers, by key
// The code of a Backplane error, or the name: the code of an aborted call is a number.
const describe = (error) => (error === undefined ? "" : typeof error.code === "string" ? error.code : error.name);
const seconds = (n) => (n === undefined ? undefined : n * 1000);
const within = (n) => (n === undefined ? {} : { signal: AbortSignal.timeout(n * 1000) });

const commands = {
  new: ({ urls, token }) => void (client = new Client({ urls, token, timeout: 5000 })),
  define: (service) => client.defineService(service),
  async register({ key, timeout, ttl, drain, inflight, ...registration }) {
    const times = { ttl: seconds(ttl), drain: seconds(drain), inflight: inflight === undefined ? undefined : () => inflight };
    things[key] = await client.register({ ...registration, ...times }, within(timeout));
    return things[key].state.incarnation;
  },
  state({ key }) {
    const { state, error } = things[key];
    return { ...state, seen: state.seen.getTime() / 1000, trouble: describe(state.trouble), error: describe(error) };
  },
  drain: ({ key, reason }) => things[key].drain(reason),
  close: ({ key, timeout }) => things[key].close({ timeout: seconds(timeout) }),
  async watch({ key, service, timeout }) {
    things[key] = await client.watch(service, within(timeout));
  },
  set({ key }) {
    const { set, error } = things[key];
    const { instances, strategy, degraded, stale, trouble } = set;
    return { ids: instances.map((i) => i.instanceId), weights: instances.map((i) => i.weight), metadata: instances.map((i) => i.metadata), strategy, degraded: !!degraded, stale: !!stale, trouble: describe(trouble), error: describe(error) };
  },
  // Waits until the set has other instances than those, or its state is another.
  async next({ key, timeout }) {
    const watch = things[key];
    await watch.next(watch.set, within(timeout));
  },
  balance: ({ key, watch, strategy }) => void (things[key] = new Balancer(things[watch], strategy)),
  // Picks so many times; calls of the instance bad fail.
  pick({ key, count, keys = [], bad }) {
    return Array.from({ length: count }, (_, n) => {
      const pick = things[key].pick(keys[n]);
      pick.done(pick.instance.instanceId !== bad, 1);
      return pick.instance.instanceId;
    });
  },
  pickOther: ({ key, tried }) => {
    const pick = things[key].pickOther((instance) => tried.includes(instance.instanceId));
    pick.release();
    return pick.instance.instanceId;
  },
  // Picks by CONSISTENT_HASH among instances of the weights, without a registry.
  ring({ weights, keys }) {
    const policies = new Policies();
    policies.update(weights.map((weight, n) => ({ id: `id-${n}`, name: `i${n}`, weight, incarnation: 1, since: 0 })));
    return keys.map((key) => policies.pick("CONSISTENT_HASH", key).instance.name);
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...args } = JSON.parse(line);
  let answer;
  try {
    answer = { value: (await commands[name](args)) ?? null };
  } catch (error) {
    answer = { error: describe(error) || "Error", message: String(error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
process.exit();
