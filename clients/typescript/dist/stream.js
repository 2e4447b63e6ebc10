import { createFetch } from "./fetch.js";
import { BackplaneError } from "./session.js";
const ticketDocument = "mutation Ticket($query: String!, $variables: JSON) { createStreamTicket(input: {query: $query, variables: $variables}) { ticket userErrors { code message } } }";
/** Follows a subscription by EventSource, which sends no headers: each stream has a ticket, and goes on after the last cursor. Returns what ends it. */
export function followStream(session, request, sink, Source = EventSource) {
    const send = createFetch(session);
    let source;
    let timer;
    let cursor;
    let failures = 0;
    let ended = false;
    function close() {
        ended = true;
        clearTimeout(timer);
        source?.close();
    }
    function fail(code, message) {
        close();
        if (code === "CURSOR_EXPIRED" || code === "CURSOR_UNKNOWN")
            sink.onGap?.();
        else
            sink.error?.(new BackplaneError(code, message));
    }
    async function createTicket() {
        const variables = { query: request.query, variables: { ...request.variables, ...(cursor && { after: cursor }) } };
        const response = await send(session.url, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ query: ticketDocument, variables }) });
        const { data, errors } = (await response.json());
        const { ticket, userErrors = [] } = data?.createStreamTicket ?? {};
        if (!ticket && response.status < 500 && response.status !== 429)
            fail(userErrors[0]?.code ?? errors?.[0]?.extensions?.code ?? "", userErrors[0]?.message ?? errors?.[0]?.message ?? "There is no ticket.");
        return ticket;
    }
    async function open() {
        const ticket = await createTicket().catch(() => undefined);
        if (ended)
            return;
        if (!ticket)
            return retry();
        source = new Source(`${session.url}?ticket=${encodeURIComponent(ticket)}`);
        source.onopen = () => (failures = 0);
        source.onerror = () => source?.readyState === 2 && retry(); // otherwise it connects again by itself
        source.addEventListener("next", (event) => received(event));
        source.addEventListener("complete", () => (close(), undefined));
    }
    function retry() {
        if (!ended)
            timer = setTimeout(open, Math.random() * Math.min(10_000, 250 * 2 ** failures++));
    }
    function received({ data, lastEventId }) {
        if (ended)
            return;
        const { data: result, errors } = JSON.parse(data);
        if (lastEventId)
            cursor = lastEventId;
        if (errors)
            fail(errors[0]?.extensions?.code ?? "", errors[0]?.message ?? "");
        else if (result)
            sink.next(result, lastEventId);
    }
    void open();
    return close;
}
