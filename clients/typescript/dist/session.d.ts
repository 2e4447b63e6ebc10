/** The tokens of a session, as `signIn`, `signUp` and `refreshSession` give them. */
export interface Tokens {
    accessToken: string;
    refreshToken: string;
}
/** Where a session keeps its tokens: `localStorage`, `sessionStorage` or an object of your own. */
export interface TokenStorage {
    getItem(key: string): string | null;
    setItem(key: string, value: string): void;
    removeItem(key: string): void;
}
export interface SessionOptions {
    /** The URL of `/graphql`. */
    url: string;
    /** Where the tokens are kept; default `localStorage`, or the memory of the page where there is none. */
    storage?: TokenStorage;
    /** The key in the storage, the same in each tab; default `backplane`. */
    name?: string;
    /** Called when the session has ended elsewhere, so that its tokens are gone. */
    onSignedOut?: () => void;
    /** Sends requests; default the global `fetch`. */
    fetch?: typeof fetch;
}
/** An error of the server, with its code. */
export declare class BackplaneError extends Error {
    readonly code: string;
    constructor(code: string, message: string);
}
export type Session = ReturnType<typeof createSession>;
/** Returns the session of the page: it keeps the tokens and renews them once for all requests and all tabs. */
export declare function createSession(options: SessionOptions): {
    url: string;
    set: (tokens?: Tokens) => void;
    token: () => Promise<string | undefined>;
    renew: (refused?: string | undefined) => Promise<string | undefined>;
    /** Whether there are tokens. */
    readonly signedIn: boolean;
    /** When `token` renews next, in milliseconds since 1970; undefined if the caller is signed out. */
    readonly renewAt: number | undefined;
    /** Calls the listener when the tokens change, here or in another tab. Returns what ends that. */
    onChange(listener: () => void): () => void;
    signIn(login: string, password: string): Promise<void>;
    signOut(): Promise<void>;
};
/** Returns a storage that lasts as long as the page. */
export declare function memoryStorage(): TokenStorage;
