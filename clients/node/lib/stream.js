import { dataOf } from "./errors.js";
import { Scope } from "./wait.js";

/** Bounds a line of an event stream, in characters. */
const maxLine = 1 << 20;

/** An event has more than maxLine characters. */
export class TooLongError extends Error {}

/**
 * @typedef {object} Message an event, or only a cursor, or only a keep-alive
 * @property {string} cursor
 * @property {any} [data] of the response; undefined if there is no event
 */

/** A subscription by server-sent events. */
export class EventStream {
  #scope;
  #silence;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {number} silence
   * @param {AbortSignal} signal
   */
  constructor(silence, signal) {
    this.#silence = silence;
    this.#scope = new Scope(signal);
  }

  /**
   * Calls run, and ends the stream if that takes longer.
   * @template T
   * @param {number} ms
   * @param {(signal: AbortSignal) => Promise<T>} run
   */
  async within(ms, run) {
    this.#expect(ms);
    const result = await run(this.#scope.signal);
    clearTimeout(this.#timer);
    return result;
  }

  /** @param {number} ms */
  #expect(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#scope.abort(new Error("the stream of the registry was idle for too long")), ms);
  }

  /**
   * Yields the messages, until the stream ends; that is an error, too. A BackplaneError says why the registry ended it.
   * @param {Response} response
   * @returns {AsyncGenerator<Message, never>}
   */
  async *read(response) {
    try {
      let event = "";
      let cursor = "";
      let data = "";
      for await (const line of this.#lines(response)) {
        const [key, value] = splitField(line);
        if (key === "event") event = value;
        else if (key === "id") cursor = value;
        else if (key === "data") data = value; // ours have one line
        if (line !== "") continue;
        if (event === "complete") break;
        yield data === "" ? { cursor } : { cursor, data: dataOf(JSON.parse(data)) };
        event = cursor = data = "";
      }
      throw new Error("the registry ended the stream");
    } finally {
      this.close();
    }
  }

  /** @param {Response} response */
  async *#lines(response) {
    const decoder = new TextDecoder();
    let rest = "";
    this.#expect(this.#silence);
    for await (const chunk of /** @type {any} */ (response.body)) {
      this.#expect(this.#silence);
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = /** @type {string} */ (lines.pop());
      for (const line of lines) yield line.endsWith("\r") ? line.slice(0, -1) : line;
      if (rest.length > maxLine) throw new TooLongError(`an event has more than ${maxLine} characters`);
    }
  }

  /** Ends the stream; it may be called twice. */
  close() {
    clearTimeout(this.#timer);
    this.#scope.abort(new Error("the stream was closed"));
    this.#scope.end();
  }
}

/** @param {string} line */
function splitField(line) {
  const colon = line.indexOf(":");
  if (colon < 0) return [line, ""];
  const value = line.slice(colon + 1);
  return [line.slice(0, colon), value.startsWith(" ") ? value.slice(1) : value];
}
