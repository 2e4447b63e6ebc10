export { createFetch } from "./fetch.js";
export { BackplaneError, createSession, memoryStorage } from "./session.js";
export { followStream } from "./stream.js";
