import assert from "node:assert/strict";
import { test } from "node:test";
import { NoInstanceError } from "../lib/errors.js";
import { Policies, Strategy } from "../lib/policy.js";

const strategies = Object.values(Strategy);

/** Policies with a clock that tests set, and instances of the weights that have been there for an hour. */
function given(...weights) {
  const clock = { now: 1_000_000_000 };
  const policies = new Policies({}, () => clock.now);
  const instances = weights.map((weight, n) => ({ id: `ins-${n}`, name: `i${n}`, weight, incarnation: 1, since: clock.now - 3_600_000 }));
  policies.update(instances);
  return { policies, clock, instances };
}

/** Picks n times, each call ending at once, and counts by name. */
function spread(policies, n, strategy = Strategy.roundRobin, outcome = () => [true, 1]) {
  const counts = {};
  for (let k = 0; k < n; k++) {
    const pick = policies.pick(strategy, `key-${k}`);
    const { name } = pick.instance;
    counts[name] = (counts[name] ?? 0) + 1;
    pick.done(...outcome(name, counts[name]));
  }
  return counts;
}

test("picks are fair by weight", () => {
  for (const strategy of strategies) {
    const counts = spread(given(1, 2, 3, 4).policies, 10_000, strategy);
    [1, 2, 3, 4].forEach((weight, n) => assert.ok(Math.abs(counts[`i${n}`] / 1000 - weight) < 0.2 * weight + 0.1, `${strategy}: ${JSON.stringify(counts)}`));
  }
});

test("round robin gives each its weight in every round, and heavy ones no turns in a row", () => {
  const { policies } = given(1, 1, 3);
  const turns = Array.from({ length: 50 }, () => policies.pick(Strategy.roundRobin).instance.name);
  for (let n = 0; n < 50; n += 5) assert.deepEqual(turns.slice(n, n + 5).sort(), ["i0", "i1", "i2", "i2", "i2"]);
  assert.ok(!turns.join("").includes("i2i2i2i2"));
});

test("least connections keeps the calls in flight within one of each other", () => {
  const { policies } = given(1, 1, 2);
  const open = { i0: 0, i1: 0, i2: 0 };
  for (let n = 1; n <= 40; n++) {
    open[policies.pick(Strategy.leastConnections).instance.name]++;
    if (n % 4 === 0) assert.deepEqual(open, { i0: n / 4, i1: n / 4, i2: n / 2 });
  }
});

test("consistent hashing moves few keys", () => {
  const { policies, instances } = given(1, 1, 1, 1);
  const owners = () => Array.from({ length: 1000 }, (_, n) => policies.pick(Strategy.consistentHash, `k${n}`).instance.name);
  const before = owners();
  policies.update(instances.slice(1));
  const moved = owners().filter((name, n) => name !== before[n] && before[n] !== "i0").length;
  assert.equal(moved, 0);
});

test("a pick without instances is an error, and an unknown strategy is round robin", () => {
  for (const strategy of strategies) assert.throws(() => given().policies.pick(strategy), NoInstanceError);
  assert.deepEqual(spread(given(1, 1).policies, 10, "FASTEST"), { i0: 5, i1: 5 });
});

test("failures in a row eject an instance, which comes back slowly", () => {
  const { policies, clock } = given(1, 1, 1, 1);
  const failing = (name) => [name !== "i1", 1];
  assert.equal(spread(policies, 400, Strategy.roundRobin, failing).i1, 5);
  clock.now += 9_900;
  assert.equal(spread(policies, 100).i1, undefined);
  clock.now += 200;
  const cold = spread(policies, 310).i1;
  assert.ok(cold > 5 && cold < 15, `${cold} of 310 at a tenth of its weight`);
  clock.now += 10_000;
  assert.equal(spread(policies, 400).i1, 100);
});

test("at most half of the instances are ejected, and for longer each time", () => {
  const { policies, clock } = given(1, 1, 1, 1, 1);
  const failing = () => [false, 1];
  const left = () => Object.keys(spread(policies, 100, Strategy.roundRobin, failing)).length;
  left();
  assert.equal(left(), 3);
  const one = given(1, 1, 1);
  const bad = (name) => [name !== "i0", 1];
  spread(one.policies, 100, Strategy.roundRobin, bad);
  one.clock.now += 30_000;
  spread(one.policies, 1000, Strategy.roundRobin, bad);
  one.clock.now += 11_000;
  assert.equal(spread(one.policies, 100).i0, undefined);
  clock.now += 1;
});

test("success rate and latency far from the median eject an instance, unless all do badly", () => {
  for (const outcome of [(name, n) => [name !== "i1" || n % 5 > 1, 1], (name) => [true, name === "i1" ? 50 : 1]]) {
    const { policies, clock } = given(1, 1, 1, 1);
    spread(policies, 400, Strategy.roundRobin, outcome);
    clock.now += 11_000;
    spread(policies, 1); // ends the interval
    assert.equal(spread(policies, 100).i1, undefined);
  }
  const { policies, clock } = given(1, 1, 1, 1);
  for (let n = 0; n < 3; n++) {
    spread(policies, 400, Strategy.roundRobin, (_, calls) => [calls % 2 === 0, 1]);
    clock.now += 11_000;
  }
  assert.equal(Object.keys(spread(policies, 100)).length, 4);
});

test("a new instance starts slowly, unless all are new", () => {
  const { policies, clock, instances } = given(1, 1);
  policies.update([...instances, { id: "new", name: "new", weight: 1, incarnation: 1, since: clock.now }]);
  assert.ok(spread(policies, 210).new <= 11);
  clock.now += 10_000;
  assert.equal(spread(policies, 300).new, 100);
  policies.update(instances.map((i) => ({ ...i, id: `${i.id}-again`, since: clock.now })));
  assert.deepEqual(spread(policies, 10), { i0: 5, i1: 5 });
});

test("another start of an instance forgets its failures; what is done twice counts once", () => {
  const { policies, instances } = given(1, 1);
  spread(policies, 40, Strategy.roundRobin, (name) => [name !== "i0", 1]);
  policies.update(instances.map((i) => ({ ...i, incarnation: 2 })));
  assert.equal(spread(policies, 10).i0, 5);
  const pick = policies.pick(Strategy.leastConnections);
  pick.release();
  pick.release();
  pick.done(false, 1);
  assert.notEqual(policies.pick(Strategy.leastConnections).instance.name, policies.pick(Strategy.leastConnections).instance.name);
});
