import { createFetch } from "./fetch.js";
import { BackplaneError, type Session } from "./session.js";

export interface StreamRequest {
  /** A subscription, with a variable `$after`. */
  query: string;
  variables?: Record<string, unknown>;
}

export interface StreamSink<Data> {
  next: (data: Data, cursor: string) => void;
  /** Called once if the stream cannot go on: the session has ended, or the document is wrong. */
  error?: (error: BackplaneError) => void;
  /** Called when events may be missing: read what the page shows again, and follow after its cursor. */
  onGap?: () => void;
}

const ticketDocument = "mutation Ticket($query: String!, $variables: JSON) { createStreamTicket(input: {query: $query, variables: $variables}) { ticket userErrors { code message } } }";

interface Answer<Data> {
  data?: Data | null;
  errors?: { message: string; extensions?: { code?: string } }[];
}

/** Follows a subscription by EventSource, which sends no headers: each stream has a ticket, and goes on after the last cursor. Returns what ends it. */
export function followStream<Data>(session: Session, request: StreamRequest, sink: StreamSink<Data>, Source: typeof EventSource = EventSource): () => void {
  const send = createFetch(session);
  let source: EventSource | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let cursor: string | undefined;
  let failures = 0;
  let ended = false;

  function close(): void {
    ended = true;
    clearTimeout(timer);
    source?.close();
  }

  function fail(code: string, message: string): void {
    close();
    if (code === "CURSOR_EXPIRED" || code === "CURSOR_UNKNOWN") sink.onGap?.();
    else sink.error?.(new BackplaneError(code, message));
  }

  async function createTicket(): Promise<string | undefined> {
    const variables = { query: request.query, variables: { ...request.variables, ...(cursor && { after: cursor }) } };
    const response = await send(session.url, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ query: ticketDocument, variables }) });
    const { data, errors } = (await response.json()) as Answer<{ createStreamTicket: { ticket?: string; userErrors: { code: string; message: string }[] } | null }>;
    const { ticket, userErrors = [] } = data?.createStreamTicket ?? {};
    if (!ticket && response.status < 500 && response.status !== 429) fail(userErrors[0]?.code ?? errors?.[0]?.extensions?.code ?? "", userErrors[0]?.message ?? errors?.[0]?.message ?? "There is no ticket.");
    return ticket;
  }

  async function open(): Promise<void> {
    const ticket = await createTicket().catch(() => undefined);
    if (ended) return;
    if (!ticket) return retry();
    source = new Source(`${session.url}?ticket=${encodeURIComponent(ticket)}`);
    source.onopen = () => (failures = 0);
    source.onerror = () => source?.readyState === 2 && retry(); // otherwise it connects again by itself
    source.addEventListener("next", (event) => received(event));
    source.addEventListener("complete", () => (close(), undefined));
  }

  function retry(): void {
    if (!ended) timer = setTimeout(open, Math.random() * Math.min(10_000, 250 * 2 ** failures++));
  }

  function received({ data, lastEventId }: MessageEvent<string>): void {
    if (ended) return;
    const { data: result, errors } = JSON.parse(data) as Answer<Data>;
    if (lastEventId) cursor = lastEventId;
    if (errors) fail(errors[0]?.extensions?.code ?? "", errors[0]?.message ?? "");
    else if (result) sink.next(result, lastEventId);
  }

  void open();
  return close;
}
