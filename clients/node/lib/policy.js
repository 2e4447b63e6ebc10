/**
 * Client-side load balancing among the instances of a service, by the policies of the server. They do no I/O: they take instances, reported outcomes and a
 * clock.
 *
 * Weights count in every strategy. Outlier ejection takes an instance out for a while after failures in a row, or when its success rate or latency is far
 * from the median. Slow start gives new and returning instances a growing part of their weight. Below the panic threshold, when too few instances would be
 * left, ejections are ignored.
 */
import { NoInstanceError } from "./errors.js";
import { memberOf, newRing } from "./ring.js";

/** @typedef {"ROUND_ROBIN" | "RANDOM" | "LEAST_CONNECTIONS" | "POWER_OF_TWO" | "CONSISTENT_HASH"} StrategyName */

/** How calls are spread over the instances. An unknown strategy means ROUND_ROBIN. */
export const Strategy = Object.freeze({
  /** Each in turn. */
  roundRobin: "ROUND_ROBIN",
  /** At random. */
  random: "RANDOM",
  /** The instance with the fewest calls in flight. */
  leastConnections: "LEAST_CONNECTIONS",
  /** Of two at random, the one with fewer calls in flight. */
  powerOfTwo: "POWER_OF_TWO",
  /** Equal keys to the same instance. */
  consistentHash: "CONSISTENT_HASH",
});

/**
 * @typedef {object} PolicyInstance what may be chosen
 * @property {string} id unique within its set
 * @property {string} name by which keys are given: the same when the instance comes again under another id
 * @property {number} weight its share of the calls; 1 at least
 * @property {number} incarnation a new one starts without the failures of the one before
 * @property {number} since since when it may be called, in milliseconds
 * @property {any} [value] the caller's own
 */

/**
 * @typedef {object} PolicyPick
 * @property {PolicyInstance} instance
 * @property {(ok: boolean, ms: number) => void} done
 * @property {() => void} release
 */

/** The defaults; times in milliseconds. */
const defaults = {
  failures: 5, // in a row that eject an instance
  interval: 10000, // between two comparisons of instances
  minOutcomes: 20, // of an instance within an interval, or it is not compared
  successRatio: 0.8, // an instance whose success rate is below this part of the median is ejected
  slowRatio: 10, // an instance with more than this many times the median latency is ejected
  eject: 10000, // for how long, times the number of its recent ejections
  maxEject: 300000,
  maxEjected: 0.5, // part of the instances that may be ejected at once
  panic: 0.3, // if a smaller part than this is left, ejections are ignored
  slowStart: 10000, // until a new or returned instance has its whole weight
};

const slowStartSteps = 10; // in which a new instance comes to its whole weight
const passUnit = 1 << 24; // what one call costs a member of weight 1, in passes

/** What is known of one instance. */
class Member {
  inflight = 0;
  weight = 0; // at the moment, in units of which the whole has ten
  ejected = false;
  consecutiveFailures = 0;
  // Outcomes since they were last compared.
  successes = 0;
  failures = 0;
  latencySum = 0;
  slowStartFrom = -Infinity;
  ejectedUntil = 0;
  ejections = 0; // less the intervals without one since
  pass = 0; // its turns for its weight

  /** @param {PolicyInstance} instance */
  constructor(instance) {
    this.instance = instance;
  }
}

/** Chooses among the instances of one service. */
export class Policies {
  #cfg;
  #now;
  /** @type {Member[]} */
  #members = [];
  /** @type {Map<string, Member>} */
  #departed = new Map(); // that left with calls in flight, in case they return
  /** @type {Member[]} */
  #candidates = []; // members in use; all of them, if too few would be left
  /** @type {number[]} */
  #ends = []; // of the slots of candidate i: the slot behind its last
  #total = 0; // slots
  #stride = 1;
  #panic = false;
  #turn = Math.floor(Math.random() * 2 ** 31); // so that processes do not all begin with the same instance
  #rebuildAt = Infinity; // when a slow start or an ejection changes members
  #compareAt = 0;
  #pass = 0; // of the last winner, before its win
  /** @type {import("./ring.js").Ring | undefined} */
  #ring;

  /**
   * @param {Partial<typeof defaults>} [config]
   * @param {() => number} [now] the time in milliseconds
   */
  constructor(config = {}, now = Date.now) {
    this.#cfg = { ...defaults, ...config };
    this.#now = now;
  }

