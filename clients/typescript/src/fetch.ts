import type { Session } from "./session.js";

/** Returns a `fetch` that sends the access token to the server of the session. A request whose token is refused is repeated once, with the next token. */
export function createFetch(session: Session, send: typeof fetch = (input, init) => fetch(input, init)): typeof fetch {
  return async (input, init) => {
    const base = typeof location === "undefined" ? undefined : location.href;
    const request = new Request(typeof input === "string" ? new URL(input, base) : input, init);
    if (new URL(request.url).origin !== new URL(session.url, base).origin) return send(request); // the token is for this server alone
    const token = await session.token();
    const again = token && request.clone();
    const response = await send(authorize(request, token));
    if (!again || !(await wasRefused(again.clone(), response))) return response;
    const next = await session.renew(token);
    if (!next) return response;
    await response.body?.cancel();
    return send(authorize(again, next));
  };
}

function authorize(request: Request, token: string | undefined): Request {
  if (token) request.headers.set("authorization", `Bearer ${token}`);
  return request;
}

/** Reports whether the token was refused and nothing was changed by the request. */
async function wasRefused(request: Request, response: Response): Promise<boolean> {
  if (response.status === 401) return true;
  if (!response.headers.get("www-authenticate")?.includes("invalid_token")) return false;
  const { errors } = (await response.clone().json()) as { errors?: { extensions?: { code?: string } }[] };
  if (!errors?.some((error) => error.extensions?.code === "TOKEN_EXPIRED" || error.extensions?.code === "UNAUTHENTICATED")) return false;
  return !/\bmutation\b/.test(await request.text()); // part of it may have been done
}
