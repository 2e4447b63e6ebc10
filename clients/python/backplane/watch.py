"""A set of a service's instances that is kept up to date."""

import threading
import time
from dataclasses import replace
from datetime import datetime, timezone

from .errors import BackplaneError, ClosedError, TooLongError, code_of, is_revoked, is_temporary
from .service import READ_SERVICE, ServiceSet, ServiceState
from .wait import Backoff, Deadline

SUBSCRIBE = """subscription($name: String!, $after: Cursor) {
  serviceEvents(service: $name, after: $after) { type subjectId subjectVersion data } }"""

FAILURES = (OSError, ValueError, KeyError, TypeError, TooLongError, BackplaneError)


def _new_pauses():
    return Backoff(0.2, 10.0)


def _now():
    return datetime.now(timezone.utc)


class Watch:
    """A set of a service's instances that is kept up to date. It is a context manager, which closes it.

    Whatever happens to the registry, the set stays as it was known last and says since when it is stale; it goes on with what was missed, from any
    node that answers. A service that is deregistered is an empty set.

    done is set once the set is not kept up to date any more. error is None until then; then a ClosedError after close(), else the BackplaneError by
    which the registry ended it: the token was revoked or may not see this any more. The set stays as it was.
    """

    def __init__(self, client, service):
        self.done, self.error = threading.Event(), None
        self._client, self._service, self._node = client, service, client.node()
        self._changed = threading.Condition()
        self._set = ServiceSet(service, "ROUND_ROBIN")
        self._stop, self._stream = threading.Event(), None
        self._state, self._cursor, self._last_contact = None, "", _now()  # the cursor of the last event; empty if the service must be read again
        self._thread = threading.Thread(target=self._run, name="backplane-watch", daemon=True)

    @classmethod
    def start(cls, client, service, timeout):
        self, pauses, deadline = cls(client, service), _new_pauses(), Deadline(timeout)
        while True:
            try:
                self._read_service(deadline)
                break
            except FAILURES as error:
                if deadline.over() or not is_temporary(error):
                    raise
                self._use_next_node()
                self._stop.wait(deadline.left(pauses.next()))
                if deadline.over():
                    raise
        self._thread.start()
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def set(self):
        """The current set."""
        with self._changed:
            return self._set

    def next(self, last=None, timeout=None):
        """Waits for another set than the one given; without one it is the current set. It raises TimeoutError, or the error of the watch once that
        has ended."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._set is not last or self.done.is_set(), timeout):
                raise TimeoutError("the set has not changed")
            if self._set is last:
                raise self.error
            return self._set

    def close(self):
        """Ends the watch. The set stays as it was."""
        with self._changed:
            self._stop.set()
            if self._stream:
                self._stream.interrupt()
        self.done.wait(2 * self._client.timeout)

    def _run(self):
        pauses = _new_pauses()
        while True:
            began, failure = time.monotonic(), None
            try:
                self._follow(pauses)
            except FAILURES as error:
                failure = error
            if time.monotonic() - began > self._client.timeout:
                pauses.reset()  # it succeeded for a while
            if self._stop.is_set() or is_revoked(failure):
                return self._end(ClosedError() if self._stop.is_set() else failure)
            if code_of(failure) == "SERVICE_NOT_FOUND":
                self._cursor = ""
                self._publish_empty()
            else:
                if code_of(failure) in ("CURSOR_EXPIRED", "CURSOR_UNKNOWN", "CURSOR_INVALID") or isinstance(failure, TooLongError):
                    self._cursor = ""  # read it anew
                else:
                    self._use_next_node()
                self._publish_stale(failure)
            self._stop.wait(pauses.next())

    def _end(self, why):
        if not isinstance(why, ClosedError):
            self._client.log.error("%s: the service is not watched any more: %s", self._service, why)
        self._publish_stale(why)
        with self._changed:
            self.error = why
            self.done.set()
            self._changed.notify_all()

    def _follow(self, pauses):
        """Follows the service at one node, until an error."""
        if not self._cursor:
            try:
                self._read_service()
            except BackplaneError as error:
                # A node without its database answers reads from its memory, and does not know services that were defined since.
                if error.code == "SERVICE_NOT_FOUND":
                    self._client.call_node(self._node, "{ eventCursor }", {})
                raise
        stream = self._client.subscribe(self._node, SUBSCRIBE, {"name": self._service}, self._cursor)
        with self._changed:
            self._stream = stream
            if self._stop.is_set():
                stream.interrupt()
        try:
            for cursor, data in stream.messages():
                self._apply_message(cursor, data)
                if data:
                    pauses.reset()
        finally:
            with self._changed:
                self._stream = None
            stream.close()

    def _read_service(self, deadline=None):
        def read_page(page):
            service = self._client.call_node(self._node, READ_SERVICE, dict(page, name=self._service), deadline)["service"]
            if not service:
                raise BackplaneError("SERVICE_NOT_FOUND", "There is no such service.")
            if not service["instances"] or not service["strategy"]:
                raise BackplaneError("FORBIDDEN", "The token may not see the instances of the service.")
            if not service["cursor"]:
                raise BackplaneError("UNAVAILABLE", "The node has not read the event log yet; try again.")
            return service

        self._state, self._cursor = ServiceState.read(read_page)
        self._last_contact = _now()
        self._publish(self._state.set(self._service))

    def _apply_message(self, cursor, data):
        self._last_contact = _now()
        if data:
            try:
                self._state.apply(data["serviceEvents"])
            except (KeyError, TypeError, ValueError):
                self._cursor = ""  # it counts as a gap: the service is read again
                raise
            self._publish(self._state.set(self._service))
        elif self.set.stale:
            self._publish(replace(self.set, stale=None, trouble=None))
        if cursor:
            self._cursor = cursor

    def _publish_empty(self):
        self._last_contact = _now()
        current = self.set
        if current.instances or current.stale:
            self._client.log.info("%s: the service does not exist any more; its set is empty until it is registered again", self._service)
            self._publish(ServiceSet(self._service, current.strategy))

    def _publish_stale(self, trouble):
        current = self.set
        if not current.stale and not isinstance(trouble, ClosedError):
            self._client.log.warning("%s: the registry is unreachable; the set stays as last known: %s", self._service, trouble)
        self._publish(replace(current, stale=current.stale or self._last_contact, trouble=trouble))

    def _publish(self, new):
        with self._changed:
            if self._set.stale and not new.stale:
                self._client.log.info("%s: the registry is reachable again; the set is up to date", self._service)
            self._set = new
            self._changed.notify_all()

    def _use_next_node(self):
        self._node = self._client.use_next_node(self._node)
