import type { Session } from "./session.js";
import { createSocket, type SocketOptions } from "./ws.js";

/** Returns urql's exchange of subscriptions, over a WebSocket. Give the client `fetch: createFetch(session)` for everything else. */
export function urqlExchange<Exchange>(session: Session, subscriptionExchange: (options: any) => Exchange, options?: SocketOptions): Exchange {
  const socket = createSocket(session, options);
  return subscriptionExchange({
    forwardSubscription: ({ query = "", variables }: { query?: string; variables?: Record<string, unknown> }) => ({
      subscribe: (sink: any) => ({ unsubscribe: socket.subscribe({ query, variables }, sink) }),
    }),
  });
}
