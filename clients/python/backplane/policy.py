"""Client-side load balancing among the instances of a service, by the policies of the server.

The policies do no I/O: they take instances, reported outcomes and a clock. Weights count in every strategy. Outlier ejection takes an instance out for a
while after failures in a row, or when its success rate or latency is far from the median. Slow start gives new and returning instances a growing part of
their weight. Below the panic threshold, when too few instances would be left, ejections are ignored.
"""

import bisect
import math
import random
import threading
import time
from dataclasses import dataclass
from functools import reduce
from typing import Any

from .errors import NoInstanceError
from .ring import Ring

ROUND_ROBIN = "ROUND_ROBIN"  # each in turn; also what an unknown strategy means
RANDOM = "RANDOM"  # at random
LEAST_CONNECTIONS = "LEAST_CONNECTIONS"  # the instance with the fewest calls in flight
POWER_OF_TWO = "POWER_OF_TWO"  # of two at random, the one with fewer calls in flight
CONSISTENT_HASH = "CONSISTENT_HASH"  # equal keys to the same instance


@dataclass(frozen=True)
class PolicyInstance:
    """What may be chosen."""

    id: str  # unique within its set
    name: str  # by which keys are given: the same when the instance comes again under another id
    weight: int  # its share of the calls; 1 at least
    incarnation: int  # a new one starts without the failures of the one before
    since: float  # since when it may be called, in seconds
    value: Any = None  # the caller's own


@dataclass(frozen=True)
class PolicyConfig:
    """Tunes the policies; times are in seconds."""

    failures: int = 5  # in a row that eject an instance
    interval: float = 10  # between two comparisons of instances
    min_outcomes: int = 20  # of an instance within an interval, or it is not compared
    success_ratio: float = 0.8  # an instance whose success rate is below this part of the median is ejected
    slow_ratio: float = 10  # an instance with more than this many times the median latency is ejected
    eject: float = 10  # for how long, times the number of its recent ejections
    max_eject: float = 300
    max_ejected: float = 0.5  # part of the instances that may be ejected at once
    panic: float = 0.3  # if a smaller part than this is left, ejections are ignored
    slow_start: float = 10  # until a new or returned instance has its whole weight


SLOW_START_STEPS = 10  # in which a new instance comes to its whole weight
PASS_UNIT = 1 << 24  # what one call costs a member of weight 1, in passes


class _Member:
    """What is known of one instance."""

    def __init__(self, instance):
        self.instance = instance
        self.inflight = 0
        self.weight = 0  # at the moment, in units of which the whole has ten
        self.ejected = False
        self.consecutive_failures = 0
        self.successes = self.failures = 0  # since they were last compared
        self.latency_sum = 0.0
        self.slow_start_from = -math.inf
        self.ejected_until = 0.0
        self.ejections = 0  # less the intervals without one since
        self.turns = 0  # in passes, for its weight


class PolicyPick:
    """An instance that was chosen for one call."""

    def __init__(self, policies, member):
        self.instance, self._policies, self._member, self._open = member.instance, policies, member, True

    def done(self, ok, seconds):
        with self._policies._lock:
            if self._end():
                self._policies._record(self._member, ok, seconds)

    def release(self):
        with self._policies._lock:
            self._end()

    def _end(self):
        was_open, self._open = self._open, False
        if was_open:
            self._member.inflight -= 1
        return was_open


