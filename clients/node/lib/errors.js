/** What the registry answered instead of what it was asked for. */
export class BackplaneError extends Error {
  /**
   * @param {string} code stable, such as SERVICE_NOT_FOUND; of an answer without one, "HTTP" and its status
   * @param {string} message for people
   * @param {string[]} [path] to the input at fault
   */
  constructor(code, message, path = []) {
    super(`the registry answered ${code}: ${message}`);
    this.name = "BackplaneError";
    this.code = code;
    this.path = path;
  }
}

/** No instance of the service can be called. */
export class NoInstanceError extends Error {
  constructor() {
    super("no instance of the service can be called");
    this.name = "NoInstanceError";
  }
}

/** close() was called. */
export class ClosedError extends Error {
  constructor() {
    super("closed");
    this.name = "ClosedError";
  }
}

/**
 * The code of a BackplaneError, empty for other errors.
 * @param {unknown} error
 */
export const codeOf = (error) => (error instanceof BackplaneError ? error.code : "");

const elsewhere = new Set(["UNAVAILABLE", "SERVER_BUSY", "INTERNAL", "TIMEOUT", "CANCELLED", "HTTP 500", "HTTP 502", "HTTP 503", "HTTP 504"]);
const revoked = new Set(["UNAUTHENTICATED", "TOKEN_EXPIRED", "FORBIDDEN"]);

/**
 * Whether another node may succeed.
 * @param {unknown} error
 */
export const retryElsewhere = (error) => !(error instanceof BackplaneError) || elsewhere.has(error.code);

/**
 * Whether the same call may succeed later: the registry could not be reached, or could not answer. Its other errors are final.
 * @param {unknown} error
 */
export const isTemporary = (error) => retryElsewhere(error) || codeOf(error) === "RATE_LIMITED" || codeOf(error).startsWith("HTTP ");

/**
 * Whether the token was revoked or lost the permission.
 * @param {unknown} error
 */
export const isRevoked = (error) => revoked.has(codeOf(error));

/**
 * Returns the data of a GraphQL response, or throws its first error.
 * @param {any} answer
 */
export function dataOf(answer) {
  const error = answer.errors?.[0];
  if (error) throw new BackplaneError(error.extensions?.code ?? "", error.message);
  return answer.data;
}
