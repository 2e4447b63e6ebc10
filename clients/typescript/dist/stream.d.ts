import { BackplaneError, type Session } from "./session.js";
export interface StreamRequest {
    /** A subscription, with a variable `$after`. */
    query: string;
    variables?: Record<string, unknown>;
}
export interface StreamSink<Data> {
    next: (data: Data, cursor: string) => void;
    /** Called once if the stream cannot go on: the session has ended, or the document is wrong. */
    error?: (error: BackplaneError) => void;
    /** Called when events may be missing: read what the page shows again, and follow after its cursor. */
    onGap?: () => void;
}
/** Follows a subscription by EventSource, which sends no headers: each stream has a ticket, and goes on after the last cursor. Returns what ends it. */
export declare function followStream<Data>(session: Session, request: StreamRequest, sink: StreamSink<Data>, Source?: typeof EventSource): () => void;
