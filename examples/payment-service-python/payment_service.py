#!/usr/bin/env python3
"""An example of a payment provider for Backplane, in Python: copy it to begin your own.

It is ../payment-service in another language, with the standard library alone: it speaks the provider
protocol (docs/payment-provider.openapi.yaml), moves no money, and registers over the REST routes. Its
instances share one SQLite file, so a repeated call charges once, whichever of them gets it.
"""

import argparse
import base64
import hashlib
import hmac
import json
import logging
import os
import secrets
import signal
import sqlite3
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

log = logging.getLogger("payment-service")

# The primary keys are what makes a repeated call charge once.
SCHEMA = """
CREATE TABLE IF NOT EXISTS payments (
    id TEXT PRIMARY KEY, order_number TEXT NOT NULL, minor_units INTEGER NOT NULL, currency TEXT NOT NULL, callback_url TEXT NOT NULL,
    status TEXT NOT NULL, reference TEXT NOT NULL UNIQUE, failure TEXT NOT NULL, message TEXT NOT NULL, due_at REAL NOT NULL, instance TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS refunds (
    id TEXT PRIMARY KEY, payment_id TEXT NOT NULL REFERENCES payments (id), minor_units INTEGER NOT NULL, currency TEXT NOT NULL, callback_url TEXT NOT NULL,
    status TEXT NOT NULL, reference TEXT NOT NULL UNIQUE, failure TEXT NOT NULL, message TEXT NOT NULL, due_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS callbacks (id TEXT PRIMARY KEY, url TEXT NOT NULL, body BLOB NOT NULL, next_at REAL NOT NULL, tries INTEGER NOT NULL);
"""

DECLINED_AMOUNT = 4020  # the last four digits of the minor units of a card that is declined: EUR 40.20
MAX_BODY = 64 << 10  # bytes of a request
CALLBACK_TIMEOUT = 10  # seconds of one call
CALLBACK_TRIES = 50  # with the pauses below: about two days
TTL = 5  # seconds that the instance counts as alive without a heartbeat


class Refusal(Exception):
    """A request that is refused, with the status and the body that say why."""

    def __init__(self, status, code, message):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Store:
    """The service's own database. Each call has a connection of its own, as each request has a thread."""

    def __init__(self, path):
        self.path = path
        with self.transaction() as db:
            for statement in filter(str.strip, SCHEMA.split(";")):
                db.execute(statement)

    def transaction(self):
        return Transaction(self.path)


class Transaction:
    """A transaction that takes the write lock at its beginning, and waits for those of other processes."""

    def __init__(self, path):
        self.db = sqlite3.connect(path, timeout=10, isolation_level=None)
        self.db.row_factory = sqlite3.Row

    def __enter__(self):
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA foreign_keys = ON")
        self.db.execute("BEGIN IMMEDIATE")
        return self.db

    def __exit__(self, kind, error, trace):
        self.db.execute("ROLLBACK" if kind else "COMMIT")
        self.db.close()


def state(row):
    """Returns a payment or refund as the protocol shows it."""
    shown = {name: row[name] for name in ("id", "status", "reference", "failure", "message")}
    if "payment_id" in row.keys():
        shown["paymentId"] = row["payment_id"]
    return shown


