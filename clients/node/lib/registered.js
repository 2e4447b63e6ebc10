import { ClosedError, codeOf, isRevoked, isTemporary } from "./errors.js";
import { Backoff, duration, Scope, sleep, withTimeout } from "./wait.js";

/**
 * @typedef {object} Registration
 * @property {string} service its name; it must be defined, see Client.defineService
 * @property {string} instance its id, such as till-1: the same after a restart, and no other process's
 * @property {string} url where it is called: http or https, a host, perhaps a path
 * @property {number} [weight] its share of the calls; default 1
 * @property {Record<string, string>} [metadata] shown to callers
 * @property {number} [ttl] how long it counts as alive without a heartbeat, in milliseconds, 2 s to 10 min; default 30000
 * @property {() => number} [inflight] returns its calls in flight, sent with each heartbeat
 * @property {number} [drain] milliseconds that close() gives callers to see that it drains; default 1000, 0 for not at all
 */

/**
 * @typedef {object} State
 * @property {string} status as the registry last answered: PASSING, CRITICAL, DRAINING or MAINTENANCE
 * @property {number} incarnation which start of the instance this is
 * @property {Date} seen when the registry last accepted a heartbeat
 * @property {unknown} [trouble] why the last heartbeat failed; undefined if it did not
 */

/** Bounds close(), in milliseconds. */
const closeTime = 15000;

/**
 * An instance that is kept registered: by heartbeats about three times within its time to live, and by registering again what was late or
 * removed meanwhile. It ends with close(), or when the registry says that it must.
 */
export class Registered {
  #client;
  #reg;
  #life = new Scope();
  #seenAt = 0; // of the monotonic clock
  /** @type {State} */
  #state;
  /** @type {string | undefined} */
  #drained;
  /** @type {Promise<void>} */
  #heartbeats = Promise.resolve();
  /** @type {Promise<void> | undefined} */
  #closed;
  /** @type {() => void} */
  #finished = () => {};

  /**
   * Settles when the instance is not kept registered any more; error says why.
   * @type {Promise<void>}
   */
  done;
  /**
   * Undefined until done. Then a ClosedError after close(), else the BackplaneError by which the registry ended it: STALE_INCARNATION, another
   * process has the id; UNAUTHENTICATED or FORBIDDEN, the token was revoked or may not do this any more.
   * @type {Error | undefined}
   */
  error;

