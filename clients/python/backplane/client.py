"""The client: configuration, and calls of one node after the other."""

import logging
import threading

from .errors import BackplaneError, retry_elsewhere
from .http import Node
from .registered import Registered, Registration
from .wait import duration
from .watch import Watch


class Client:
    """Calls a registry. It starts nothing by itself.

    urls are those of the registry's nodes, such as http://10.0.0.1:8080: one is used until it fails, then the next. token is an API key; it needs
    the scope service:NAME to register, to watch also services:read does. timeout is that of one call to one node, silence the time without a byte
    after which a stream counts as broken (three keep-alives); both are in seconds. Changes are told to the logger.
    """

    def __init__(self, urls, token, timeout=5.0, silence=45.0, logger=None):
        if isinstance(urls, str) or not urls or not token:
            raise ValueError("client config: urls, a list, and token must be given")
        if timeout <= 0 or silence <= 0:
            raise ValueError("client config: timeout and silence must be positive")
        self.timeout, self.silence, self.log = timeout, silence, logger or logging.getLogger("backplane")
        self._nodes = [Node(url, token) for url in urls]
        self._lock = threading.Lock()
        self._current = 0

    def define_service(self, name, description="", tags=(), metadata=None, strategy=None, health_check=None):
        """Creates the service, or changes one that is there to what is said here; it may be called at each start.

        health_check is a dictionary of path, and interval and timeout in seconds: a status below 400 is well.
        """
        given = {"name": name, "description": description, "tags": list(tags), "metadata": metadata or {}}
        if strategy:
            given["strategy"] = strategy
        if health_check:
            check = {"path": health_check["path"]}
            check.update({k: duration(health_check[k]) for k in ("interval", "timeout") if k in health_check})
            given["healthCheck"] = check
        self.mutate("registerService", "RegisterServiceInput", "", given)

    def register(self, service, instance, url, weight=1, metadata=None, ttl=30.0, inflight=None, drain=1.0, timeout=None):
        """Registers an instance and keeps it registered, see Registered.

        It returns once the instance is registered for the first time. While the registry cannot be reached it tries for timeout seconds,
        forever by default; what the registry refuses is raised at once.
        """
        return Registered.start(self, Registration(service, instance, url, weight, dict(metadata or {}), ttl, inflight, drain), timeout)

    def watch(self, service, timeout=None):
        """Reads the set of a service's instances and keeps it up to date, see Watch.

        It returns once it knows the service; see register for what fails.
        """
        return Watch.start(self, service, timeout)

    def node(self):
        """Returns the index of the node that is used."""
        with self._lock:
            return self._current

    def use_next_node(self, node):
        """Makes the next node the one that is used, unless that has happened, and returns the one after the given."""
        after = (node + 1) % len(self._nodes)
        with self._lock:
            if self._current == node:
                self._current = after
        return after

    def mutate(self, field, kind, selection, given, deadline=None):
        """Calls a mutation with one input, and returns its payload. What is called like this may be called twice."""
        query = f"mutation($in: {kind}!) {{ {field}(input: $in) {{ {selection} userErrors {{ code message path }} }} }}"
        failure = None
        for _ in self._nodes:
            node = self.node()
            if deadline and deadline.over():
                break
            try:
                payload = (self.call_node(node, query, {"in": given}, deadline) or {}).get(field)
                if not payload:
                    raise ConnectionError("the response is not one of a registry")
                for wrong in payload["userErrors"]:
                    raise BackplaneError(wrong["code"], wrong["message"], wrong.get("path") or ())
                return payload
            except (OSError, ValueError, BackplaneError) as error:
                if not retry_elsewhere(error):
                    raise
                failure = error
                self.use_next_node(node)
        raise failure or TimeoutError("there was no time left")

    def call_node(self, node, query, variables, deadline=None):
        """Calls one node, and returns the data."""
        return self._nodes[node].call(query, variables, deadline.left(self.timeout) if deadline else self.timeout)

    def subscribe(self, node, query, variables, after):
        """Opens a subscription at a node, after the cursor."""
        return self._nodes[node].subscribe(query, variables, after, self.timeout, self.silence)
