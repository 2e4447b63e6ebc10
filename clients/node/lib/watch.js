import { BackplaneError, ClosedError, codeOf, isRevoked, isTemporary } from "./errors.js";
import { readService, ServiceState } from "./set.js";
import { TooLongError } from "./stream.js";
import { Backoff, Scope, sleep } from "./wait.js";

const subscribeService = `subscription($name: String!, $after: Cursor) {
  serviceEvents(service: $name, after: $after) { type subjectId subjectVersion data } }`;

const newPauses = () => new Backoff(200, 10000);

/**
 * A set of a service's instances that is kept up to date. Whatever happens to the registry, the set stays as it was known last and says since when it
 * is stale; it goes on with what was missed, from any node that answers. A service that is deregistered is an empty set.
 */
export class Watch {
  #client;
  #service;
  #life = new Scope();
  /** @type {import("./set.js").Set} */
  #set;
  /** @type {globalThis.Set<() => void>} */
  #waiting = new Set(); // for another set
  /** @type {ServiceState | undefined} */
  #state;
  #cursor = ""; // of the last event; empty if the service must be read again
  #node;
  #lastContact = new Date();

  /**
   * Settles when the set is not kept up to date any more; error says why.
   * @type {Promise<void>}
   */
  done = Promise.resolve();
  /**
   * Undefined until done. Then a ClosedError after close(), else the BackplaneError by which the registry ended it: the token was revoked or may not see
   * this any more. The set stays as it was.
   * @type {Error | undefined}
   */
  error;

  /**
   * @param {import("./client.js").Client} client
   * @param {string} service
   */
  constructor(client, service) {
    this.#client = client;
    this.#service = service;
    this.#node = client.node;
    this.#set = { service, strategy: "ROUND_ROBIN", instances: [] };
  }

  /**
   * @param {import("./client.js").Client} client
   * @param {string} service
   * @param {AbortSignal} [signal]
   */
  static async start(client, service, signal) {
    const watch = new Watch(client, service);
    const pauses = newPauses();
    for (;;) {
      try {
        await watch.#readService(signal);
        watch.done = watch.#run();
        return watch;
      } catch (error) {
        if (signal?.aborted || !isTemporary(error)) throw error;
        watch.#useNextNode();
        await sleep(pauses.next(), signal);
        if (signal?.aborted) throw error;
      }
    }
  }

  /** The current set. */
  get set() {
    return this.#set;
  }

  /**
   * Waits for another set than the one given; without one it is the current set. It throws the error of the watch once that has ended.
   * @param {import("./set.js").Set} [last]
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<import("./set.js").Set>}
   */
  async next(last, { signal } = {}) {
    while (this.#set === last) {
      if (this.error) throw this.error;
      signal?.throwIfAborted();
      await new Promise((resolve) => {
        const wake = () => {
          this.#waiting.delete(wake);
          signal?.removeEventListener("abort", wake);
          resolve(undefined);
        };
        this.#waiting.add(wake);
        signal?.addEventListener("abort", wake);
      });
    }
    return this.#set;
  }

  /** Ends the watch. The set stays as it was. */
  async close() {
    this.#life.abort(new ClosedError());
    await this.done;
  }

  async #run() {
    const signal = this.#life.signal;
    const pauses = newPauses();
    for (;;) {
      const began = performance.now();
      const failure = await this.#follow(signal, pauses).catch((error) => error);
      if (performance.now() - began > this.#client.timeout) pauses.reset(); // it succeeded for a while
      if (signal.aborted || isRevoked(failure)) {
        this.error = signal.aborted ? new ClosedError() : failure;
        if (!signal.aborted) this.#client.log(`${this.#service}: the service is not watched any more`, failure);
        this.#publishStale(this.error);
        return;
      }
      if (codeOf(failure) === "SERVICE_NOT_FOUND") {
        this.#cursor = "";
        this.#publishEmpty();
      } else {
        if (["CURSOR_EXPIRED", "CURSOR_UNKNOWN", "CURSOR_INVALID"].includes(codeOf(failure)) || failure instanceof TooLongError) this.#cursor = ""; // read it anew
        else this.#useNextNode();
        this.#publishStale(failure);
      }
      await sleep(pauses.next(), signal);
    }
  }

  /**
   * Follows the service at one node, until an error.
   * @param {AbortSignal} signal
   * @param {Backoff} pauses
   */
  async #follow(signal, pauses) {
    if (!this.#cursor) {
      try {
        await this.#readService(signal);
      } catch (error) {
        // A node without its database answers reads from its memory, and does not know services that were defined since.
        if (codeOf(error) === "SERVICE_NOT_FOUND") await this.#client.callNode(this.#node, "{ eventCursor }", {}, signal);
        throw error;
      }
    }
    const messages = await this.#client.subscribe(this.#node, subscribeService, { name: this.#service }, this.#cursor, signal);
    for await (const message of messages) {
      this.#applyMessage(message);
      if (message.data) pauses.reset();
    }
  }

  /** @param {AbortSignal} [signal] */
  async #readService(signal) {
    const { state, cursor } = await ServiceState.read(async (page) => {
      const { service } = await this.#client.callNode(this.#node, readService, { name: this.#service, ...page }, signal);
      if (!service) throw new BackplaneError("SERVICE_NOT_FOUND", "There is no such service.");
      if (!service.instances || !service.strategy) throw new BackplaneError("FORBIDDEN", "The token may not see the instances of the service.");
      if (!service.cursor) throw new BackplaneError("UNAVAILABLE", "The node has not read the event log yet; try again.");
      return service;
    });
    this.#state = state;
    this.#cursor = cursor;
    this.#lastContact = new Date();
    this.#publish(state.set(this.#service));
  }

  /** @param {import("./stream.js").Message} message */
  #applyMessage({ cursor, data }) {
    this.#lastContact = new Date();
    if (data) {
      try {
        this.#state?.apply(data.serviceEvents);
      } catch (error) {
        this.#cursor = ""; // it counts as a gap: the service is read again
        throw error;
      }
      if (this.#state) this.#publish(this.#state.set(this.#service));
    } else if (this.#set.stale) {
      this.#publish({ ...this.#set, stale: undefined, trouble: undefined });
    }
    if (cursor) this.#cursor = cursor;
  }

  #publishEmpty() {
    this.#lastContact = new Date();
    if (this.#set.instances.length === 0 && !this.#set.stale) return;
    this.#client.log(`${this.#service}: the service does not exist any more; its set is empty until it is registered again`);
    this.#publish({ service: this.#service, strategy: this.#set.strategy, instances: [] });
  }

  /** @param {unknown} trouble */
  #publishStale(trouble) {
    if (!this.#set.stale && !(trouble instanceof ClosedError)) this.#client.log(`${this.#service}: the registry is unreachable; the set stays as last known`, trouble);
    this.#publish({ ...this.#set, stale: this.#set.stale ?? this.#lastContact, trouble });
  }

  /** @param {import("./set.js").Set} set */
  #publish(set) {
    if (this.#set.stale && !set.stale) this.#client.log(`${this.#service}: the registry is reachable again; the set is up to date`);
    this.#set = set;
    for (const wake of [...this.#waiting]) wake();
  }

  #useNextNode() {
    this.#client.useNextNode(this.#node);
    this.#node = (this.#node + 1) % this.#client.urls.length;
  }
}
