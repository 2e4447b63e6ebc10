// The documents of relay.mjs, as its compiler finds them in an application.
import { graphql } from "relay-runtime";

export const query = graphql`
  query AccountQuery($id: ID!) {
    node(id: $id) {
      ... on User {
        username
        name
      }
    }
  }
`;

export const rename = graphql`
  mutation AccountRenameMutation($input: UpdateUserInput!) {
    updateUser(input: $input) {
      user {
        id
        name
      }
      userErrors {
        code
      }
    }
  }
`;

export const events = graphql`
  subscription AccountEventsSubscription($id: ID!, $after: Cursor) {
    events(subjectId: $id, after: $after) {
      cursor
      subject {
        ... on User {
          id
          name
        }
      }
    }
  }
`;
