"""An instance that is kept registered."""

import random
import threading
import time
from dataclasses import dataclass, replace
from typing import Callable, Dict, Optional

from .errors import BackplaneError, ClosedError, code_of, is_revoked, is_temporary
from .wait import Backoff, Deadline, duration

CLOSE_TIME = 15.0  # bounds close


@dataclass(frozen=True)
class Registration:
    """Describes an instance of a service; times are in seconds."""

    service: str  # its name; it must be defined, see Client.define_service
    instance: str  # its id, such as till-1: the same after a restart, and no other process's
    url: str  # where it is called: http or https, a host, perhaps a path
    weight: int  # its share of the calls
    metadata: Dict[str, str]  # shown to callers
    ttl: float  # how long it counts as alive without a heartbeat, 2 s to 10 min
    inflight: Optional[Callable[[], int]]  # returns its calls in flight, sent with each heartbeat
    drain: float  # how long close() waits for callers to see that it drains; 0 for not at all


@dataclass(frozen=True)
class State:
    """How an instance stands with the registry."""

    status: str  # as the registry last answered: PASSING, CRITICAL, DRAINING or MAINTENANCE
    incarnation: int  # which start of the instance this is
    seen: float  # when the registry last accepted a heartbeat, in seconds since 1970
    trouble: Optional[Exception]  # why the last heartbeat failed; None if it did not


