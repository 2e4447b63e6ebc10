import { BackplaneError, dataOf, retryElsewhere } from "./errors.js";
import { Registered } from "./registered.js";
import { EventStream } from "./stream.js";
import { duration, withTimeout } from "./wait.js";
import { Watch } from "./watch.js";

/** Bounds an answer of the registry, in bytes. */
const maxAnswer = 8 << 20;

/**
 * @typedef {object} Config
 * @property {string[]} urls of the registry's nodes, such as http://10.0.0.1:8080: one is used until it fails, then the next
 * @property {string} token an API key; it needs the scope service:NAME to register, to watch also services:read does
 * @property {number} [timeout] of one call to one node, in milliseconds; default 5000
 * @property {number} [silence] milliseconds without a byte after which a stream counts as broken; default 45000, three keep-alives
 * @property {typeof fetch} [fetch] default: Node's own
 * @property {(message: string, error?: unknown) => void} [log] is told of changes for people; default: none
 */

/**
 * @typedef {object} Service
 * @property {string} name 1 to 63 lower-case letters and digits, with -, . and _ between them
 * @property {string} [description]
 * @property {string[]} [tags]
 * @property {Record<string, string>} [metadata]
 * @property {import("./policy.js").StrategyName} [strategy] default ROUND_ROBIN
 * @property {{path: string, interval?: number, timeout?: number}} [healthCheck] a status below 400 is well; times in milliseconds
 */

/** Calls a registry. It starts nothing by itself. */
export class Client {
  #token;
  #node = 0;

  /** @param {Config} config */
  constructor(config) {
    const { urls, token, timeout = 5000, silence = 45000, log = () => {} } = config;
    if (!Array.isArray(urls) || urls.length === 0 || !token) throw new TypeError("client config: urls and token must be given");
    if (!(timeout > 0) || !(silence > 0)) throw new TypeError("client config: timeout and silence must be positive");
    this.urls = urls.map(checkURL);
    this.#token = token;
    this.timeout = timeout;
    this.silence = silence;
    this.log = log;
    this.fetch = config.fetch ?? fetch;
  }

  /** Index of the node that is used. */
  get node() {
    return this.#node;
  }

