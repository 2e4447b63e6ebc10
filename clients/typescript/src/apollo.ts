import { createFetch } from "./fetch.js";
import type { Session } from "./session.js";
import { createSocket, type SocketOptions } from "./ws.js";

/** The classes of Apollo Client that the link is built of: any version that has them will do. */
export interface ApolloClasses<Link> {
  ApolloLink: { split(test: (operation: any) => boolean, left: any, right: any): Link };
  HttpLink: new (options: any) => unknown;
  GraphQLWsLink: new (client: any) => unknown;
}

/** Returns the terminating link of an Apollo Client: subscriptions over a WebSocket, everything else over `fetch`. */
export function apolloLink<Link>(session: Session, { ApolloLink, HttpLink, GraphQLWsLink }: ApolloClasses<Link>, options?: SocketOptions): Link {
  return ApolloLink.split(isSubscription, new GraphQLWsLink(createSocket(session, options)), new HttpLink({ uri: session.url, fetch: createFetch(session) }));
}

function isSubscription({ query }: { query: { definitions: readonly { kind: string; operation?: string }[] } }): boolean {
  return query.definitions.some(({ kind, operation }) => kind === "OperationDefinition" && operation === "subscription");
}