  /**
   * @param {import("./client.js").Client} client
   * @param {Registration} registration
   */
  constructor(client, registration) {
    this.#client = client;
    const { weight = 1, metadata = {}, ttl = 30000, drain = 1000, ...given } = registration;
    this.#reg = { ...given, weight, metadata, ttl, drain };
    if (!given.service || !given.instance || !given.url || !(ttl > 0)) throw new TypeError("register: service, instance and url must be given, and a positive ttl");
    // Finer than what the registry counts by itself, and so later.
    this.#state = { status: "", incarnation: Math.floor((performance.timeOrigin + performance.now()) * 1000), seen: new Date(0) };
    this.done = new Promise((resolve) => (this.#finished = resolve));
  }

  /**
   * @param {import("./client.js").Client} client
   * @param {Registration} registration
   * @param {AbortSignal} [signal]
   */
  static async start(client, registration, signal) {
    const registered = new Registered(client, registration);
    const pauses = registered.#newBackoff();
    for (;;) {
      try {
        await registered.#registerFirst(signal);
        registered.#log("registered");
        registered.#heartbeats = registered.#sendHeartbeats();
        return registered;
      } catch (error) {
        if (signal?.aborted || !isTemporary(error)) throw error;
        registered.#record(error);
        await sleep(pauses.next(), signal);
        if (signal?.aborted) throw error;
      }
    }
  }

  /** How the instance stands with the registry. */
  get state() {
    return { ...this.#state };
  }

  /**
   * Asks callers to send the instance no new calls. Heartbeats go on. It lasts until the instance is started again.
   * @param {string} reason up to 200 characters
   * @param {{signal?: AbortSignal}} [options]
   */
  async drain(reason, options = {}) {
    this.#drained = reason;
    await this.#update("drainInstance", "DrainInstanceInput", { ...this.#ids(), reason }, options.signal);
  }

  /**
   * Takes the instance out of the registry: it drains, so that callers stop sending calls, and is removed once they have had time to see that. Stop
   * serving after it, not before. An error says that the instance is still registered and will be critical when its time to live is over. All
   * calls return what the first one does.
   * @param {{timeout?: number}} [options] milliseconds that it takes at most; 15000 is the most
   */
  close(options = {}) {
    this.#closed ??= withTimeout(Math.min(options.timeout ?? closeTime, closeTime), undefined, (signal) => this.#deregister(signal));
    return this.#closed;
  }

  /** @param {AbortSignal} signal */
  async #deregister(signal) {
    if (this.#reg.drain > 0 && !this.error) {
      const drains = this.#drained !== undefined || (await this.drain("stopping", { signal }).then(() => true, () => false));
      if (drains) await sleep(this.#reg.drain, signal);
    }
    this.#life.abort(new ClosedError());
    await this.#heartbeats;
    if (this.error) return; // it is not ours to remove any more
    try {
      await this.#client.mutate("deregisterInstance", "DeregisterInstanceInput", "", this.#ids(), signal);
    } catch (error) {
      if (!["INSTANCE_NOT_FOUND", "STALE_INCARNATION", "SERVICE_NOT_FOUND"].includes(codeOf(error))) throw error;
    } finally {
      this.#finish(new ClosedError());
    }
  }

  async #sendHeartbeats() {
    const signal = this.#life.signal;
    const pauses = this.#newBackoff();
    let pause = this.#interval();
    for (;;) {
      await sleep(pause, signal);
      if (signal.aborted) return;
      let failure;
      try {
        await withTimeout(this.#reg.ttl / 3, signal, (limited) => this.#sendHeartbeat(limited));
      } catch (error) {
        failure = error;
      }
      if (signal.aborted) return;
      this.#record(failure);
      if (!failure) {
        pauses.reset();
        pause = this.#interval();
      } else if (isRevoked(failure) || codeOf(failure) === "STALE_INCARNATION") {
        this.#log("heartbeats ended: the registry refused the instance for good", failure);
        this.#finish(/** @type {Error} */ (failure));
        return;
      } else {
        pause = pauses.next(); // also of a deregistered service: its owner may register it again
      }
    }
  }

  /**
   * Renews the lease. An instance that was removed registers again, and so does one that was late. Either keeps the incarnation: if another
   * process has registered meanwhile, that one stays.
   * @param {AbortSignal} signal
   */
  async #sendHeartbeat(signal) {
    const seenAt = this.#seenAt;
    let removed = false;
    try {
      const inflight = this.#reg.inflight ? { inflight: Math.max(0, Math.trunc(this.#reg.inflight())) } : {};
      await this.#update("renewInstance", "RenewInstanceInput", { ...this.#ids(), ...inflight }, signal);
    } catch (error) {
      removed = codeOf(error) === "INSTANCE_NOT_FOUND";
      if (!removed) throw error;
    }
    const late = performance.now() - seenAt > this.#reg.ttl && this.#state.status === "CRITICAL";
    if (!removed && !late) return;
    await this.#register(this.#state.incarnation, signal);
    this.#log("registered again");
    if (this.#drained !== undefined) await this.drain(this.#drained, { signal });
  }

  /**
   * Registers the start that this is. If this machine's clock is behind that of the one where the instance ran before, its number is not new
   * enough; then the registry counts.
   * @param {AbortSignal} [signal]
   */
  async #registerFirst(signal) {
    try {
      await this.#register(this.#state.incarnation, signal);
    } catch (error) {
      if (codeOf(error) !== "STALE_INCARNATION") throw error;
      await this.#register(undefined, signal);
    }
  }

  /**
   * @param {number | undefined} incarnation
   * @param {AbortSignal} [signal]
   */
  #register(incarnation, signal) {
    const { url, weight, metadata, ttl } = this.#reg;
    return this.#update("registerInstance", "RegisterInstanceInput", { ...this.#ids(), incarnation, url, weight, metadata, ttl: duration(ttl) }, signal);
  }

  /**
   * Calls a mutation of the instance, and records the state that it returns.
   * @param {string} field
   * @param {string} type
   * @param {object} input
   * @param {AbortSignal} [signal]
   */
  async #update(field, type, input, signal) {
    const { instance } = await this.#client.mutate(field, type, "instance { status incarnation }", input, signal);
    this.#state = { ...this.#state, status: instance.status, incarnation: instance.incarnation, seen: new Date() };
    this.#seenAt = performance.now();
  }

  #ids() {
    return { service: this.#reg.service, instanceId: this.#reg.instance, incarnation: this.#state.incarnation };
  }

  /** The time between two heartbeats: a third of the time to live at most, and not in step with others. */
  #interval() {
    const third = this.#reg.ttl / 3;
    return third - (Math.random() * third) / 5;
  }

  /** The longest pause is no longer than that between two heartbeats, so that the instance is back in time. */
  #newBackoff() {
    return new Backoff(200, Math.min(10000, this.#reg.ttl / 3));
  }

  /** @param {unknown} trouble */
  #record(trouble) {
    const before = this.#state.trouble;
    this.#state = { ...this.#state, trouble };
    if (trouble && !before) this.#log("a heartbeat failed; it is tried again", trouble);
    if (!trouble && before) this.#log("heartbeats succeed again");
  }

  /** @param {Error} why */
  #finish(why) {
    this.error ??= why;
    this.#finished();
  }

  /**
   * @param {string} message
   * @param {unknown} [error]
   */
  #log(message, error) {
    this.#client.log(`${this.#reg.instance} of ${this.#reg.service}: ${message}`, error);
  }
}