  /**
   * Makes the next node the one that is used, unless that has happened.
   * @param {number} node
   */
  useNextNode(node) {
    if (this.#node === node) this.#node = (node + 1) % this.urls.length;
  }

  /**
   * Creates the service, or changes one that is there to what is said here; it may be called at each start.
   * @param {Service} service
   * @param {{signal?: AbortSignal}} [options]
   */
  async defineService(service, options = {}) {
    const { name, description = "", tags = [], metadata = {}, strategy, healthCheck } = service;
    const check = healthCheck && { path: healthCheck.path, interval: duration(healthCheck.interval), timeout: duration(healthCheck.timeout) };
    await this.mutate("registerService", "RegisterServiceInput", "", { name, description, tags, metadata, strategy, healthCheck: check }, options.signal);
  }

  /**
   * Registers an instance and keeps it registered. It resolves once the instance is registered for the first time. While the registry cannot
   * be reached it tries until the signal aborts; what the registry refuses is thrown at once.
   * @param {import("./registered.js").Registration} registration
   * @param {{signal?: AbortSignal}} [options] for this first time only
   * @returns {Promise<Registered>}
   */
  register(registration, options = {}) {
    return Registered.start(this, registration, options.signal);
  }

  /**
   * Reads the set of a service's instances and keeps it up to date. It resolves once it knows the service; see register for what fails.
   * @param {string} service
   * @param {{signal?: AbortSignal}} [options] for this first time only
   * @returns {Promise<Watch>}
   */
  watch(service, options = {}) {
    return Watch.start(this, service, options.signal);
  }

  /**
   * Calls a mutation with one input; what is called like this may be called twice.
   * @param {string} field
   * @param {string} type of the input
   * @param {string} selection of the payload, besides the errors
   * @param {object} input
   * @param {AbortSignal} [signal]
   * @returns {Promise<any>} the payload
   */
  async mutate(field, type, selection, input, signal) {
    const query = `mutation($in: ${type}!) { ${field}(input: $in) { ${selection} userErrors { code message path } } }`;
    let failure;
    for (let tries = 0; tries < this.urls.length; tries++) {
      const node = this.#node;
      try {
        const payload = (await this.callNode(node, query, { in: input }, signal))[field];
        if (!payload) throw new Error("the response is not one of a registry");
        const [wrong] = payload.userErrors;
        if (wrong) throw new BackplaneError(wrong.code, wrong.message, wrong.path ?? []);
        return payload;
      } catch (error) {
        failure = error;
        if (!retryElsewhere(error)) throw error;
        this.useNextNode(node);
        if (signal?.aborted) break;
      }
    }
    throw failure;
  }

  /**
   * Calls one node, and returns the data.
   * @param {number} node
   * @param {string} query
   * @param {object} variables
   * @param {AbortSignal} [signal]
   * @returns {Promise<any>}
   */
  callNode(node, query, variables, signal) {
    return withTimeout(this.timeout, signal, async (limited) => {
      const response = await this.#post(node, query, variables, "application/graphql-response+json", "", limited);
      return dataOf(await readAnswer(response));
    });
  }

  /**
   * Opens a subscription at a node, after the cursor.
   * @param {number} node
   * @param {string} query
   * @param {object} variables
   * @param {string} after
   * @param {AbortSignal} signal ends it
   */
  async subscribe(node, query, variables, after, signal) {
    const stream = new EventStream(this.silence, signal);
    try {
      const response = await stream.within(this.timeout, (scope) => this.#post(node, query, variables, "text/event-stream", after, scope));
      const isStream = response.status === 200 && /^text\/event-stream\s*(;|$)/i.test(response.headers.get("content-type") ?? "");
      if (!isStream) {
        dataOf(await stream.within(this.timeout, () => readAnswer(response)));
        throw new Error("the registry answered without a stream");
      }
      return stream.read(response);
    } catch (error) {
      stream.close();
      throw error;
    }
  }

  /**
   * @param {number} node
   * @param {string} query
   * @param {object} variables
   * @param {string} accept
   * @param {string} after
   * @param {AbortSignal} signal
   */
  #post(node, query, variables, accept, after, signal) {
    /** @type {Record<string, string>} */
    const headers = { "Content-Type": "application/json", Accept: accept, Authorization: `Bearer ${this.#token}` };
    if (after) headers["Last-Event-ID"] = after;
    const body = JSON.stringify({ query, variables });
    return this.fetch(`${this.urls[node]}/graphql`, { method: "POST", headers, body, signal, redirect: "manual" }); // the token is for the registry alone
  }
}

/** @param {string} text */
function checkURL(text) {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (!url || !["http:", "https:"].includes(url.protocol) || url.username || url.password || url.search || url.hash) {
    throw new TypeError("client config: a URL is not http or https with a host and perhaps a path");
  }
  return text.replace(/\/$/, "");
}

/**
 * Reads a whole response; one that is no GraphQL is an error with its status.
 * @param {Response} response
 */
async function readAnswer(response) {
  const decoder = new TextDecoder();
  let text = "";
  let size = 0;
  for await (const chunk of /** @type {any} */ (response.body ?? [])) {
    size += chunk.length;
    if (size > maxAnswer) throw new Error(`the response of the registry has more than ${maxAnswer} bytes`);
    text += decoder.decode(chunk, { stream: true });
  }
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    answer = undefined;
  }
  if (answer?.errors?.length > 0 || (response.status === 200 && answer?.data)) return answer;
  if (response.status === 200) throw new Error("the response is not one of a registry");
  throw new BackplaneError(`HTTP ${response.status}`, response.statusText);
}
