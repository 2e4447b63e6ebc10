"""Multi-probe consistent hashing, equal to that of the server: a key goes to the same instance whoever picks.

Each instance has some points on a circle, and of several probes of a key the one that lies closest before a point decides.
"""

import bisect

PROBES = 21
POINTS_PER_SHARE = 16  # of an instance of weight 1
MAX_POINTS = 1 << 21  # of all; then every instance has half as many, or a quarter, but one at least
GOLDEN = 0x9E3779B97F4A7C15  # the golden section of 2^64: its multiples lie far apart
MASK = (1 << 64) - 1


class Ring:
    """Depends on nothing but names and weights, which it is made of."""

    def __init__(self, instances):
        total = sum(weight * POINTS_PER_SHARE for _, weight in instances)
        halvings = 0
        while total >> halvings > MAX_POINTS:
            halvings += 1
        points = []
        for member, (name, weight) in enumerate(instances):
            seed = _hash_of(name)
            points.extend((_mix_bits(seed + n * GOLDEN), member) for n in range(max(1, weight * POINTS_PER_SHARE >> halvings)))
        points.sort()
        self._hashes, self._owners = [p[0] for p in points], [p[1] for p in points]

    def owner(self, key, usable):
        """Returns the member that has the key among those that are usable, or None if no probe meets one."""
        start, owner, nearest = _mix_bits(_hash_of(key)), None, 0
        for n in range(PROBES):
            probe = _mix_bits(start + n * GOLDEN)
            at = bisect.bisect_left(self._hashes, probe) % len(self._hashes)
            gap = (self._hashes[at] - probe) & MASK
            if (owner is None or gap < nearest) and usable(self._owners[at]):
                owner, nearest = self._owners[at], gap
        return owner


def _hash_of(text):
    """FNV-1a of 64 bits."""
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = (h ^ byte) * 0x100000001B3 & MASK
    return h


def _mix_bits(x):
    """Makes every bit of a number depend on all others (SplitMix64)."""
    x &= MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return x ^ x >> 31
