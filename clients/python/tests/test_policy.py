import os
import sys
import unittest
from dataclasses import replace

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

from backplane import CONSISTENT_HASH, LEAST_CONNECTIONS, POWER_OF_TWO, RANDOM, ROUND_ROBIN, NoInstanceError  # noqa: E402
from backplane.policy import Policies, PolicyInstance  # noqa: E402

STRATEGIES = (ROUND_ROBIN, RANDOM, LEAST_CONNECTIONS, POWER_OF_TWO, CONSISTENT_HASH)


class Given:
    """Policies with a clock that tests set, and instances of the weights that have been there for an hour."""

    def __init__(self, *weights):
        self.now = 1_000_000.0
        self.policies = Policies(now=lambda: self.now)
        self.instances = [PolicyInstance(f"ins-{n}", f"i{n}", weight, 1, self.now - 3600) for n, weight in enumerate(weights)]
        self.policies.update(self.instances)

    def spread(self, count, strategy=ROUND_ROBIN, outcome=lambda name, calls: (True, 0.001)):
        """Picks so many times, each call ending at once, and counts by name."""
        counts = {}
        for k in range(count):
            pick = self.policies.pick(strategy, f"key-{k}")
            name = pick.instance.name
            counts[name] = counts.get(name, 0) + 1
            pick.done(*outcome(name, counts[name]))
        return counts


class PolicyTest(unittest.TestCase):
    def test_picks_are_fair_by_weight(self):
        for strategy in STRATEGIES:
            counts = Given(1, 2, 3, 4).spread(10_000, strategy)
            for n, weight in enumerate((1, 2, 3, 4)):
                self.assertLess(abs(counts[f"i{n}"] / 1000 - weight), 0.2 * weight + 0.1, (strategy, counts))

    def test_round_robin_gives_each_its_weight_in_every_round(self):
        policies = Given(1, 1, 3).policies
        turns = [policies.pick(ROUND_ROBIN).instance.name for _ in range(50)]
        for n in range(0, 50, 5):
            self.assertEqual(sorted(turns[n:n + 5]), ["i0", "i1", "i2", "i2", "i2"])
        self.assertNotIn("i2" * 4, "".join(turns))

    def test_least_connections_keeps_the_calls_in_flight_within_one_of_each_other(self):
        policies, calls = Given(1, 1, 2).policies, {"i0": 0, "i1": 0, "i2": 0}
        for n in range(1, 41):
            calls[policies.pick(LEAST_CONNECTIONS).instance.name] += 1
            if n % 4 == 0:
                self.assertEqual(calls, {"i0": n // 4, "i1": n // 4, "i2": n // 2})

    def test_consistent_hashing_moves_few_keys(self):
        g = Given(1, 1, 1, 1)

        def owners():
            return [g.policies.pick(CONSISTENT_HASH, f"k{n}").instance.name for n in range(1000)]

        before = owners()
        g.policies.update(g.instances[1:])
        self.assertEqual([a for a, b in zip(before, owners()) if a != b and a != "i0"], [])

    def test_a_pick_without_instances_is_an_error(self):
        for strategy in STRATEGIES:
            with self.assertRaises(NoInstanceError):
                Given().policies.pick(strategy)
        self.assertEqual(Given(1, 1).spread(10, "FASTEST"), {"i0": 5, "i1": 5})

    def test_failures_in_a_row_eject_an_instance_which_comes_back_slowly(self):
        g = Given(1, 1, 1, 1)
        self.assertEqual(g.spread(400, outcome=lambda name, _: (name != "i1", 0.001))["i1"], 5)
        g.now += 9.9
        self.assertNotIn("i1", g.spread(100))
        g.now += 0.2
        self.assertIn(g.spread(310)["i1"], range(6, 15))
        g.now += 10
        self.assertEqual(g.spread(400)["i1"], 100)

    def test_at_most_half_of_the_instances_are_ejected_and_for_longer_each_time(self):
        g = Given(1, 1, 1, 1, 1)
        g.spread(100, outcome=lambda *_: (False, 0.001))
        self.assertEqual(len(g.spread(100)), 3)
        g, bad = Given(1, 1, 1), lambda name, _: (name != "i0", 0.001)
        g.spread(100, outcome=bad)
        g.now += 30
        g.spread(1000, outcome=bad)
        g.now += 11
        self.assertNotIn("i0", g.spread(100))

    def test_success_rate_and_latency_far_from_the_median_eject_an_instance_unless_all_do_badly(self):
        for outcome in (lambda name, calls: (name != "i1" or calls % 5 > 1, 0.001), lambda name, _: (True, 0.05 if name == "i1" else 0.001)):
            g = Given(1, 1, 1, 1)
            g.spread(400, outcome=outcome)
            g.now += 11
            g.spread(1)  # ends the interval
            self.assertNotIn("i1", g.spread(100))
        g = Given(1, 1, 1, 1)
        for _ in range(3):
            g.spread(400, outcome=lambda _, calls: (calls % 2 == 0, 0.001))
            g.now += 11
        self.assertEqual(len(g.spread(100)), 4)

    def test_a_new_instance_starts_slowly_unless_all_are_new(self):
        g = Given(1, 1)
        g.policies.update([*g.instances, PolicyInstance("new", "new", 1, 1, g.now)])
        self.assertLessEqual(g.spread(210)["new"], 11)
        g.now += 10
        self.assertEqual(g.spread(300)["new"], 100)
        g.policies.update([replace(i, id=i.id + "-again", since=g.now) for i in g.instances])
        self.assertEqual(g.spread(10), {"i0": 5, "i1": 5})

    def test_another_start_of_an_instance_forgets_its_failures_and_what_is_done_twice_counts_once(self):
        g = Given(1, 1)
        g.spread(40, outcome=lambda name, _: (name != "i0", 0.001))
        g.policies.update([replace(i, incarnation=2) for i in g.instances])
        self.assertEqual(g.spread(10)["i0"], 5)
        pick = g.policies.pick(LEAST_CONNECTIONS)
        pick.release()
        pick.release()
        pick.done(False, 0.001)
        names = {g.policies.pick(LEAST_CONNECTIONS).instance.name for _ in range(2)}
        self.assertEqual(names, {"i0", "i1"})


if __name__ == "__main__":
    unittest.main()
