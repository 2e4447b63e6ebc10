import type { TokenStorage } from "./session.js";
/** Runs the work while no other tab does: by a Web Lock, or by a lease in the storage where there are none, as on pages without TLS. */
export declare function lock<T>(name: string, storage: TokenStorage, work: () => Promise<T>): Promise<T>;
