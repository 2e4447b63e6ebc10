"""A service with its instances, as a watch knows it."""

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Dict, Optional, Tuple

PAGE_SIZE = 50
MAX_PAGES = 4000  # the registry has no more than 200,000 instances in all

READ_SERVICE = """query($name: String!, $first: Int!, $after: String) { service(name: $name) {
  version strategy cursor degraded { reason since }
  instances(first: $first, after: $after) {
    nodes { id version instanceId url weight status statusSince metadata incarnation }
    pageInfo { hasNextPage endCursor }
  } } }"""


@dataclass(frozen=True)
class Instance:
    """One running copy of a service."""

    id: str  # of the registry: another one after it was removed and came again
    instance_id: str  # of its owner's choice, the same after a restart
    url: str
    weight: int
    metadata: Dict[str, str]  # shared; must not be changed
    incarnation: int  # which start of it this is
    status: str
    since: datetime  # when it came to this status


@dataclass(frozen=True)
class ServiceSet:
    """A service with those of its instances that calls may go to, as it was known at one moment."""

    service: str
    strategy: str  # that its owner wants
    instances: Tuple[Instance, ...] = ()  # by the ids that their owners gave them
    degraded: Optional[datetime] = None  # since when most healthy instances have failed; the last healthy ones stay in the set
    stale: Optional[datetime] = None  # since when the registry has been unreachable; the set stays as it was
    trouble: Optional[Exception] = None  # why it is stale


class ServiceState:
    """A service with all its instances as a watch last received them, in use or not."""

    def __init__(self):
        self._version, self._strategy, self._degraded = 0, "ROUND_ROBIN", None
        self._instances = {}  # by id: version and instance

    @classmethod
    def read(cls, read_page):
        """Reads the whole service; the cursor to follow from is that of the first page."""
        state, cursor, after = cls(), "", None
        for _ in range(MAX_PAGES):
            service = read_page({"first": PAGE_SIZE, "after": after})
            cursor = cursor or service["cursor"]
            state._add_page(service)
            info = service["instances"]["pageInfo"]
            after = info["endCursor"]
            if not info["hasNextPage"] or not after:
                break
        return state, cursor

    def _add_page(self, service):
        degraded = service["degraded"]
        self._version, self._strategy = service["version"], service["strategy"]
        self._degraded = parse_time(degraded["since"]) if degraded and degraded["reason"] == "MASS_FAILURE" else None
        for node in service["instances"]["nodes"]:
            self._instances[node["id"]] = node["version"], _to_instance(node["id"], node)

    def apply(self, event):
        """Applies an event; one older than the known version changes nothing."""
        kind, subject, version, data = event["type"], event["subjectId"], event["subjectVersion"], event["data"]
        if kind in ("SERVICE_REGISTERED", "SERVICE_UPDATED", "SERVICE_DEREGISTERED"):
            if version <= self._version:
                return
            self._version, self._strategy = version, data["strategy"]
            self._degraded = parse_time(data["degradedSince"]) if data.get("degradedSince") else None
            if kind == "SERVICE_DEREGISTERED":
                self._instances.clear()  # they go with it
        elif kind in ("INSTANCE_REGISTERED", "INSTANCE_STATUS_CHANGED"):
            if version > self._instances.get(subject, (0, None))[0]:
                self._instances[subject] = version, _to_instance(subject, data)
        elif kind == "INSTANCE_DEREGISTERED":
            self._instances.pop(subject, None)
        # Others are of a later release.

    def set(self, service):
        """Returns the instances that calls may go to: those that pass and, while the service is degraded, those that passed before."""
        known = (instance for _, instance in self._instances.values())
        in_use = sorted((i for i in known if self._in_use(i)), key=lambda i: i.instance_id)
        return ServiceSet(service, self._strategy, tuple(in_use), self._degraded)

    def _in_use(self, i):
        return i.status == "PASSING" or self._degraded is not None and i.status == "CRITICAL" and i.since >= self._degraded


def _to_instance(ident, node):
    return Instance(ident, node["instanceId"], node["url"], node["weight"], node["metadata"] or {}, node["incarnation"], node["status"], parse_time(node["statusSince"]))


_TIME = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$")


def parse_time(text):
    """Reads a time of the registry; Python before 3.11 reads neither Z nor all fractions."""
    parts = _TIME.match(text)
    if not parts:
        raise ValueError(f"not a time: {text!r}")
    seconds, fraction, zone = parts.groups()
    at = datetime.fromisoformat(seconds + ("+00:00" if zone == "Z" else zone))
    return at.replace(microsecond=int(((fraction or "") + "000000")[:6])).astimezone(timezone.utc)
