"""Pauses and lengths of time. All times are in seconds."""

import random
import time


class Backoff:
    """Gives pauses between tries: longer after each failure, and never in step with other clients. Half of each is chance."""

    def __init__(self, first, most):
        self._first, self._most, self._tries = first, most, 0

    def next(self):
        pause = min(self._first * 2 ** min(self._tries, 16), self._most)
        self._tries += 1
        return pause / 2 + random.random() * pause / 2

    def reset(self):
        self._tries = 0


class Deadline:
    """A moment at which something must be done."""

    def __init__(self, seconds):
        self._at = None if seconds is None else time.monotonic() + seconds

    def left(self, most):
        """Returns the seconds that are left, at most so many."""
        return most if self._at is None else max(0.0, min(most, self._at - time.monotonic()))

    def over(self):
        return self._at is not None and time.monotonic() >= self._at


def duration(seconds):
    """Returns a length of time as the registry writes it."""
    return None if seconds is None else f"{round(seconds * 1000)}ms"