def sign(secret, message_id, timestamp, body):
    """Returns the signature of Standard Webhooks (https://www.standardwebhooks.com)."""
    mac = hmac.new(secret, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


def parse_secret(text):
    """Reads a secret as Standard Webhooks writes it."""
    key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    if not text.startswith("whsec_") or len(key) < 24:
        raise ValueError("PAYMENT_CALLBACK_SECRET must be whsec_ and at least 24 bytes in base64")
    return key


class Payments:
    """The rules of the service: what a charge and a refund do."""

    def __init__(self, store, options):
        self.store, self.options = store, options
        self.posts, self.stored, self.lock = 0, 0, threading.Lock()

    def decide(self):
        """Says how a new payment or refund ends: at once, or later. A real provider asks a bank here."""
        if self.options.late > 0:
            return "PENDING", time.time() + self.options.late
        return "SUCCEEDED", time.time()

    def count(self, name):
        with self.lock:
            setattr(self, name, getattr(self, name) + 1)
            return getattr(self, name)

    def charge(self, request):
        status, due = self.decide()
        failure = message = ""
        if request["minor_units"] % 10_000 == DECLINED_AMOUNT:
            status, failure, message = "FAILED", "card_declined", "The card was declined."
        with self.store.transaction() as db:
            db.execute(
                "INSERT INTO payments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                (request["id"], request["order_number"], request["minor_units"], request["currency"], request["callback_url"],
                 status, "ch_" + secrets.token_hex(16), failure, message, due, self.options.instance))
            row = db.execute("SELECT * FROM payments WHERE id = ?", (request["id"],)).fetchone()
        if self.count("stored") >= self.options.die_after > 0:
            log.warning("dies as --die-after says: %s", request["id"])
            os._exit(137)  # as by kill -9: nothing is answered and nothing drains
        return self.check_amount(row, request)

    def refund(self, payment_id, request):
        status, due = self.decide()
        with self.store.transaction() as db:
            payment = db.execute("SELECT * FROM payments WHERE id = ? AND status = 'SUCCEEDED' AND currency = ?", (payment_id, request["currency"])).fetchone()
            if payment is None:
                raise Refusal(404, "PAYMENT_NOT_FOUND", "there is no payment of this id and currency that has succeeded")
            others = db.execute("SELECT coalesce(sum(minor_units), 0) FROM refunds WHERE payment_id = ? AND id <> ?", (payment_id, request["id"])).fetchone()[0]
            if others + request["minor_units"] > payment["minor_units"]:
                raise Refusal(422, "INVALID", "the refunds would exceed the payment")
            db.execute(
                "INSERT INTO refunds VALUES (?, ?, ?, ?, ?, ?, ?, '', '', ?) ON CONFLICT (id) DO NOTHING",
                (request["id"], payment_id, request["minor_units"], request["currency"], request["callback_url"], status, "re_" + secrets.token_hex(16), due))
            row = db.execute("SELECT * FROM refunds WHERE id = ? AND payment_id = ?", (request["id"], payment_id)).fetchone()
        if row is None:
            raise Refusal(409, "AMOUNT_MISMATCH", "the id was used for another payment")
        return self.check_amount(row, request)

    @staticmethod
    def check_amount(row, request):
        if (row["minor_units"], row["currency"]) != (request["minor_units"], request["currency"]):
            raise Refusal(409, "AMOUNT_MISMATCH", "the id was used with another amount")
        return row

    def find(self, query, values, code):
        with self.store.transaction() as db:
            row = db.execute(query, values).fetchone()
        if row is None:
            raise Refusal(404, code, "there is no such payment or refund")
        return row

    def finish_due(self):
        """Gives pending payments and refunds their outcome, and stores the callbacks in the same transaction."""
        with self.store.transaction() as db:
            for table, kind in (("payments", "payment.updated"), ("refunds", "refund.updated")):
                due = db.execute(f"SELECT * FROM {table} WHERE status = 'PENDING' AND due_at <= ? LIMIT 100", (time.time(),)).fetchall()
                for row in due:
                    db.execute(f"UPDATE {table} SET status = 'SUCCEEDED' WHERE id = ?", (row["id"],))
                    if row["callback_url"]:
                        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                        body = json.dumps({"type": kind, "timestamp": stamp, "data": {**state(row), "status": "SUCCEEDED"}}).encode()
                        db.execute("INSERT INTO callbacks VALUES (?, ?, ?, ?, 0)", ("msg_" + secrets.token_hex(16), row["callback_url"], body, time.time()))

    def take_callbacks(self):
        """Claims callbacks that are due: other instances leave them alone, and take them over if this one dies."""
        now = time.time()
        with self.store.transaction() as db:
            due = db.execute("SELECT * FROM callbacks WHERE next_at <= ? ORDER BY next_at LIMIT 20", (now,)).fetchall()
            for row in due:
                db.execute("UPDATE callbacks SET next_at = ?, tries = tries + 1 WHERE id = ?", (now + 3 * CALLBACK_TIMEOUT, row["id"]))
        return due

    def send_callbacks(self, stop):
        """Delivers callbacks until stop is set, at least once each."""
        while not stop.wait(0.2):
            try:
                self.finish_due()
                for row in self.take_callbacks() if self.options.secret else ():
                    self.send_callback(row)
            except sqlite3.Error:
                log.exception("callbacks wait")

    def send_callback(self, row):
        stamp = str(int(time.time()))
        request = urllib.request.Request(row["url"], data=row["body"], method="POST", headers={
            "Content-Type": "application/json", "Webhook-Id": row["id"], "Webhook-Timestamp": stamp,
            "Webhook-Signature": sign(self.options.secret, row["id"], stamp, row["body"])})
        delivered = False
        try:
            with urllib.request.urlopen(request, timeout=CALLBACK_TIMEOUT):
                delivered = True
        except (OSError, ValueError) as error:  # ValueError: no URL
            log.warning("a callback is not delivered: %s: %s", row["id"], error)
        with self.store.transaction() as db:
            if delivered or row["tries"] + 1 >= CALLBACK_TRIES:
                db.execute("DELETE FROM callbacks WHERE id = ?", (row["id"],))
            else:
                db.execute("UPDATE callbacks SET next_at = ? WHERE id = ?", (time.time() + min(3600, 2 ** min(row["tries"], 12)), row["id"]))


