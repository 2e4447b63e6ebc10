import { createSocket } from "./ws.js";
/** Returns urql's exchange of subscriptions, over a WebSocket. Give the client `fetch: createFetch(session)` for everything else. */
export function urqlExchange(session, subscriptionExchange, options) {
    const socket = createSocket(session, options);
    return subscriptionExchange({
        forwardSubscription: ({ query = "", variables }) => ({
            subscribe: (sink) => ({ unsubscribe: socket.subscribe({ query, variables }, sink) }),
        }),
    });
}
