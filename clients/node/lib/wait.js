/** Pauses between tries: longer after each failure, and never in step with other clients. Half of each is chance. */
export class Backoff {
  /**
   * @param {number} first milliseconds
   * @param {number} most milliseconds
   */
  constructor(first, most) {
    this.first = first;
    this.most = most;
    this.tries = 0;
  }

  next() {
    const pause = Math.min(this.first * 2 ** Math.min(this.tries, 16), this.most);
    this.tries++;
    return pause / 2 + Math.random() * (pause / 2);
  }

  reset() {
    this.tries = 0;
  }
}

/**
 * Waits, or until the signal aborts.
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function sleep(ms, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener("abort", end);
  });
}

/**
 * Calls run with a signal that aborts with the others, or after a time.
 * @template T
 * @param {number} ms
 * @param {AbortSignal | undefined} signal
 * @param {(signal: AbortSignal) => Promise<T>} run
 * @returns {Promise<T>}
 */
export async function withTimeout(ms, signal, run) {
  const scope = new Scope(signal);
  const timer = setTimeout(() => scope.abort(new Error(`no answer within ${Math.round(ms)} ms`)), ms);
  try {
    return await run(scope.signal);
  } finally {
    clearTimeout(timer);
    scope.end();
  }
}

/** An AbortController that also aborts with another signal, until its end. */
export class Scope {
  #controller = new AbortController();
  #follow;
  #parent;

  /** @param {AbortSignal} [parent] */
  constructor(parent) {
    this.#parent = parent;
    this.#follow = () => this.abort(parent?.reason);
    if (parent?.aborted) this.#follow();
    parent?.addEventListener("abort", this.#follow);
  }

  get signal() {
    return this.#controller.signal;
  }

  /** @param {unknown} reason */
  abort(reason) {
    this.#controller.abort(reason);
  }

  end() {
    this.#parent?.removeEventListener("abort", this.#follow);
  }
}

/**
 * A length of time as the registry writes it.
 * @param {number | undefined} ms
 */
export const duration = (ms) => (ms === undefined ? undefined : `${Math.round(ms)}ms`);