class Handler(BaseHTTPRequestHandler):
    """Serves the provider protocol."""

    protocol_version = "HTTP/1.1"
    timeout = 5  # seconds of a connection without a request, for which a stop waits too
    payments = None  # set before the server starts
    draining = threading.Event()

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.headers.get("Content-Length", "0") != "0":
            self.close_connection = True  # the body, which no GET has, would be read as the next request
        self.answer(self.serve_get)

    def do_POST(self):
        self.answer(self.serve_post)

    def serve_get(self):
        if self.path == "/healthz":
            return (503, {"status": "draining"}) if self.draining.is_set() else (200, {"status": "ok"})
        parts = self.path.strip("/").split("/")
        if len(parts) == 2 and parts[0] == "payments":
            return self.show(self.payments.find("SELECT * FROM payments WHERE id = ?", (parts[1],), "PAYMENT_NOT_FOUND"))
        if len(parts) == 4 and parts[0] == "payments" and parts[2] == "refunds":
            return self.show(self.payments.find("SELECT * FROM refunds WHERE payment_id = ? AND id = ?", (parts[1], parts[3]), "REFUND_NOT_FOUND"))
        raise Refusal(404, "NOT_FOUND", "there is nothing at this path")

    def serve_post(self):
        request = self.read_request()
        options = self.payments.options
        time.sleep(options.slow)
        if options.fail > 0 and self.payments.count("posts") % options.fail == 0:
            raise Refusal(503, "OVERLOADED", "told to fail by --fail")
        parts = self.path.strip("/").split("/")
        if parts == ["payments"]:
            return self.show(self.payments.charge(request))
        if len(parts) == 3 and parts[0] == "payments" and parts[2] == "refunds":
            return self.show(self.payments.refund(parts[1], request))
        raise Refusal(404, "NOT_FOUND", "there is nothing at this path")

    def read_request(self):
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY:
            self.close_connection = True
            raise Refusal(413, "INVALID", "the body is too large")
        try:
            body = json.loads(self.rfile.read(length))
            amount = body["amount"]
            request = {"id": body["id"], "minor_units": amount["minorUnits"], "currency": amount["currency"],
                       "order_number": body.get("orderNumber", ""), "callback_url": body.get("callbackUrl", "")}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Refusal(400, "INVALID", "the body is no JSON object of the protocol") from None
        texts = all(isinstance(request[name], str) for name in ("id", "currency", "order_number", "callback_url"))
        if not texts or not request["id"] or self.headers.get("Idempotency-Key") != request["id"] or type(request["minor_units"]) is not int \
                or not 0 < request["minor_units"] < 2 ** 53 or len(request["currency"]) != 3:
            raise Refusal(422, "INVALID", "an id that is the Idempotency-Key, and an amount above zero with its currency, are required")
        return request

    @staticmethod
    def show(row):
        return {"PENDING": 202, "FAILED": 402}.get(row["status"], 200), state(row)

    def answer(self, serve):
        try:
            status, body = serve()
        except Refusal as refusal:
            status, body = refusal.status, {"code": refusal.code, "message": refusal.message}
        except Exception:
            log.exception("a request failed")
            status, body = 500, {"code": "INTERNAL", "message": "something went wrong on our side"}
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class Registration:
    """Keeps the instance registered, over the REST routes of Backplane."""

    def __init__(self, options, url):
        self.options, self.url, self.node, self.incarnation = options, url, 0, None
        self.path = f"/services/{options.service}/instances/{options.instance}"

    def call(self, method, path, body=None):
        """Calls one node, and the next one when it does not answer. Returns the status and the body."""
        nodes = self.options.registry.split(",")
        for _ in nodes:
            request = urllib.request.Request(nodes[self.node % len(nodes)] + path, method=method, data=None if body is None else json.dumps(body).encode(),
                                             headers={"Authorization": "Bearer " + self.options.api_key, "Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=5) as response:
                    return response.status, json.loads(response.read() or b"{}")
            except urllib.error.HTTPError as error:
                return error.code, json.loads(error.read() or b"{}")
            except OSError as error:
                log.warning("a node of Backplane does not answer: %s", error)
                self.node += 1
        return 0, {}

    def register(self):
        """Defines the service, as each of its instances does, and registers this one."""
        status, body = self.call("POST", "/services", {
            "name": self.options.service, "description": "Example of a payment provider: no money moves", "strategy": "LEAST_CONNECTIONS",
            "health_check": {"path": "/healthz", "interval": "2s", "timeout": "1s"}})
        if status in (200, 201):
            status, body = self.call("PUT", self.path, {"url": self.url, "ttl": f"{TTL}s"})
        if 400 <= status < 500 and status != 429:
            sys.exit(f"payment-service: Backplane refuses the registration: {body.get('message') or body}")
        self.incarnation = body.get("incarnation")  # which start of the instance this is
        return status in (200, 201)

    def keep(self, stop):
        registered = False
        while not stop.is_set():
            if not registered:
                registered = self.register()
                log.info("registered" if registered else "not registered yet")
            else:
                status, body = self.call("POST", self.path + "/heartbeat", {"incarnation": self.incarnation})
                if body.get("code") == "STALE_INCARNATION":
                    log.error("another process has registered under this id")
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
                registered = status != 404
            stop.wait(TTL / 3)

    def leave(self):
        self.call("POST", self.path + "/drain", {})
        self.call("DELETE", self.path)


def parse_options():
    p = argparse.ArgumentParser(description="An example of a payment provider for Backplane")
    p.add_argument("--registry", default="http://127.0.0.1:8080", help="comma-separated URLs of Backplane's nodes")
    p.add_argument("--service", default="payment-service", help="name of the service to register as")
    p.add_argument("--instance", default="payment-1", help="id of this instance: the same after a restart, and no other process's")
    p.add_argument("--listen", default="127.0.0.1:0", help="address to listen on")
    p.add_argument("--url", default="", help="URL that Backplane calls this instance by (default: the address that it listens on)")
    p.add_argument("--database", default="payments.db", help="SQLite file, shared by all instances")
    p.add_argument("--slow", type=float, default=0, help="wait so many seconds before each answer")
    p.add_argument("--late", type=float, default=0, help="answer PENDING, and tell the outcome by a callback so many seconds later")
    p.add_argument("--fail", type=int, default=0, help="answer each n-th POST with 503, before anything is stored")
    p.add_argument("--die-after", type=int, default=0, help="die once the n-th payment is stored, before it is answered")
    options = p.parse_args()
    options.api_key = os.environ.get("BACKPLANE_API_KEY") or p.error("BACKPLANE_API_KEY must be an API key with the scope service:" + options.service)
    secret = os.environ.get("PAYMENT_CALLBACK_SECRET")
    options.secret = parse_secret(secret) if secret else None
    if options.late and not options.secret:
        p.error("--late needs PAYMENT_CALLBACK_SECRET, one of Backplane's BACKPLANE_PAYMENT_CALLBACK_SECRETS")
    return options


def main():
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    options = parse_options()
    stop, ended = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    payments = Handler.payments = Payments(Store(options.database), options)
    host, _, port = options.listen.rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Handler)
    server.daemon_threads = False  # server_close waits for the requests under way
    url = options.url or "http://%s:%d" % server.server_address[:2]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=payments.send_callbacks, args=(ended,), daemon=True).start()
    registration = Registration(options, url)
    keeper = threading.Thread(target=registration.keep, args=(stop,), daemon=True)
    keeper.start()
    log.info("serving on %s", url)

    while not stop.wait(1):
        if not keeper.is_alive():  # the registration was refused
            return 1
    log.info("draining")
    Handler.draining.set()
    keeper.join(10)
    registration.leave()
    time.sleep(1)  # callers see that it has left
    server.shutdown()
    server.server_close()
    ended.set()
    return 0


if __name__ == "__main__":
    sys.exit(main())
