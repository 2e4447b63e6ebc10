import { lock } from "./lock.js";

/** The tokens of a session, as `signIn`, `signUp` and `refreshSession` give them. */
export interface Tokens {
  accessToken: string;
  refreshToken: string;
}

/** Where a session keeps its tokens: `localStorage`, `sessionStorage` or an object of your own. */
export interface TokenStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

export interface SessionOptions {
  /** The URL of `/graphql`. */
  url: string;
  /** Where the tokens are kept; default `localStorage`, or the memory of the page where there is none. */
  storage?: TokenStorage;
  /** The key in the storage, the same in each tab; default `backplane`. */
  name?: string;
  /** Called when the session has ended elsewhere, so that its tokens are gone. */
  onSignedOut?: () => void;
  /** Sends requests; default the global `fetch`. */
  fetch?: typeof fetch;
}

/** An error of the server, with its code. */
export class BackplaneError extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = "BackplaneError";
  }
}

interface Stored extends Tokens {
  /** When the access token is renewed, by the clock of this machine. */
  renewAt: number;
}

export type Session = ReturnType<typeof createSession>;

/** Returns the session of the page: it keeps the tokens and renews them once for all requests and all tabs. */
export function createSession(options: SessionOptions) {
  const { url, name = "backplane", onSignedOut } = options;
  const send: typeof fetch = options.fetch ?? ((input, init) => fetch(input, init));
  const storage = options.storage ?? defaultStorage();
  const listeners = new Set<() => void>();
  const channel = openChannel(name, storage, notify);
  let renewing: Promise<string | undefined> | undefined;

  function notify(): void {
    for (const listener of listeners) listener();
  }

  function read(): Stored | undefined {
    const text = storage.getItem(name);
    return text ? (JSON.parse(text) as Stored) : undefined;
  }

  /** Keeps the tokens of a sign-in of your own; without any, forgets those there are. */
  function set(tokens?: Tokens): void {
    if (tokens) storage.setItem(name, JSON.stringify({ accessToken: tokens.accessToken, refreshToken: tokens.refreshToken, renewAt: renewAt(tokens.accessToken) }));
    else storage.removeItem(name);
    channel?.postMessage(null);
    notify();
  }

  /** Returns an access token with time left, or undefined if the caller is signed out. */
  async function token(): Promise<string | undefined> {
    if (renewing) return renewing;
    const now = read();
    return !now || now.renewAt > Date.now() ? now?.accessToken : renew(now.accessToken);
  }

  /** Returns the access token that follows the refused one; undefined if the session has ended. One refresh is in flight at a time, in all tabs. */
  function renew(refused = read()?.accessToken): Promise<string | undefined> {
    renewing ??= lock(`${name}.renewal`, storage, async () => {
      const now = read();
      if (!now || now.accessToken !== refused) return now?.accessToken; // another tab was first
      const { session, userErrors } = await run<{ session: Tokens | null; userErrors: { code: string }[] }>(refreshDocument, { token: now.refreshToken });
      if (read()?.refreshToken !== now.refreshToken) return read()?.accessToken; // the user has signed in or out meanwhile
      if (!session && userErrors[0]?.code !== "REFRESH_TOKEN_INVALID") throw new BackplaneError(userErrors[0]?.code ?? "", "The session could not be renewed.");
      set(session ?? undefined);
      if (!session) onSignedOut?.();
      return session?.accessToken;
    }).finally(() => (renewing = undefined));
    return renewing;
  }

  /** Runs a document and returns its one root field. */
  async function run<T>(query: string, variables: object, bearer?: string): Promise<T> {
    const headers: Record<string, string> = { "content-type": "application/json", accept: "application/json" };
    if (bearer) headers.authorization = `Bearer ${bearer}`;
    const response = await send(url, { method: "POST", headers, body: JSON.stringify({ query, variables }) });
    const { data, errors } = (await response.json()) as { data?: Record<string, T | null>; errors?: { message: string; extensions?: { code?: string } }[] };
    const result = Object.values(data ?? {})[0];
    if (result == null) throw new BackplaneError(errors?.[0]?.extensions?.code ?? "", errors?.[0]?.message ?? `The server answered with ${response.status}.`);
    return result;
  }

  return {
    url,
    set,
    token,
    renew,
    /** Whether there are tokens. */
    get signedIn(): boolean {
      return read() !== undefined;
    },
    /** When `token` renews next, in milliseconds since 1970; undefined if the caller is signed out. */
    get renewAt(): number | undefined {
      return read()?.renewAt;
    },
    /** Calls the listener when the tokens change, here or in another tab. Returns what ends that. */
    onChange(listener: () => void): () => void {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    async signIn(login: string, password: string): Promise<void> {
      const { session, userErrors } = await run<{ session: Tokens | null; userErrors: { code: string; message: string }[] }>(signInDocument, { login, password });
      if (!session) throw new BackplaneError(userErrors[0]!.code, userErrors[0]!.message);
      set(session);
    },
    async signOut(): Promise<void> {
      const bearer = await token();
      set();
      if (bearer) await run("mutation SignOut { signOut(input: {}) { userErrors { code } } }", {}, bearer);
    },
  };
}

const refreshDocument = "mutation Refresh($token: String!) { refreshSession(input: {refreshToken: $token}) { session { accessToken refreshToken } userErrors { code } } }";
const signInDocument = "mutation SignIn($login: String!, $password: String!) { signIn(input: {login: $login, password: $password}) { session { accessToken refreshToken } userErrors { code message } } }";

/** Returns when to renew the token: 30 s or half of its life before it ends, whatever the clock of the server says. */
function renewAt(token: string): number {
  const text = atob(token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/"));
  const { iat, exp } = JSON.parse(text) as { iat: number; exp: number };
  const life = (exp - iat) * 1000;
  return Date.now() + life - Math.min(30_000, life / 2);
}

function defaultStorage(): TokenStorage {
  try {
    if (typeof window !== "undefined" && window.localStorage) return window.localStorage;
  } catch {} // a page that may not keep anything
  return memoryStorage();
}

/** Returns a storage that lasts as long as the page. */
export function memoryStorage(): TokenStorage {
  const items = new Map<string, string>();
  return { getItem: (key) => items.get(key) ?? null, setItem: (key, value) => void items.set(key, value), removeItem: (key) => void items.delete(key) };
}

/** Tells of changes that other tabs make: by a BroadcastChannel, or where there is none by the storage's own event. */
function openChannel(name: string, storage: TokenStorage, notify: () => void): BroadcastChannel | undefined {
  if (typeof BroadcastChannel === "undefined") {
    if (typeof window !== "undefined") window.addEventListener("storage", (event) => event.storageArea === (storage as unknown) && event.key === name && notify());
    return undefined;
  }
  const channel = new BroadcastChannel(name);
  channel.onmessage = notify;
  (channel as { unref?: () => void }).unref?.(); // it must not keep a program of Node.js alive
  return channel;
}
