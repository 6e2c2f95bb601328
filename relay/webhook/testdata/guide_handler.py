"""The webhook handler as the provider's Python guide describes it, without the
web framework: the signature over the raw body, compared in constant time,
before anything is parsed; then the event by its type; then 200 at once.

It prints its port, and for each request one line with what it decided.
"""
import hashlib
import hmac
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

WEBHOOK_SECRET = os.environ["WEBHOOK_SECRET"]


def verify_signature(payload, signature):
    expected = hmac.new(WEBHOOK_SECRET.encode(), payload, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogateescape"))


def decide(event):
    data = event.get("data") or {}
    if event["type"] == "bounced.hard":
        return "suppress " + data["email"].lower()
    if event["type"] == "complained":
        return "suppress " + data["email"].lower() + " complaint"
    if event["type"] == "unsubscribed":
        return "unsubscribed " + data["email"].lower()
    return "nothing"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        payload = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not verify_signature(payload, self.headers.get("X-NexusProMail-Signature", "")):
            self.answer(401, b'{"error": "Invalid signature"}', "refused")
            return
        try:
            decision = decide(json.loads(payload))
        except (ValueError, KeyError, AttributeError, TypeError):
            decision = "nothing"  # acknowledged all the same
        self.answer(200, b"", decision)

    def answer(self, status, body, decision):
        print(decision, flush=True)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
