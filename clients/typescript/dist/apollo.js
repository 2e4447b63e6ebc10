import { createFetch } from "./fetch.js";
import { createSocket } from "./ws.js";
/** Returns the terminating link of an Apollo Client: subscriptions over a WebSocket, everything else over `fetch`. */
export function apolloLink(session, { ApolloLink, HttpLink, GraphQLWsLink }, options) {
    return ApolloLink.split(isSubscription, new GraphQLWsLink(createSocket(session, options)), new HttpLink({ uri: session.url, fetch: createFetch(session) }));
}
function isSubscription({ query }) {
    return query.definitions.some(({ kind, operation }) => kind === "OperationDefinition" && operation === "subscription");
}
