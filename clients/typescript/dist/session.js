import { lock } from "./lock.js";
/** An error of the server, with its code. */
export class BackplaneError extends Error {
    code;
    constructor(code, message) {
        super(message);
        this.code = code;
        this.name = "BackplaneError";
    }
}
/** Returns the session of the page: it keeps the tokens and renews them once for all requests and all tabs. */
export function createSession(options) {
    const { url, name = "backplane", onSignedOut } = options;
    const send = options.fetch ?? ((input, init) => fetch(input, init));
    const storage = options.storage ?? defaultStorage();
    const listeners = new Set();
    const channel = openChannel(name, storage, notify);
    let renewing;
    function notify() {
        for (const listener of listeners)
            listener();
    }
    function read() {
        const text = storage.getItem(name);
        return text ? JSON.parse(text) : undefined;
    }
    /** Keeps the tokens of a sign-in of your own; without any, forgets those there are. */
    function set(tokens) {
        if (tokens)
            storage.setItem(name, JSON.stringify({ accessToken: tokens.accessToken, refreshToken: tokens.refreshToken, renewAt: renewAt(tokens.accessToken) }));
        else
            storage.removeItem(name);
        channel?.postMessage(null);
        notify();
    }
    /** Returns an access token with time left, or undefined if the caller is signed out. */
    async function token() {
        if (renewing)
            return renewing;
        const now = read();
        return !now || now.renewAt > Date.now() ? now?.accessToken : renew(now.accessToken);
    }
    /** Returns the access token that follows the refused one; undefined if the session has ended. One refresh is in flight at a time, in all tabs. */
    function renew(refused = read()?.accessToken) {
        renewing ??= lock(`${name}.renewal`, storage, async () => {
            const now = read();
            if (!now || now.accessToken !== refused)
                return now?.accessToken; // another tab was first
            const { session, userErrors } = await run(refreshDocument, { token: now.refreshToken });
            if (read()?.refreshToken !== now.refreshToken)
                return read()?.accessToken; // the user has signed in or out meanwhile
            if (!session && userErrors[0]?.code !== "REFRESH_TOKEN_INVALID")
                throw new BackplaneError(userErrors[0]?.code ?? "", "The session could not be renewed.");
            set(session ?? undefined);
            if (!session)
                onSignedOut?.();
            return session?.accessToken;
        }).finally(() => (renewing = undefined));
        return renewing;
    }
    /** Runs a document and returns its one root field. */
    async function run(query, variables, bearer) {
        const headers = { "content-type": "application/json", accept: "application/json" };
        if (bearer)
            headers.authorization = `Bearer ${bearer}`;
        const response = await send(url, { method: "POST", headers, body: JSON.stringify({ query, variables }) });
        const { data, errors } = (await response.json());
        const result = Object.values(data ?? {})[0];
        if (result == null)
            throw new BackplaneError(errors?.[0]?.extensions?.code ?? "", errors?.[0]?.message ?? `The server answered with ${response.status}.`);
        return result;
    }
    return {
        url,
        set,
        token,
        renew,
        /** Whether there are tokens. */
        get signedIn() {
            return read() !== undefined;
        },
        /** When `token` renews next, in milliseconds since 1970; undefined if the caller is signed out. */
        get renewAt() {
            return read()?.renewAt;
        },
        /** Calls the listener when the tokens change, here or in another tab. Returns what ends that. */
        onChange(listener) {
            listeners.add(listener);
            return () => void listeners.delete(listener);
        },
        async signIn(login, password) {
            const { session, userErrors } = await run(signInDocument, { login, password });
            if (!session)
                throw new BackplaneError(userErrors[0].code, userErrors[0].message);
            set(session);
        },
        async signOut() {
            const bearer = await token();
            set();
            if (bearer)
                await run("mutation SignOut { signOut(input: {}) { userErrors { code } } }", {}, bearer);
        },
    };
}
const refreshDocument = "mutation Refresh($token: String!) { refreshSession(input: {refreshToken: $token}) { session { accessToken refreshToken } userErrors { code } } }";
const signInDocument = "mutation SignIn($login: String!, $password: String!) { signIn(input: {login: $login, password: $password}) { session { accessToken refreshToken } userErrors { code message } } }";
/** Returns when to renew the token: 30 s or half of its life before it ends, whatever the clock of the server says. */
function renewAt(token) {
    const text = atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"));
    const { iat, exp } = JSON.parse(text);
    const life = (exp - iat) * 1000;
    return Date.now() + life - Math.min(30_000, life / 2);
}
function defaultStorage() {
    try {
        if (typeof window !== "undefined" && window.localStorage)
            return window.localStorage;
    }
    catch { } // a page that may not keep anything
    return memoryStorage();
}
/** Returns a storage that lasts as long as the page. */
export function memoryStorage() {
    const items = new Map();
    return { getItem: (key) => items.get(key) ?? null, setItem: (key, value) => void items.set(key, value), removeItem: (key) => void items.delete(key) };
}
/** Tells of changes that other tabs make: by a BroadcastChannel, or where there is none by the storage's own event. */
function openChannel(name, storage, notify) {
    if (typeof BroadcastChannel === "undefined") {
        if (typeof window !== "undefined")
            window.addEventListener("storage", (event) => event.storageArea === storage && event.key === name && notify());
        return undefined;
    }
    const channel = new BroadcastChannel(name);
    channel.onmessage = notify;
    channel.unref?.(); // it must not keep a program of Node.js alive
    return channel;
}
