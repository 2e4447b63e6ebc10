export { createFetch } from "./fetch.js";
export { BackplaneError, createSession, memoryStorage, type Session, type SessionOptions, type Tokens, type TokenStorage } from "./session.js";
export { followStream, type StreamRequest, type StreamSink } from "./stream.js";
