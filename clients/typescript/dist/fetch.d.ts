import type { Session } from "./session.js";
/** Returns a `fetch` that sends the access token to the server of the session. A request whose token is refused is repeated once, with the next token. */
export declare function createFetch(session: Session, send?: typeof fetch): typeof fetch;
