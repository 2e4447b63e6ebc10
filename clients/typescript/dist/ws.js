import { createClient } from "graphql-ws";
/** Returns a client of graphql-ws with `socketOptions`. */
export function createSocket(session, options) {
    return createClient(socketOptions(session, options));
}
/** Returns options for graphql-ws: each connection brings a token, which is renewed while it lives, and a subscription with a variable `$after` goes on after the last cursor that it got. */
export function socketOptions(session, options = {}) {
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
            opened: (socket) => (alive.opened(socket), on?.opened?.(socket)),
            connected: (socket, payload, retrying) => (credential.connected(socket), on?.connected?.(socket, payload, retrying)),
            closed: (event) => (alive.closed(), credential.closed(event), on?.closed?.(event)),
            ping: (received, payload) => (alive.ping(received), on?.ping?.(received, payload)),
            pong: (received, payload) => (alive.pong(received), on?.pong?.(received, payload)),
            message: (message) => (cursors.received(message), on?.message?.(message)),
        },
    };
}
/** Sends the cursor of each subscription with it when it is sent again. */
function keepCursors(onGap) {
    const subscriptions = new Map(); // by the id of the operation
    let next = 0;
    function keep(id, cursor) {
        const subscription = id === undefined ? undefined : subscriptions.get(id);
        if (subscription && typeof cursor === "string")
            subscription.cursor = cursor;
    }
    function refused(id, errors) {
        const code = errors?.find((error) => /^CURSOR_(EXPIRED|UNKNOWN)$/.test(error.extensions?.code ?? ""))?.extensions?.code;
        const payload = subscriptions.get(id)?.payload.deref();
        if (code && payload)
            onGap?.({ code: code, query: payload.query, variables: payload.variables });
    }
    return {
        generateID(payload) {
            for (const [id, { payload }] of subscriptions)
                if (!payload.deref())
                    subscriptions.delete(id); // ended while the client was away
            const id = String(++next);
            if (/\$after\b/.test(payload.query))
                subscriptions.set(id, { payload: new WeakRef(payload) });
            else if (/\bsubscription\b/.test(payload.query))
                console.warn("backplane: a subscription without a variable $after misses what happens while the client is away:", payload.query);
            return id;
        },
        replacer(key, value) {
            const message = value;
            if (key !== "" || typeof message?.id !== "string")
                return value;
            if (message.type === "complete")
                subscriptions.delete(message.id);
            const cursor = message.type === "subscribe" && subscriptions.get(message.id)?.cursor;
            if (!cursor)
                return value;
            const payload = message.payload;
            return { ...message, payload: { ...payload, variables: { ...payload.variables, after: cursor } } };
        },
        received({ id, type, payload }) {
            const { extensions, errors, cursor, id: of } = (payload ?? {});
            if (type === "ping")
                keep(of, cursor);
            if (id === undefined)
                return;
            if (type === "next")
                keep(id, extensions?.cursor);
            if (type === "next" || type === "error")
                refused(id, type === "next" ? errors : payload);
            if (type === "complete" || type === "error")
                subscriptions.delete(id);
        },
    };
}
/** Brings a token to each connection and renews it before it ends. */
function keepCredential(session) {
    let socket;
    let timer;
    let sent;
    let unlisten;
    async function renew() {
        clearTimeout(timer);
        const token = await session.token().catch(() => sent); // the server is away: the next connection tries again
        if (socket?.readyState !== 1)
            return;
        if (token && token !== sent)
            socket.send(JSON.stringify({ type: "ping", payload: { authorization: `Bearer ${(sent = token)}` } }));
        clearTimeout(timer);
        if (session.renewAt !== undefined)
            timer = setTimeout(renew, Math.max(250, session.renewAt - Date.now()));
    }
    return {
        async params() {
            const wasSignedIn = sent !== undefined;
            sent = await session.token().catch(() => sent);
            if (wasSignedIn && !sent)
                throw new Error("The session has ended."); // no connection becomes anonymous by accident
            return sent === undefined ? undefined : { authorization: `Bearer ${sent}` };
        },
        connected(connection) {
            socket = connection;
            unlisten ??= session.onChange(() => void renew());
            void renew();
        },
        closed({ code }) {
            socket = undefined;
            clearTimeout(timer);
            unlisten?.();
            unlisten = undefined;
            if (code === 4403 && sent)
                void session.renew(sent).catch(() => undefined); // the next connection waits for it in token()
        },
    };
}
/** Closes a connection that answers no ping, as one whose network is gone does not. */
function watchAnswers() {
    let socket;
    let timer;
    return {
        opened: (opened) => void (socket = opened),
        closed: () => clearTimeout(timer),
        ping(received) {
            if (!received)
                timer = setTimeout(() => socket?.readyState === 1 && socket.close(4408, "no answer"), 10_000);
        },
        pong(received) {
            if (received)
                clearTimeout(timer);
        },
    };
}
