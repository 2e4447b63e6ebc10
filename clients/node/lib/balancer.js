import { Policies } from "./policy.js";

/**
 * @typedef {object} Pick an instance that was chosen for one call. One of done and release must be called when the call has ended; later calls do nothing
 * @property {import("./set.js").Instance} instance
 * @property {(ok: boolean, ms: number) => void} done says how the call ended and how long it took
 * @property {() => void} release says that the call has ended, with an unknown outcome
 */

/**
 * Chooses instances of a watched service, as the server does when it is asked to pick: fair by weight, away from instances whose calls fail. It knows the
 * outcomes of its own calls alone, so use one for all calls of a process to a service. It starts nothing; the caller still closes the watch.
 */
export class Balancer {
  #watch;
  #strategy;
  #policies = new Policies();
  /** @type {import("./set.js").Set | undefined} */
  #set;

  /**
   * @param {import("./watch.js").Watch} watch
   * @param {import("./policy.js").StrategyName} [strategy] default: that of the service
   */
  constructor(watch, strategy) {
    this.#watch = watch;
    this.#strategy = strategy;
  }

  /**
   * Chooses an instance for one call, or throws a NoInstanceError. CONSISTENT_HASH gives equal keys the same instance while that is in use; others
   * ignore the key.
   * @param {string} [key]
   * @returns {Pick}
   */
  pick(key = "") {
    const set = this.#sync();
    return toPick(this.#policies.pick(this.#strategy ?? set.strategy, key));
  }

  /**
   * Chooses an instance for a retry, among those for which tried is false; a NoInstanceError if there is none.
   * @param {(instance: import("./set.js").Instance) => boolean} tried
   * @returns {Pick}
   */
  pickOther(tried) {
    this.#sync();
    return toPick(this.#policies.pickOther((instance) => tried(instance.value)));
  }

  #sync() {
    const set = this.#watch.set;
    if (set !== this.#set) {
      this.#policies.update(
        set.instances.map((i) => ({ id: i.id, name: i.instanceId, weight: Math.max(1, i.weight), incarnation: i.incarnation, since: i.since.getTime(), value: i })),
      );
      this.#set = set;
    }
    return set;
  }
}

/** @param {import("./policy.js").PolicyPick} pick */
const toPick = (pick) => ({ instance: pick.instance.value, done: pick.done, release: pick.release });
