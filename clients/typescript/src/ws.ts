import { type Client, type ClientOptions, createClient } from "graphql-ws";
import type { Session } from "./session.js";

/** A subscription whose cursor the server does not know any more. */
export interface Gap {
  code: "CURSOR_EXPIRED" | "CURSOR_UNKNOWN";
  /** What was subscribed to. */
  query: string;
  variables?: Record<string, unknown> | null;
}

export interface SocketOptions extends Partial<ClientOptions> {
  /** Called when events may be missing: read what the page shows again, with a new cursor, and subscribe after it. */
  onGap?: (gap: Gap) => void;
}

interface Message {
  id?: string;
  type: string;
  payload?: unknown;
}

interface Payload {
  query: string;
  variables?: Record<string, unknown> | null;
}

/** Returns a client of graphql-ws with `socketOptions`. */
export function createSocket(session: Session, options?: SocketOptions): Client {
  return createClient(socketOptions(session, options));
}

/** Returns options for graphql-ws: each connection brings a token, which is renewed while it lives, and a subscription with a variable `$after` goes on after the last cursor that it got. */
export function socketOptions(session: Session, options: SocketOptions = {}): ClientOptions {
  const { onGap, on, ...rest } = options;
  const cursors = keepCursors(onGap);
  const credential = keepCredential(session);
  const alive = watchAnswers();
  return {
    url: session.url.replace(/^http/, "ws"),
    connectionParams: credential.params,
    keepAlive: 15_000,
    retryAttempts: Infinity,
    shouldRetry: () => true, // where a refused connection is an error, as in Node.js
    retryWait: (retries) => new Promise((resolve) => setTimeout(resolve, Math.random() * Math.min(10_000, 250 * 2 ** retries))),
    ...rest,
    generateID: cursors.generateID,
    jsonMessageReplacer: cursors.replacer,
    on: {
      ...on,
      opened: (socket) => (alive.opened(socket as WebSocket), on?.opened?.(socket)),
      connected: (socket, payload, retrying) => (credential.connected(socket as WebSocket), on?.connected?.(socket, payload, retrying)),
      closed: (event) => (alive.closed(), credential.closed(event as CloseEvent), on?.closed?.(event)),
      ping: (received, payload) => (alive.ping(received), on?.ping?.(received, payload)),
      pong: (received, payload) => (alive.pong(received), on?.pong?.(received, payload)),
      message: (message) => (cursors.received(message as Message), on?.message?.(message)),
    },
  };
}

/** Sends the cursor of each subscription with it when it is sent again. */
function keepCursors(onGap?: (gap: Gap) => void) {
  const subscriptions = new Map<string, { payload: WeakRef<Payload>; cursor?: string }>(); // by the id of the operation
  let next = 0;

  function keep(id: string | undefined, cursor: unknown): void {
    const subscription = id === undefined ? undefined : subscriptions.get(id);
    if (subscription && typeof cursor === "string") subscription.cursor = cursor;
  }

  function refused(id: string, errors: unknown): void {
    const code = (errors as { extensions?: { code?: string } }[] | undefined)?.find((error) => /^CURSOR_(EXPIRED|UNKNOWN)$/.test(error.extensions?.code ?? ""))?.extensions?.code;
    const payload = subscriptions.get(id)?.payload.deref();
    if (code && payload) onGap?.({ code: code as Gap["code"], query: payload.query, variables: payload.variables });
  }

  return {
    generateID(payload: Payload): string {
      for (const [id, { payload }] of subscriptions) if (!payload.deref()) subscriptions.delete(id); // ended while the client was away
      const id = String(++next);
      if (/\$after\b/.test(payload.query)) subscriptions.set(id, { payload: new WeakRef(payload) });
      else if (/\bsubscription\b/.test(payload.query)) console.warn("backplane: a subscription without a variable $after misses what happens while the client is away:", payload.query);
      return id;
    },
    replacer(key: string, value: unknown): unknown {
      const message = value as Message | undefined;
      if (key !== "" || typeof message?.id !== "string") return value;
      if (message.type === "complete") subscriptions.delete(message.id);
      const cursor = message.type === "subscribe" && subscriptions.get(message.id)?.cursor;
      if (!cursor) return value;
      const payload = message.payload as Payload;
      return { ...message, payload: { ...payload, variables: { ...payload.variables, after: cursor } } };
    },
    received({ id, type, payload }: Message): void {
      const { extensions, errors, cursor, id: of } = (payload ?? {}) as { extensions?: { cursor?: string }; errors?: unknown; cursor?: string; id?: string };
      if (type === "ping") keep(of, cursor);
      if (id === undefined) return;
      if (type === "next") keep(id, extensions?.cursor);
      if (type === "next" || type === "error") refused(id, type === "next" ? errors : payload);
      if (type === "complete" || type === "error") subscriptions.delete(id);
    },
  };
}

/** Brings a token to each connection and renews it before it ends. */
function keepCredential(session: Session) {
  let socket: WebSocket | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let sent: string | undefined;
  let unlisten: (() => void) | undefined;

  async function renew(): Promise<void> {
    clearTimeout(timer);
    const token = await session.token().catch(() => sent); // the server is away: the next connection tries again
    if (socket?.readyState !== 1) return;
    if (token && token !== sent) socket.send(JSON.stringify({ type: "ping", payload: { authorization: `Bearer ${(sent = token)}` } }));
    clearTimeout(timer);
    if (session.renewAt !== undefined) timer = setTimeout(renew, Math.max(250, session.renewAt - Date.now()));
  }

  return {
    async params(): Promise<Record<string, unknown> | undefined> {
      const wasSignedIn = sent !== undefined;
      sent = await session.token().catch(() => sent);
      if (wasSignedIn && !sent) throw new Error("The session has ended."); // no connection becomes anonymous by accident
      return sent === undefined ? undefined : { authorization: `Bearer ${sent}` };
    },
    connected(connection: WebSocket): void {
      socket = connection;
      unlisten ??= session.onChange(() => void renew());
      void renew();
    },
    closed({ code }: CloseEvent): void {
      socket = undefined;
      clearTimeout(timer);
      unlisten?.();
      unlisten = undefined;
      if (code === 4403 && sent) void session.renew(sent).catch(() => undefined); // the next connection waits for it in token()
    },
  };
}

/** Closes a connection that answers no ping, as one whose network is gone does not. */
function watchAnswers() {
  let socket: WebSocket | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  return {
    opened: (opened: WebSocket) => void (socket = opened),
    closed: () => clearTimeout(timer),
    ping(received: boolean): void {
      if (!received) timer = setTimeout(() => socket?.readyState === 1 && socket.close(4408, "no answer"), 10_000);
    },
    pong(received: boolean): void {
      if (received) clearTimeout(timer);
    },
  };
}