class Registered:
    """An instance that is kept registered: by heartbeats about three times within its time to live, and by registering again what was late or removed
    meanwhile. It ends with close(), or when the registry says that it must. It is a context manager, which closes it.

    done is set once it is not kept registered any more. error is None until then; then a ClosedError after close(), else the BackplaneError by which
    the registry ended it: STALE_INCARNATION, another process has the id; UNAUTHENTICATED or FORBIDDEN, the token was revoked or may not do this any more.
    """

    def __init__(self, client, registration):
        if not (registration.service and registration.instance and registration.url and registration.ttl > 0):
            raise ValueError("register: service, instance and url must be given, and a positive ttl")
        self.done, self.error = threading.Event(), None
        self._client, self._reg = client, registration
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._closing, self._close_error, self._closed = threading.Lock(), None, False
        self._drained = None
        self._seen_at = 0.0  # of the monotonic clock
        # Finer than what the registry counts by itself, and so later.
        self._state = State("", time.time_ns() // 1000, 0.0, None)
        self._thread = threading.Thread(target=self._send_heartbeats, name="backplane-heartbeats", daemon=True)

    @classmethod
    def start(cls, client, registration, timeout):
        self, deadline = cls(client, registration), Deadline(timeout)
        pauses = self._new_backoff()
        while True:
            try:
                self._register_first(deadline)
                break
            except (OSError, ValueError, BackplaneError) as error:
                if deadline.over() or not is_temporary(error):
                    raise
                self._record(error)
                self._stop.wait(deadline.left(pauses.next()))
                if deadline.over():
                    raise
        self._log("registered")
        self._thread.start()
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def state(self):
        """How the instance stands with the registry."""
        with self._lock:
            return self._state

    def drain(self, reason, deadline=None):
        """Asks callers to send the instance no new calls, and says why, in up to 200 characters. Heartbeats go on. It lasts until the instance is
        started again."""
        with self._lock:
            self._drained = reason
        self._update("drainInstance", "DrainInstanceInput", dict(self._ids(), reason=reason), deadline)

    def close(self, timeout=CLOSE_TIME):
        """Takes the instance out of the registry: it drains, so that callers stop sending calls, and is removed once they have had time to see that.

        Stop serving after it, not before. It takes as long as timeout at most, and never longer than 15 s. An error says that the instance is still
        registered and will be critical when its time to live is over. All calls raise what the first one does.
        """
        with self._closing:
            if not self._closed:
                self._closed = True
                try:
                    self._deregister(Deadline(min(timeout, CLOSE_TIME)))
                except (OSError, ValueError, BackplaneError) as error:
                    self._close_error = error
        if self._close_error:
            raise self._close_error

    def _deregister(self, deadline):
        if self._reg.drain > 0 and self.error is None:
            with self._lock:
                drains = self._drained is not None
            if not drains:
                try:
                    self.drain("stopping", deadline)
                    drains = True
                except (OSError, ValueError, BackplaneError):
                    pass  # it is removed at once
            if drains:
                self.done.wait(deadline.left(self._reg.drain))
        self._stop.set()
        self._thread.join(deadline.left(CLOSE_TIME))
        if self.error is not None:
            return  # it is not ours to remove any more
        try:
            self._client.mutate("deregisterInstance", "DeregisterInstanceInput", "", self._ids(), deadline)
        except BackplaneError as error:
            if code_of(error) not in ("INSTANCE_NOT_FOUND", "STALE_INCARNATION", "SERVICE_NOT_FOUND"):
                raise
        finally:
            self._finish(ClosedError())

    def _send_heartbeats(self):
        pauses, pause = self._new_backoff(), self._interval()
        while not self._stop.wait(pause):
            failure = None
            try:
                self._send_heartbeat(Deadline(self._reg.ttl / 3))
            except Exception as error:  # also of the function inflight: the lease must not be lost by it
                failure = error
            if self._stop.is_set():
                return
            self._record(failure)
            if failure is None:
                pauses.reset()
                pause = self._interval()
            elif is_revoked(failure) or code_of(failure) == "STALE_INCARNATION":
                self._log("heartbeats ended: the registry refused the instance for good", failure)
                self._finish(failure)
                return
            else:
                pause = pauses.next()  # also of a deregistered service: its owner may register it again

    def _send_heartbeat(self, deadline):
        """Renews the lease. An instance that was removed registers again, and so does one that was late. Either keeps the incarnation: if another
        process has registered meanwhile, that one stays."""
        seen_at, removed = self._seen_at, False
        given = self._ids()
        if self._reg.inflight:
            given["inflight"] = max(0, int(self._reg.inflight()))
        try:
            self._update("renewInstance", "RenewInstanceInput", given, deadline)
        except BackplaneError as error:
            removed = error.code == "INSTANCE_NOT_FOUND"
            if not removed:
                raise
        late = time.monotonic() - seen_at > self._reg.ttl and self.state.status == "CRITICAL"
        if not removed and not late or self._stop.is_set():
            return
        self._register(self.state.incarnation, deadline)
        self._log("registered again")
        with self._lock:
            drained = self._drained
        if drained is not None:
            self.drain(drained, deadline)

    def _register_first(self, deadline):
        """Registers the start that this is. If this machine's clock is behind that of the one where the instance ran before, its number is not new
        enough; then the registry counts."""
        try:
            self._register(self.state.incarnation, deadline)
        except BackplaneError as error:
            if error.code != "STALE_INCARNATION":
                raise
            self._register(None, deadline)

    def _register(self, incarnation, deadline):
        given = self._ids()
        given.update(url=self._reg.url, weight=self._reg.weight, metadata=self._reg.metadata, ttl=duration(self._reg.ttl))
        if incarnation is None:
            del given["incarnation"]
        self._update("registerInstance", "RegisterInstanceInput", given, deadline)

    def _update(self, field, kind, given, deadline):
        """Calls a mutation of the instance, and records the state that it returns."""
        found = self._client.mutate(field, kind, "instance { status incarnation }", given, deadline)["instance"]
        with self._lock:
            self._state = replace(self._state, status=found["status"], incarnation=found["incarnation"], seen=time.time())
            self._seen_at = time.monotonic()

    def _ids(self):
        return {"service": self._reg.service, "instanceId": self._reg.instance, "incarnation": self.state.incarnation}

    def _interval(self):
        """Returns the time between two heartbeats: a third of the time to live at most, and not in step with others."""
        third = self._reg.ttl / 3
        return third - random.random() * third / 5

    def _new_backoff(self):
        """The longest pause is no longer than that between two heartbeats, so that the instance is back in time."""
        return Backoff(0.2, min(10.0, self._reg.ttl / 3))

    def _record(self, trouble):
        with self._lock:
            before, self._state = self._state.trouble, replace(self._state, trouble=trouble)
        if trouble is not None and before is None:
            self._log("a heartbeat failed; it is tried again", trouble)
        if trouble is None and before is not None:
            self._log("heartbeats succeed again")

    def _finish(self, why):
        with self._lock:
            if self.error is None:
                self.error = why
        self.done.set()

    def _log(self, message, error=None):
        text = f"{self._reg.instance} of {self._reg.service}: {message}"
        self._client.log.warning("%s: %s", text, error) if error else self._client.log.info("%s", text)
