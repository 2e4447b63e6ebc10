// Components of a Relay app, as far as its compiler looks: the documents.
import { graphql } from "relay-runtime";

export const page = graphql`
  query OrdersPageQuery($user: ID!, $filter: OrderFilter) {
    node(id: $user) {
      ...Orders_user @alias
    }
    ...Orders_all @arguments(filter: $filter)
    nodes(ids: [$user]) {
      id
    }
  }
`;

// Paging through the connection of a node goes through Query.node.
export const ofUser = graphql`
  fragment Orders_user on User
  @argumentDefinitions(count: { type: "Int", defaultValue: 20 }, cursor: { type: "String" })
  @refetchable(queryName: "OrdersOfUserPaginationQuery") {
    username
    orders(first: $count, after: $cursor) @connection(key: "Orders_user_orders") {
      edges {
        node {
          ...Orders_row
        }
      }
      totalCount
    }
  }
`;

// Paging through a connection of the root, in both directions.
export const all = graphql`
  fragment Orders_all on Query
  @argumentDefinitions(
    first: { type: "Int", defaultValue: 20 }
    after: { type: "String" }
    last: { type: "Int" }
    before: { type: "String" }
    filter: { type: "OrderFilter" }
  )
  @refetchable(queryName: "OrdersAllPaginationQuery") {
    orders(first: $first, after: $after, last: $last, before: $before, filter: $filter)
      @connection(key: "Orders_all_orders", filters: ["filter"]) {
      edges {
        node {
          id
          ...Orders_row
        }
      }
    }
  }
`;

export const row = graphql`
  fragment Orders_row on Order @refetchable(queryName: "OrdersRowRefetchQuery") {
    number
    status
    nextStatuses
    total {
      amount
      currency
    }
    user {
      username
    }
  }
`;

export const place = graphql`
  mutation OrdersPlaceMutation($input: PlaceOrderInput!, $connections: [ID!]!) @raw_response_type {
    placeOrder(input: $input) {
      order @prependNode(connections: $connections, edgeTypeName: "OrderEdge") {
        id
        ...Orders_row
      }
      userErrors {
        code
        message
        path
      }
    }
  }
`;

export const cancel = graphql`
  mutation OrdersCancelMutation($input: CancelOrderInput!) {
    cancelOrder(input: $input) {
      order {
        id
        status
        version
        nextStatuses
      }
      userErrors {
        code
        message
      }
    }
  }
`;
