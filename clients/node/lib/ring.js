/**
 * Multi-probe consistent hashing, equal to that of the server: a key goes to the same instance whoever picks. Each instance has some points on a circle, and
 * of several probes of a key the one that lies closest before a point decides.
 */

/** @typedef {{hash: bigint, member: number}[]} Ring points, sorted */

const probes = 21n;
const pointsPerShare = 16; // of an instance of weight 1
const maxPoints = 1 << 21; // of all; then every instance has half as many, or a quarter, but one at least
const golden = 0x9e3779b97f4a7c15n; // the golden section of 2^64: its multiples lie far apart

/**
 * Makes the ring of the instances. It depends on nothing but their names and weights.
 * @param {{name: string, weight: number}[]} instances
 * @returns {Ring}
 */
export function newRing(instances) {
  const total = instances.reduce((sum, { weight }) => sum + weight * pointsPerShare, 0);
  let halvings = 0;
  while (total >> halvings > maxPoints) halvings++;
  const points = instances.flatMap(({ name, weight }, member) => {
    const seed = hashOf(name);
    const count = Math.max(1, (weight * pointsPerShare) >> halvings);
    return Array.from({ length: count }, (_, n) => ({ hash: mixBits(seed + BigInt(n) * golden), member }));
  });
  return points.sort((a, b) => (a.hash < b.hash ? -1 : a.hash > b.hash ? 1 : a.member - b.member));
}

/**
 * Returns the member that has the key among those that are usable, or -1 if no probe meets one.
 * @param {Ring} ring
 * @param {string} key
 * @param {(member: number) => boolean} usable
 */
export function memberOf(ring, key, usable) {
  const start = mixBits(hashOf(key));
  let owner = -1;
  let nearest = 0n;
  for (let n = 0n; n < probes; n++) {
    const probe = mixBits(start + n * golden);
    const point = ring[pointAfter(ring, probe)];
    const gap = BigInt.asUintN(64, point.hash - probe);
    if ((owner < 0 || gap < nearest) && usable(point.member)) [owner, nearest] = [point.member, gap];
  }
  return owner;
}

/**
 * The index of the first point at or behind the hash.
 * @param {Ring} ring
 * @param {bigint} hash
 */
function pointAfter(ring, hash) {
  let [low, high] = [0, ring.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ring[middle].hash < hash) low = middle + 1;
    else high = middle;
  }
  return low === ring.length ? 0 : low;
}

/**
 * FNV-1a of 64 bits.
 * @param {string} text
 */
function hashOf(text) {
  let h = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(text)) h = BigInt.asUintN(64, (h ^ BigInt(byte)) * 0x100000001b3n);
  return h;
}

/**
 * Makes every bit of a number depend on all others (SplitMix64).
 * @param {bigint} x
 */
function mixBits(x) {
  x = BigInt.asUintN(64, x);
  x = BigInt.asUintN(64, (x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n);
  x = BigInt.asUintN(64, (x ^ (x >> 27n)) * 0x94d049bb133111ebn);
  return x ^ (x >> 31n);
}
