"""Calls of one node of the registry, over HTTP/1.1."""

import http.client
import json
import socket
import ssl
import time
from urllib.parse import urlsplit

from .errors import BackplaneError, TooLongError, data_of

MAX_ANSWER = 8 << 20  # bytes of an answer
MAX_LINE = 1 << 20  # bytes of a line of an event stream


class Node:
    """A node of the registry."""

    def __init__(self, url, token):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("client config: a URL is not http or https with a host and perhaps a path")
        self._parts, self._token = parts, token
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None

    def call(self, query, variables, timeout):
        """Calls the node, and returns the data."""
        deadline = time.monotonic() + timeout
        connection, response = self._post(query, variables, "application/graphql-response+json", "", timeout)
        try:
            return data_of(_read_answer(response, connection, deadline))
        finally:
            connection.close()
            response.close()

    def subscribe(self, query, variables, after, timeout, silence):
        """Opens a subscription after the cursor."""
        deadline = time.monotonic() + timeout
        connection, response = self._post(query, variables, "text/event-stream", after, timeout)
        try:
            media = (response.getheader("Content-Type") or "").split(";")[0].strip().lower()
            if response.status == 200 and media == "text/event-stream":
                connection.sock.settimeout(silence)
                return EventStream(connection, response)
            data_of(_read_answer(response, connection, deadline))
            raise ConnectionError("the registry answered without a stream")
        except BaseException:
            connection.close()
            response.close()
            raise

    def _post(self, query, variables, accept, after, timeout):
        make = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        options = {"context": self._tls} if self._tls else {}
        connection = make(self._parts.hostname, self._parts.port, timeout=max(timeout, 0.001), **options)
        headers = {"Content-Type": "application/json", "Accept": accept, "Authorization": "Bearer " + self._token}
        if after:
            headers["Last-Event-ID"] = after
        body = json.dumps({"query": query, "variables": {k: v for k, v in variables.items() if v is not None}})
        try:
            connection.request("POST", self._parts.path.rstrip("/") + "/graphql", body.encode(), headers)
            sock = connection.sock
            response = connection.getresponse()  # it follows no redirect: the token is for the registry alone
            connection.sock = connection.sock or sock  # an answer that ends the connection takes it along
            return connection, response
        except http.client.HTTPException as error:
            connection.close()
            raise ConnectionError(f"the response is not one of a registry: {error!r}") from error
        except socket.timeout as error:
            connection.close()
            raise TimeoutError("no answer in time") from error
        except BaseException:
            connection.close()
            raise


def _read_answer(response, connection, deadline):
    """Reads a whole response; one that is no GraphQL is an error with its status."""
    text = b""
    while not response.isclosed():  # it closes itself, and maybe the socket, at its end
        connection.sock.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            part = response.read1(1 << 16)
        except http.client.HTTPException as error:
            raise ConnectionError("the response broke off") from error
        except socket.timeout as error:  # no TimeoutError before Python 3.10
            raise TimeoutError("no answer in time") from error
        if not part:
            break
        text += part
        if len(text) > MAX_ANSWER:
            raise ConnectionError(f"the response of the registry has more than {MAX_ANSWER} bytes")
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and (answer.get("errors") or response.status == 200 and answer.get("data") is not None):
        return answer
    if response.status == 200:
        raise ConnectionError("the response is not one of a registry")
    raise BackplaneError(f"HTTP {response.status}", response.reason)


class EventStream:
    """A subscription by server-sent events. Another thread may close it."""

    def __init__(self, connection, response):
        self._connection, self._response, self._sock = connection, response, connection.sock

    def messages(self):
        """Yields cursor and data of each event; data is None if there is only a cursor or a keep-alive. It ends with an error, always."""
        event = cursor = data = ""
        while True:
            line = self._read_line()
            key, _, value = line.partition(":")
            value = value[1:] if value.startswith(" ") else value
            if key == "event":
                event = value
            elif key == "id":
                cursor = value
            elif key == "data":
                data = value  # ours have one line
            if line:
                continue
            if event == "complete":
                raise ConnectionError("the registry ended the stream")
            yield cursor, data_of(json.loads(data)) if data else None
            event = cursor = data = ""

    def _read_line(self):
        try:
            line = self._response.readline(MAX_LINE + 1)
        except socket.timeout as error:
            raise TimeoutError("the stream of the registry was idle for too long") from error
        except (http.client.HTTPException, ValueError, AttributeError) as error:  # the last two once it was closed
            raise ConnectionError("the stream of the registry broke off") from error
        if len(line) > MAX_LINE:
            raise TooLongError(f"an event has more than {MAX_LINE} bytes")
        if not line:
            raise ConnectionError("the registry ended the stream")
        return line.decode("utf-8", "replace").rstrip("\r\n")

    def interrupt(self):
        """Ends the stream from another thread, which is reading it."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended

    def close(self):
        self._connection.close()
        self._response.close()
