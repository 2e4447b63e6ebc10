"""Errors, and which of them end what."""


class BackplaneError(Exception):
    """What the registry answered instead of what it was asked for."""

    def __init__(self, code, message, path=()):
        super().__init__(f"the registry answered {code}: {message}")
        self.code = code  # stable, such as SERVICE_NOT_FOUND; of an answer without one, "HTTP" and its status
        self.message = message  # for people
        self.path = list(path)  # to the input at fault


class NoInstanceError(Exception):
    """No instance of the service can be called."""

    def __init__(self):
        super().__init__("no instance of the service can be called")


class ClosedError(Exception):
    """close() was called."""

    def __init__(self):
        super().__init__("closed")


class TooLongError(Exception):
    """An event is longer than a watch reads."""


_ELSEWHERE = {"UNAVAILABLE", "SERVER_BUSY", "INTERNAL", "TIMEOUT", "CANCELLED", "HTTP 500", "HTTP 502", "HTTP 503", "HTTP 504"}
_REVOKED = {"UNAUTHENTICATED", "TOKEN_EXPIRED", "FORBIDDEN"}


def code_of(error):
    """Returns the code of a BackplaneError, empty for other errors and None."""
    return error.code if isinstance(error, BackplaneError) else ""


def retry_elsewhere(error):
    """Reports whether another node may succeed."""
    return not isinstance(error, BackplaneError) or error.code in _ELSEWHERE


def is_temporary(error):
    """Reports whether the same call may succeed later: the registry could not be reached, or could not answer."""
    return retry_elsewhere(error) or code_of(error) == "RATE_LIMITED" or code_of(error).startswith("HTTP ")


def is_revoked(error):
    """Reports whether the token was revoked or lost the permission."""
    return code_of(error) in _REVOKED


def data_of(answer):
    """Returns the data of a GraphQL response, or raises its first error."""
    errors = answer.get("errors")
    if errors:
        raise BackplaneError((errors[0].get("extensions") or {}).get("code", ""), errors[0].get("message", ""))
    return answer.get("data")
