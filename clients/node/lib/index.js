/**
 * Registers, watches and balances services of a Backplane registry, with nothing but Node.js. It behaves as the Go client
 * does: see docs/registry.md of Backplane.
 */
export { Balancer } from "./balancer.js";
export { Client } from "./client.js";
export { BackplaneError, ClosedError, NoInstanceError } from "./errors.js";
export { Strategy } from "./policy.js";
export { Registered } from "./registered.js";
export { Watch } from "./watch.js";
