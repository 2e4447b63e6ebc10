import { type Client, type ClientOptions } from "graphql-ws";
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
/** Returns a client of graphql-ws with `socketOptions`. */
export declare function createSocket(session: Session, options?: SocketOptions): Client;
/** Returns options for graphql-ws: each connection brings a token, which is renewed while it lives, and a subscription with a variable `$after` goes on after the last cursor that it got. */
export declare function socketOptions(session: Session, options?: SocketOptions): ClientOptions;