  /**
   * Makes these instances those that are picked. Those that stay keep their state, and so do those that leave with calls in flight.
   * @param {PolicyInstance[]} instances
   */
  update(instances) {
    const before = new Map(this.#departed);
    for (const m of this.#members) before.set(m.instance.id, m);
    this.#members = instances.map((instance) => {
      let m = before.get(instance.id);
      if (m?.instance.incarnation !== instance.incarnation) m = new Member(instance);
      m = /** @type {Member} */ (m);
      m.slowStartFrom = Math.max(m.slowStartFrom, instance.since);
      m.instance = instance;
      return m;
    });
    const present = new Set(instances.map((instance) => instance.id));
    this.#departed = new Map([...before].filter(([id, m]) => !present.has(id) && m.inflight > 0));
    this.#ring = undefined;
    this.#rebuild(this.#now());
  }

  /**
   * Chooses an instance, or throws a NoInstanceError.
   * @param {StrategyName} strategy
   * @param {string} [key]
   * @returns {PolicyPick}
   */
  pick(strategy, key = "") {
    const now = this.#now();
    if (now >= this.#rebuildAt) this.#rebuild(now);
    if (this.#candidates.length === 0) throw new NoInstanceError();
    return this.#begin(this.#choose(strategy, key));
  }

  /**
   * @param {StrategyName} strategy
   * @param {string} key
   */
  #choose(strategy, key) {
    switch (strategy) {
      case Strategy.random:
        return this.#random();
      case Strategy.leastConnections:
        return this.#leastLoaded();
      case Strategy.powerOfTwo: {
        const [a, b] = [this.#random(), this.#random()];
        return b.inflight * a.weight < a.inflight * b.weight ? b : a;
      }
      case Strategy.consistentHash:
        return this.#byKey(key);
      default:
        this.#turn++;
        return this.#memberAt(((this.#turn % this.#total) * this.#stride) % this.#total);
    }
  }

  /**
   * Chooses by chance, by the weights, among the instances that are not refused: for a call that must go elsewhere. Those that are ejected come last.
   * @param {(instance: PolicyInstance) => boolean} refused
   * @returns {PolicyPick}
   */
  pickOther(refused) {
    const m = pickRandom(this.#candidates.filter((m) => !refused(m.instance))) ?? pickRandom(this.#members.filter((m) => !refused(m.instance)));
    if (!m) throw new NoInstanceError();
    return this.#begin(m);
  }

  /**
   * @param {Member} m
   * @returns {PolicyPick}
   */
  #begin(m) {
    m.inflight++;
    let open = true;
    const release = () => {
      if (open) m.inflight--;
      open = false;
    };
    const done = (/** @type {boolean} */ ok, /** @type {number} */ ms) => {
      if (!open) return;
      release();
      this.#record(m, ok, ms);
    };
    return { instance: m.instance, done, release };
  }

  #random() {
    return this.#memberAt(Math.floor(Math.random() * this.#total));
  }

  /** @param {number} slot */
  #memberAt(slot) {
    let [low, high] = [0, this.#ends.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#ends[middle] > slot) high = middle;
      else low = middle + 1;
    }
    return this.#candidates[low];
  }

