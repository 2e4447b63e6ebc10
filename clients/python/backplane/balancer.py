"""Balancing among the instances of a watched service."""

import threading

from .policy import Policies, PolicyInstance


class Pick:
    """An instance that was chosen for one call. One of done and release must be called when the call has ended; later calls do nothing."""

    def __init__(self, pick):
        self.instance, self._pick = pick.instance.value, pick

    def done(self, ok, seconds):
        """Says how the call ended and how long it took."""
        self._pick.done(ok, seconds)

    def release(self):
        """Says that the call has ended, with an unknown outcome."""
        self._pick.release()


class Balancer:
    """Chooses instances of a watched service, as the server does when it is asked to pick: fair by weight, away from instances whose calls fail.

    It knows the outcomes of its own calls alone, so use one for all calls of a process to a service. It starts nothing; the caller still closes the
    watch. strategy is that of the service by default.
    """

    def __init__(self, watch, strategy=None):
        self._watch, self._strategy, self._policies = watch, strategy, Policies()
        self._lock, self._set = threading.Lock(), None

    def pick(self, key=""):
        """Chooses an instance for one call, or raises NoInstanceError. CONSISTENT_HASH gives equal keys the same instance while that is in use;
        others ignore the key."""
        current = self._sync()
        return Pick(self._policies.pick(self._strategy or current.strategy, key))

    def pick_other(self, tried):
        """Chooses an instance for a retry, among those for which the function tried returns False; NoInstanceError if there is none."""
        self._sync()
        return Pick(self._policies.pick_other(lambda i: tried(i.value)))

    def _sync(self):
        with self._lock:
            current = self._watch.set
            if current is not self._set:
                self._policies.update([
                    PolicyInstance(i.id, i.instance_id, max(1, i.weight), i.incarnation, i.since.timestamp(), i) for i in current.instances
                ])
                self._set = current
            return current