class Policies:
    """Chooses among the instances of one service. now returns the time in seconds."""

    def __init__(self, config=PolicyConfig(), now=time.time):
        self._cfg, self._now, self._lock = config, now, threading.RLock()
        self._members = []
        self._departed = {}  # that left with calls in flight, in case they return; by id
        self._candidates = []  # members in use; all of them, if too few would be left
        self._ends, self._total, self._stride = [], 0, 1  # the wheel: of candidate i the slot behind its last, the number of slots, from one turn to the next
        self._panic = False
        self._turn = random.getrandbits(31)  # so that processes do not all begin with the same instance
        self._rebuild_at = math.inf  # when a slow start or an ejection changes members
        self._compare_at = None
        self._turns = 0  # of the last winner by LEAST_CONNECTIONS, before its win
        self._ring = None

    def update(self, instances):
        """Makes these instances those that are picked. Those that stay keep their state, and so do those that leave with calls in flight."""
        with self._lock:
            before = dict(self._departed)
            before.update((m.instance.id, m) for m in self._members)
            self._members = []
            for instance in instances:
                m = before.get(instance.id)
                if m is None or m.instance.incarnation != instance.incarnation:
                    m = _Member(instance)
                m.slow_start_from = max(m.slow_start_from, instance.since)
                m.instance = instance
                self._members.append(m)
            present = {instance.id for instance in instances}
            self._departed = {i: m for i, m in before.items() if i not in present and m.inflight > 0}
            self._ring = None
            self._rebuild(self._now())

    def pick(self, strategy, key=""):
        """Chooses an instance, or raises NoInstanceError."""
        with self._lock:
            now = self._now()
            if now >= self._rebuild_at:
                self._rebuild(now)
            if not self._candidates:
                raise NoInstanceError()
            return self._begin(self._choose(strategy, key))

    def _choose(self, strategy, key):
        if strategy == RANDOM:
            return self._random()
        if strategy == LEAST_CONNECTIONS:
            return self._least_loaded()
        if strategy == POWER_OF_TWO:
            a, b = self._random(), self._random()
            return b if b.inflight * a.weight < a.inflight * b.weight else a
        if strategy == CONSISTENT_HASH:
            return self._by_key(key)
        self._turn += 1
        return self._member_at(self._turn * self._stride % self._total)

    def pick_other(self, refused):
        """Chooses by chance, by the weights, among the instances that are not refused: for a call that must go elsewhere. Those that are ejected come
        last."""
        with self._lock:
            for members in (self._candidates, self._members):
                left = [m for m in members if not refused(m.instance)]
                if left:
                    return self._begin(random.choices(left, [m.weight or 1 for m in left])[0])
            raise NoInstanceError()

    def _begin(self, m):
        m.inflight += 1
        return PolicyPick(self, m)

    def _random(self):
        return self._member_at(random.randrange(self._total))

    def _member_at(self, slot):
        return self._candidates[bisect.bisect_right(self._ends, slot)]

    def _least_loaded(self):
        """Returns the member with the fewest calls for its weight; of those that have the same, the one with the fewest turns for its weight."""
        least = self._candidates[0]
        for m in self._candidates[1:]:
            d = m.inflight * least.weight - least.inflight * m.weight
            if d < 0 or d == 0 and m.turns < least.turns:
                least = m
        self._turns = least.turns
        least.turns += PASS_UNIT // least.weight
        return least

    def _by_key(self, key):
        """Returns the owner of the key or, while that is ejected, the next one."""
        if self._ring is None:
            self._ring = Ring([(m.instance.name, m.instance.weight) for m in self._members])
        n = self._ring.owner(key, lambda i: self._panic or not self._members[i].ejected)
        return self._random() if n is None else self._members[n]

    def _rebuild(self, now):
        self._return_ejected(now)
        members = self._members
        healthy = [m for m in members if not m.ejected]
        self._panic = len(healthy) < self._cfg.panic * len(members)
        self._candidates = members if self._panic else healthy
        cold = self._slow_start_active(now)
        for m in self._candidates:
            m.weight = m.instance.weight * (self._slow_start_step(m, now) if cold else SLOW_START_STEPS)
            m.turns = max(m.turns, self._turns)  # not with all the turns that it has missed
        self._build_wheel()
        self._rebuild_at = self._next_rebuild(now, cold)

    def _build_wheel(self):
        """The wheel of weighted round robin: as many slots for each member as its weight; a stride that visits all, and heavy members not in a row."""
        common = reduce(math.gcd, (m.weight for m in self._candidates), 0)
        self._ends, self._total = [], 0
        for m in self._candidates:
            self._total += m.weight // common
            self._ends.append(self._total)
        self._stride = max(1, int(self._total * (math.sqrt(5) - 1) / 2))
        while self._total and math.gcd(self._stride, self._total) != 1:
            self._stride += 1

    def _slow_start_active(self, now):
        """Reports whether slow starts count: not while no instance has been there for longer, as none could take the calls in the meantime."""
        cold = sum(now - m.slow_start_from < self._cfg.slow_start for m in self._members)
        return 0 < cold < len(self._members)

    def _slow_start_step(self, m, now):
        """Returns how many tenths of its weight a member has."""
        passed = (now - m.slow_start_from) * SLOW_START_STEPS / self._cfg.slow_start
        return int(min(max(passed + 1, 1), SLOW_START_STEPS))

    def _next_rebuild(self, now, cold):
        """Returns when members change by themselves: one is a step warmer, or its ejection ends."""
        at = math.inf
        for m in self._members:
            step = self._slow_start_step(m, now)
            if m.ejected:
                at = min(at, m.ejected_until)
            elif cold and step < SLOW_START_STEPS:
                at = min(at, m.slow_start_from + self._cfg.slow_start * step / SLOW_START_STEPS)
        return at

    def _record(self, m, ok, seconds):
        now = self._now()
        if ok:
            m.successes += 1
            m.latency_sum += seconds
            m.consecutive_failures = 0
        else:
            m.failures += 1
            m.consecutive_failures += 1
            if m.consecutive_failures % self._cfg.failures == 0:
                self._eject(m, now)
        if self._compare_at is not None and now < self._compare_at:
            return
        first, self._compare_at = self._compare_at is None, now + self._cfg.interval
        if not first:
            self._eject_outliers(now)

    def _eject(self, m, now):
        """Ejects the member for a while, unless too many are ejected."""
        limit = int(self._cfg.max_ejected * len(self._members))
        if m.ejected or m not in self._members or sum(other.ejected for other in self._members) >= limit:
            return
        m.ejections += 1
        m.ejected_until = now + min(self._cfg.eject * m.ejections, self._cfg.max_eject)
        m.ejected = True
        self._rebuild(now)

    def _return_ejected(self, now):
        """Returns members whose ejection is over, with a slow start."""
        for m in self._members:
            if m.ejected and now >= m.ejected_until:
                m.consecutive_failures = m.successes = m.failures = 0
                m.latency_sum = 0.0
                m.slow_start_from = now
                m.ejected = False

    def _eject_outliers(self, now):
        """Ejects members that did much worse than the median. When all do badly it ejects none: the instances are not the cause then."""
        records = []  # of a member: its success rate, and the time of a good call
        for m in self._members:
            n = m.successes + m.failures
            if not m.ejected and n >= self._cfg.min_outcomes:
                records.append((m, m.successes / n, m.latency_sum / max(m.successes, 1)))
            m.successes = m.failures = 0
            m.latency_sum = 0.0
        worse = []
        if len(records) >= 3:  # of two, neither is known to be the outlier
            success, took = _median(r[1] for r in records), _median(r[2] for r in records)
            worse = [r[0] for r in records if r[1] < success * self._cfg.success_ratio or took > 0 and r[2] > took * self._cfg.slow_ratio]
        for m in worse:
            self._eject(m, now)
        for m, _, _ in records:
            if m.ejections > 0 and m not in worse:
                m.ejections -= 1


def _median(values):
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