  /** The member with the fewest calls for its weight; of those that have the same, the one with the fewest turns for its weight. */
  #leastLoaded() {
    const least = this.#candidates.reduce((x, y) => {
      const d = y.inflight * x.weight - x.inflight * y.weight;
      return d < 0 || (d === 0 && y.pass < x.pass) ? y : x;
    });
    this.#pass = least.pass;
    least.pass += passUnit / least.weight;
    return least;
  }

  /**
   * The owner of the key or, while that is ejected, the next one.
   * @param {string} key
   */
  #byKey(key) {
    this.#ring ??= newRing(this.#members.map(({ instance }) => instance));
    const n = memberOf(this.#ring, key, (i) => this.#panic || !this.#members[i].ejected);
    return n < 0 ? this.#random() : this.#members[n];
  }

  /** @param {number} now */
  #rebuild(now) {
    this.#returnEjected(now);
    const all = this.#members;
    const healthy = all.filter((m) => !m.ejected);
    this.#panic = healthy.length < this.#cfg.panic * all.length;
    this.#candidates = this.#panic ? all : healthy;
    const cold = this.#slowStartActive(now);
    for (const m of this.#candidates) {
      m.weight = m.instance.weight * (cold ? this.#slowStartStep(m, now) : slowStartSteps);
      m.pass = Math.max(m.pass, this.#pass); // not with all the turns that it has missed
    }
    this.#buildWheel();
    this.#rebuildAt = this.#nextRebuild(now, cold);
  }

  /** The wheel of weighted round robin: as many slots for each member as its weight; a stride that visits all, and heavy members not in a row. */
  #buildWheel() {
    const common = this.#candidates.reduce((d, m) => gcd(d, m.weight), 0);
    this.#total = 0;
    this.#ends = this.#candidates.map((m) => (this.#total += m.weight / common));
    this.#stride = Math.max(1, Math.floor(this.#total * ((Math.sqrt(5) - 1) / 2)));
    while (this.#total > 0 && gcd(this.#stride, this.#total) !== 1) this.#stride++;
  }

  /**
   * Whether slow starts count: not while no instance has been there for longer, as none could take the calls in the meantime.
   * @param {number} now
   */
  #slowStartActive(now) {
    const cold = this.#members.filter((m) => now - m.slowStartFrom < this.#cfg.slowStart).length;
    return cold > 0 && cold < this.#members.length;
  }

  /**
   * How many tenths of its weight a member has.
   * @param {Member} m
   * @param {number} now
   */
  #slowStartStep(m, now) {
    const step = Math.trunc(((now - m.slowStartFrom) * slowStartSteps) / this.#cfg.slowStart) + 1;
    return Math.min(Math.max(step, 1), slowStartSteps);
  }

  /**
   * When members change by themselves: one is a step warmer, or its ejection ends.
   * @param {number} now
   * @param {boolean} cold
   */
  #nextRebuild(now, cold) {
    let at = Infinity;
    for (const m of this.#members) {
      const step = this.#slowStartStep(m, now);
      if (m.ejected) at = Math.min(at, m.ejectedUntil);
      else if (cold && step < slowStartSteps) at = Math.min(at, m.slowStartFrom + (this.#cfg.slowStart * step) / slowStartSteps);
    }
    return at;
  }

  /**
   * @param {Member} m
   * @param {boolean} ok
   * @param {number} ms
   */
  #record(m, ok, ms) {
    const now = this.#now();
    if (ok) {
      m.successes++;
      m.latencySum += ms;
      m.consecutiveFailures = 0;
    } else {
      m.failures++;
      m.consecutiveFailures++;
      if (m.consecutiveFailures % this.#cfg.failures === 0) this.#eject(m, now);
    }
    if (now < this.#compareAt) return;
    const first = this.#compareAt === 0;
    this.#compareAt = now + this.#cfg.interval;
    if (!first) this.#ejectOutliers(now);
  }

  /**
   * Ejects the member for a while, unless too many are ejected.
   * @param {Member} m
   * @param {number} now
   */
  #eject(m, now) {
    const ejected = this.#members.filter((other) => other.ejected).length;
    if (m.ejected || !this.#members.includes(m) || ejected >= Math.floor(this.#cfg.maxEjected * this.#members.length)) return;
    m.ejections++;
    m.ejectedUntil = now + Math.min(this.#cfg.eject * m.ejections, this.#cfg.maxEject);
    m.ejected = true;
    this.#rebuild(now);
  }

  /**
   * Returns members whose ejection is over, with a slow start.
   * @param {number} now
   */
  #returnEjected(now) {
    for (const m of this.#members) {
      if (!m.ejected || now < m.ejectedUntil) continue;
      m.consecutiveFailures = m.successes = m.failures = m.latencySum = 0;
      m.slowStartFrom = now;
      m.ejected = false;
    }
  }

  /**
   * Ejects members that did much worse than the median. When all do badly it ejects none: the instances are not the cause then.
   * @param {number} now
   */
  #ejectOutliers(now) {
    const records = [];
    for (const m of this.#members) {
      const n = m.successes + m.failures;
      if (!m.ejected && n >= this.#cfg.minOutcomes) records.push({ m, success: m.successes / n, took: m.latencySum / Math.max(m.successes, 1) });
      m.successes = m.failures = m.latencySum = 0;
    }
    const worse = new Set();
    if (records.length >= 3) {
      // Of two, neither is known to be the outlier.
      const success = median(records.map((r) => r.success));
      const took = median(records.map((r) => r.took));
      for (const r of records) {
        if (r.success < success * this.#cfg.successRatio || (took > 0 && r.took > took * this.#cfg.slowRatio)) worse.add(r.m);
      }
    }
    for (const m of worse) this.#eject(m, now);
    for (const { m } of records) if (m.ejections > 0 && !worse.has(m)) m.ejections--;
  }
}

/** @param {Member[]} members */
function pickRandom(members) {
  let point = Math.random() * members.reduce((sum, m) => sum + m.weight, 0);
  return members.find((m) => (point -= m.weight) < 0) ?? members.at(-1);
}

/** @param {number[]} values */
const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

/**
 * @param {number} a
 * @param {number} b
 * @returns {number}
 */
const gcd = (a, b) => (b === 0 ? a : gcd(b, a % b));
