"""Registers, watches and balances services of a Backplane registry, with the standard library alone.

It behaves as the Go client does: see docs/registry.md of Backplane. All of it may be used by several threads.
"""

from .balancer import Balancer, Pick
from .client import Client
from .errors import BackplaneError, ClosedError, NoInstanceError
from .policy import CONSISTENT_HASH, LEAST_CONNECTIONS, POWER_OF_TWO, RANDOM, ROUND_ROBIN
from .registered import Registered, State
from .service import Instance, ServiceSet
from .watch import Watch

__all__ = [
    "Balancer", "BackplaneError", "Client", "ClosedError", "Instance", "NoInstanceError", "Pick", "Registered", "ServiceSet", "State", "Watch",
    "CONSISTENT_HASH", "LEAST_CONNECTIONS", "POWER_OF_TWO", "RANDOM", "ROUND_ROBIN",
]
