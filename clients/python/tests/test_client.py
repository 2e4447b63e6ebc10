import json
import os
import sys
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))

from backplane import BackplaneError, Client, ClosedError  # noqa: E402
from backplane.service import parse_time  # noqa: E402
from backplane.wait import Backoff  # noqa: E402

SERVICE = {"version": 1, "strategy": "RANDOM", "cursor": "c0", "degraded": None, "instances": {"nodes": [], "pageInfo": {"hasNextPage": False, "endCursor": None}}}
EVENT = {
    "type": "INSTANCE_REGISTERED", "subjectId": "ins", "subjectVersion": 1,
    "data": {"instanceId": "a", "url": "http://a", "weight": 1, "status": "PASSING", "statusSince": "2026-01-01T00:00:00.5Z", "metadata": {}, "incarnation": 1},
}


class ClientTest(unittest.TestCase):
    def serve(self, answer):
        """Starts a registry that answers by a function of the handler, and returns its URL."""

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    answer(self)
                except OSError:
                    pass  # the client has left

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_address[1]}"

    @staticmethod
    def reply(handler, body, status=200, media="application/json", length=True):
        handler.send_response(status)
        handler.send_header("Content-Type", media)
        if length:
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def until(self, watch, holds):
        found = watch.set
        while not holds(found):
            found = watch.next(found, timeout=60)
        return found

    def test_a_client_refuses_what_makes_no_sense(self):
        for urls, token, options in (
            ([], "t", {}), (["http://a"], "", {}), ("http://a", "t", {}), (["a:1"], "t", {}), (["http://u:p@a"], "t", {}), (["http://a?q"], "t", {}),
            (["http://a"], "t", {"timeout": -1}),
        ):
            with self.assertRaises(ValueError):
                Client(urls, token, **options)

    def test_pauses_grow_to_a_bound(self):
        pauses = Backoff(0.2, 10)
        for n in range(40):
            most = min(0.2 * 2 ** n, 10)
            self.assertTrue(most / 2 <= pauses.next() <= most)
        pauses.reset()
        self.assertLessEqual(pauses.next(), 0.2)

    def test_times_of_the_registry_are_read(self):
        self.assertEqual(parse_time("2026-01-01T00:00:00Z").isoformat(), "2026-01-01T00:00:00+00:00")
        self.assertEqual(parse_time("2026-01-01T01:00:00.1234567+01:00").isoformat(), "2026-01-01T00:00:00.123456+00:00")

    def test_a_call_goes_to_the_next_node_and_bounds_what_it_reads(self):
        asked = []

        def fails(handler):
            asked.append("a")
            self.reply(handler, b"", 503)

        def works(handler):
            asked.append("b")
            self.reply(handler, json.dumps({"data": {"registerService": {"userErrors": []}}}).encode())

        client = Client([self.serve(fails), self.serve(works)], "t")
        client.define_service("s")
        client.define_service("s")
        self.assertEqual(asked, ["a", "b", "b"])
        with self.assertRaisesRegex(OSError, "more than 8388608 bytes"):
            Client([self.serve(lambda handler: self.reply(handler, b"x" * (9 << 20)))], "t").define_service("s")
        never = threading.Event()
        self.addCleanup(never.set)
        with self.assertRaises(TimeoutError):
            Client([self.serve(lambda handler: never.wait())], "t", timeout=0.05).define_service("s")
        with self.assertRaises(BackplaneError) as caught:
            Client([self.serve(lambda handler: self.reply(handler, b"", 302))], "t").define_service("s")
        self.assertEqual(caught.exception.code, "HTTP 302")

    def test_a_silent_stream_is_given_up_and_followed_again_from_the_last_cursor(self):
        after, over = [], threading.Event()
        self.addCleanup(over.set)

        def answer(handler):
            if handler.headers["Accept"] != "text/event-stream":
                return self.reply(handler, json.dumps({"data": {"service": SERVICE}}).encode())
            after.append(handler.headers["Last-Event-ID"])
            self.reply(handler, b": keep-alive\n\n", media="text/event-stream; charset=utf-8", length=False)
            if len(after) == 1:
                handler.wfile.write(f"event: next\nid: c1\ndata: {json.dumps({'data': {'serviceEvents': EVENT}})}\n\n".encode())
            over.wait()

        client = Client([self.serve(answer)], "t", silence=0.2)
        client.log.disabled = True
        watch = client.watch("s")
        self.until(watch, lambda s: s.instances)
        stale = self.until(watch, lambda s: s.stale)
        self.assertEqual([i.instance_id for i in stale.instances], ["a"])
        self.assertIsInstance(stale.trouble, TimeoutError)
        self.until(watch, lambda s: not s.stale)
        self.assertEqual(after[:2], ["c0", "c1"])
        watch.close()
        self.assertIsInstance(watch.error, ClosedError)
        self.assertTrue(watch.set.stale)
        with self.assertRaises(ClosedError):
            watch.next(watch.set)

    def test_a_set_that_cannot_be_followed_is_read_again(self):
        reads = []

        def answer(handler):
            if handler.headers["Accept"] == "text/event-stream":
                return self.reply(handler, json.dumps({"errors": [{"message": "gone", "extensions": {"code": "CURSOR_EXPIRED"}}]}).encode())
            reads.append(1)
            self.reply(handler, json.dumps({"data": {"service": SERVICE}}).encode())

        client = Client([self.serve(answer)], "t")
        client.log.disabled = True
        with client.watch("s") as watch:
            self.until(watch, lambda _: len(reads) > 1)


if __name__ == "__main__":
    unittest.main()
