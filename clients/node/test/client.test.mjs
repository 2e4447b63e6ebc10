import assert from "node:assert/strict";
import { test } from "node:test";
import { BackplaneError, Client, ClosedError } from "../lib/index.js";
import { Backoff } from "../lib/wait.js";

const answer = (data, status = 200) => new Response(JSON.stringify({ data }), { status, headers: { "Content-Type": "application/json" } });
const service = { version: 1, strategy: "RANDOM", cursor: "c0", degraded: null, instances: { nodes: [], pageInfo: { hasNextPage: false, endCursor: null } } };

/** A client whose registry is a function of the request. */
const clientOf = (registry, config = {}) => new Client({ urls: ["http://a", "http://b"], token: "secret", fetch: async (url, request) => registry(request, url), ...config });

const stream = (start) => new Response(new ReadableStream({ start }), { headers: { "Content-Type": "text/event-stream; charset=utf-8" } });

test("a client refuses what makes no sense", () => {
  for (const config of [{}, { urls: ["http://a"] }, { urls: [], token: "t" }, { urls: ["a:1"], token: "t" }, { urls: ["http://u:p@a"], token: "t" }, { urls: ["http://a?q"], token: "t" }, { urls: ["http://a"], token: "t", timeout: -1 }]) {
    assert.throws(() => new Client(config), TypeError);
  }
});

test("pauses grow, to a bound", () => {
  const pauses = new Backoff(200, 10_000);
  for (let n = 0; n < 40; n++) {
    const most = Math.min(200 * 2 ** n, 10_000);
    const pause = pauses.next();
    assert.ok(pause >= most / 2 && pause <= most, `pause ${n} is ${pause}`);
  }
  pauses.reset();
  assert.ok(pauses.next() <= 200);
});

test("a call goes to the next node, and bounds what it reads", async () => {
  const asked = [];
  const client = clientOf((_, url) => {
    asked.push(url);
    return url.startsWith("http://a") ? new Response("", { status: 503 }) : answer({ registerService: { userErrors: [] } });
  });
  await client.defineService({ name: "s" });
  await client.defineService({ name: "s" });
  assert.deepEqual(asked, ["http://a/graphql", "http://b/graphql", "http://b/graphql"]);
  const huge = clientOf(() => new Response("x".repeat(9 << 20)));
  await assert.rejects(huge.defineService({ name: "s" }), /more than 8388608 bytes/);
  const slow = clientOf((request) => new Promise((_, reject) => request.signal.addEventListener("abort", () => reject(request.signal.reason))), { timeout: 20 });
  await assert.rejects(slow.defineService({ name: "s" }), /no answer within 20 ms/);
  const moved = clientOf(() => new Response("", { status: 302, headers: { Location: "http://elsewhere" } }));
  await assert.rejects(moved.defineService({ name: "s" }), new BackplaneError("HTTP 302", ""));
});

test("a silent stream is given up, and followed again from the last cursor", async () => {
  const after = [];
  let end;
  const client = clientOf(
    (request) => {
      if (request.headers.Accept !== "text/event-stream") return answer({ service });
      after.push(request.headers["Last-Event-ID"]);
      return stream((controller) => {
        const send = (text) => controller.enqueue(new TextEncoder().encode(text));
        send(": keep-alive\n\n");
        if (after.length === 1) {
          const event = { type: "INSTANCE_REGISTERED", subjectId: "ins", subjectVersion: 1, data: { instanceId: "a", url: "http://a", weight: 1, status: "PASSING", statusSince: "2026-01-01T00:00:00Z", metadata: {}, incarnation: 1 } };
          const text = `event: next\nid: c1\ndata: ${JSON.stringify({ data: { serviceEvents: event } })}\n\n`;
          send(text.slice(0, 20)); // in two parts
          send(text.slice(20));
        }
        end = request.signal;
        request.signal.addEventListener("abort", () => controller.error(request.signal.reason));
      });
    },
    { silence: 50 },
  );
  const watch = await client.watch("s");
  let set = watch.set;
  while (set.instances.length === 0) set = await watch.next(set);
  while (!set.stale) set = await watch.next(set);
  assert.match(set.trouble.message, /idle for too long/);
  assert.deepEqual(set.instances.map((i) => i.instanceId), ["a"]);
  while (set.stale) set = await watch.next(set);
  assert.deepEqual(after.slice(0, 2), ["c0", "c1"]);
  await watch.close();
  assert.ok(end.aborted);
  assert.ok(watch.error instanceof ClosedError && watch.set.stale);
  await assert.rejects(watch.next(watch.set), ClosedError);
});

test("a set that cannot be followed is read again", async () => {
  let reads = 0;
  const client = clientOf((request) => {
    if (request.headers.Accept === "text/event-stream") {
      return new Response(JSON.stringify({ errors: [{ message: "gone", extensions: { code: "CURSOR_EXPIRED" } }] }), { status: 200 });
    }
    reads++;
    return answer({ service });
  });
  const watch = await client.watch("s");
  let set = watch.set;
  while (reads < 2) set = await watch.next(set);
  await watch.close();
});
