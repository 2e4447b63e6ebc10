// Compiled against the generated types: what it may rely on, and what it must
// not. Nothing of it runs.
import type { OrderPageQuery, PlaceOrderMutationVariables, PlaceOrderMutation, AnythingQuery } from "./types";

export function title(page: OrderPageQuery): string {
  const order = page.order;
  if (order == null) {
    return "no such order"; // hidden or absent
  }
  const total: string = order.total.amount;
  return `${order.number} of ${order.user.username}: ${total} ${order.total.currency}, ${order.nextStatuses.length} moves left`;
}

// @ts-expect-error an order may be null
export const unchecked = (page: OrderPageQuery): string => page.order.number;

export const variables: PlaceOrderMutationVariables = {
  input: { items: [{ sku: "TEA-1", quantity: 2 }], idempotencyKey: "b7c1" },
};

export const wrong: PlaceOrderMutationVariables = {
  // @ts-expect-error a quantity is a number
  input: { items: [{ sku: "TEA-1", quantity: "2" }] },
};

export function outcome({ placeOrder }: PlaceOrderMutation): string {
  if (placeOrder == null) {
    return "refused"; // the errors of the response say why
  }
  return placeOrder.order?.id ?? placeOrder.userErrors.map((e) => `${e.code}: ${e.message}`).join(", ");
}

export function name({ node }: AnythingQuery): string | undefined {
  switch (node?.__typename) {
    case "User":
      return node.username;
    case "Order":
      return node.number;
    case "Product":
      return node.sku;
    default:
      return undefined;
  }
}
