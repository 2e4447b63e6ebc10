"""Does what lines of JSON on the standard input ask for, for the tests in e2e/client, and answers each by a line."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

from backplane import Balancer, Client  # noqa: E402
from backplane.policy import Policies, PolicyInstance  # noqa: E402

things = {}  # the client; registrations, watches and balancers, by key


def describe(error):
    return "" if error is None else getattr(error, "code", None) or type(error).__name__


def new(urls, token):
    things["client"] = Client(urls, token, timeout=5)


def define(name, **service):
    things["client"].define_service(name, **service)


def register(key, inflight=None, **registration):
    things[key] = things["client"].register(inflight=None if inflight is None else lambda: inflight, **registration)
    return things[key].state.incarnation


def state(key):
    s = things[key].state
    return {"status": s.status, "incarnation": s.incarnation, "seen": s.seen, "trouble": describe(s.trouble), "error": describe(things[key].error)}


def drain(key, reason):
    things[key].drain(reason)


def close(key, **options):
    things[key].close(**options)


def watch(key, service, timeout=None):
    things[key] = things["client"].watch(service, timeout)


def read_set(key):
    s = things[key].set
    return {
        "ids": [i.instance_id for i in s.instances], "weights": [i.weight for i in s.instances], "metadata": [i.metadata for i in s.instances],
        "strategy": s.strategy, "degraded": s.degraded is not None, "stale": s.stale is not None, "trouble": describe(s.trouble), "error": describe(things[key].error),
    }


def next_set(key, timeout):
    things[key].next(things[key].set, timeout)


def balance(key, watch, strategy=None):
    things[key] = Balancer(things[watch], strategy)


def pick(key, count, keys=(), bad=None):
    """Picks so many times; calls of the instance bad fail."""
    picked = []
    for n in range(count):
        p = things[key].pick(keys[n] if keys else "")
        p.done(p.instance.instance_id != bad, 0.001)
        picked.append(p.instance.instance_id)
    return picked


def pick_other(key, tried):
    p = things[key].pick_other(lambda i: i.instance_id in tried)
    p.release()
    return p.instance.instance_id


def ring(weights, keys):
    """Picks by CONSISTENT_HASH among instances of the weights, without a registry."""
    policies = Policies()
    policies.update([PolicyInstance(f"id-{n}", f"i{n}", weight, 1, 0) for n, weight in enumerate(weights)])
    return [policies.pick("CONSISTENT_HASH", key).instance.name for key in keys]


COMMANDS = {
    "new": new, "define": define, "register": register, "state": state, "drain": drain, "close": close, "watch": watch, "set": read_set, "next": next_set,
    "balance": balance, "pick": pick, "pickOther": pick_other, "ring": ring,
}

for line in sys.stdin:
    arguments = json.loads(line)
    try:
        answer = {"value": COMMANDS[arguments.pop("do")](**arguments)}
    except Exception as error:
        answer = {"error": describe(error), "message": str(error)}
    print(json.dumps(answer), flush=True)
os._exit(0)
