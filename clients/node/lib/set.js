/**
 * @typedef {object} Instance one running copy of a service
 * @property {string} id of the registry: another one after it was removed and came again
 * @property {string} instanceId of its owner's choice, the same after a restart
 * @property {string} url
 * @property {number} weight
 * @property {Record<string, string>} metadata
 * @property {number} incarnation which start of it this is
 * @property {string} status
 * @property {Date} since when it came to this status
 */

/**
 * @typedef {object} Set a service with those of its instances that calls may go to, as it was known at one moment. It is shared and must not be changed
 * @property {string} service
 * @property {import("./policy.js").StrategyName} strategy that its owner wants
 * @property {Instance[]} instances by the ids that their owners gave them
 * @property {Date} [degraded] since when most healthy instances have failed; the last healthy ones stay in the set
 * @property {Date} [stale] since when the registry has been unreachable; the set stays as it was
 * @property {unknown} [trouble] why it is stale
 */

const pageSize = 50;
const maxPages = 4000; // the registry has no more than 200,000 instances in all

export const readService = `query($name: String!, $first: Int!, $after: String) { service(name: $name) {
  version strategy cursor degraded { reason since }
  instances(first: $first, after: $after) {
    nodes { id version instanceId url weight status statusSince metadata incarnation }
    pageInfo { hasNextPage endCursor }
  } } }`;

/** A service with all its instances as a watch last received them, in use or not. */
export class ServiceState {
  #version = 0;
  #strategy = /** @type {import("./policy.js").StrategyName} */ ("ROUND_ROBIN");
  /** @type {Date | undefined} */
  #degraded;
  /** @type {Map<string, {version: number, instance: Instance}>} */
  #instances = new Map();

  /**
   * Reads the whole service; the cursor to follow from is that of the first page.
   * @param {(variables: object) => Promise<any>} readPage
   */
  static async read(readPage) {
    const state = new ServiceState();
    let cursor = "";
    let after;
    for (let page = 0; page < maxPages; page++) {
      const service = await readPage({ first: pageSize, after });
      cursor ||= service.cursor;
      state.#addPage(service);
      const { hasNextPage, endCursor } = service.instances.pageInfo;
      if (!hasNextPage || !endCursor) break;
      after = endCursor;
    }
    return { state, cursor };
  }

  /** @param {any} service */
  #addPage(service) {
    this.#version = service.version;
    this.#strategy = service.strategy;
    this.#degraded = service.degraded?.reason === "MASS_FAILURE" ? new Date(service.degraded.since) : undefined;
    for (const node of service.instances.nodes) this.#instances.set(node.id, { version: node.version, instance: toInstance(node.id, node) });
  }

  /**
   * Applies an event; one older than the known version changes nothing.
   * @param {{type: string, subjectId: string, subjectVersion: number, data: any}} event
   */
  apply({ type, subjectId, subjectVersion, data }) {
    switch (type) {
      case "SERVICE_REGISTERED":
      case "SERVICE_UPDATED":
      case "SERVICE_DEREGISTERED":
        if (subjectVersion <= this.#version) return;
        this.#version = subjectVersion;
        this.#strategy = data.strategy;
        this.#degraded = data.degradedSince ? new Date(data.degradedSince) : undefined;
        if (type === "SERVICE_DEREGISTERED") this.#instances.clear(); // they go with it
        return;
      case "INSTANCE_REGISTERED":
      case "INSTANCE_STATUS_CHANGED":
        if (subjectVersion > (this.#instances.get(subjectId)?.version ?? 0)) {
          this.#instances.set(subjectId, { version: subjectVersion, instance: toInstance(subjectId, data) });
        }
        return;
      case "INSTANCE_DEREGISTERED":
        this.#instances.delete(subjectId);
    } // others are of a later release
  }

  /**
   * The instances that calls may go to: those that pass and, while the service is degraded, those that passed before.
   * @param {string} service
   * @returns {Set}
   */
  set(service) {
    const degraded = this.#degraded;
    const inUse = [...this.#instances.values()]
      .map(({ instance }) => instance)
      .filter((i) => i.status === "PASSING" || (degraded && i.status === "CRITICAL" && i.since >= degraded));
    inUse.sort((a, b) => (a.instanceId < b.instanceId ? -1 : 1));
    return { service, strategy: this.#strategy, instances: inUse, degraded };
  }
}

/**
 * @param {string} id
 * @param {any} described
 * @returns {Instance}
 */
function toInstance(id, { instanceId, url, weight, metadata, incarnation, status, statusSince }) {
  return { id, instanceId, url, weight, metadata: metadata ?? {}, incarnation, status, since: new Date(statusSince) };
}
