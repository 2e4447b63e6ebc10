import type { Session } from "./session.js";
import { type SocketOptions } from "./ws.js";
/** Returns urql's exchange of subscriptions, over a WebSocket. Give the client `fetch: createFetch(session)` for everything else. */
export declare function urqlExchange<Exchange>(session: Session, subscriptionExchange: (options: any) => Exchange, options?: SocketOptions): Exchange;
