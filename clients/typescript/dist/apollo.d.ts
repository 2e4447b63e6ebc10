import type { Session } from "./session.js";
import { type SocketOptions } from "./ws.js";
/** The classes of Apollo Client that the link is built of: any version that has them will do. */
export interface ApolloClasses<Link> {
    ApolloLink: {
        split(test: (operation: any) => boolean, left: any, right: any): Link;
    };
    HttpLink: new (options: any) => unknown;
    GraphQLWsLink: new (client: any) => unknown;
}
/** Returns the terminating link of an Apollo Client: subscriptions over a WebSocket, everything else over `fetch`. */
export declare function apolloLink<Link>(session: Session, { ApolloLink, HttpLink, GraphQLWsLink }: ApolloClasses<Link>, options?: SocketOptions): Link;
