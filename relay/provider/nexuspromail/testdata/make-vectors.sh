#!/bin/sh
# Writes vectors.json: bodies with their signatures by openssl, each of which
# Python's hmac must find as well.
cd "$(dirname "$0")" && exec python3 - <<'PY'
import base64, hashlib, hmac, json, subprocess

event = b'{"id":"evt_01hx","type":"bounced.hard","created_at":"2026-05-13T10:24:31Z","data":{"message_id":"msg_01hx","email":"recipient@example.com","timestamp":"2026-05-13T10:24:28Z","bounce_code":"550","bounce_reason":"5.1.1 The email account that you tried to reach does not exist"}}'
cases = [
    ("an event", "whsec_test", event),
    ("with a line end", "whsec_test", event + b"\n"),
    ("another secret", "whsec_tesT", event),
    ("an empty body", "whsec_test", b""),
    ("a secret longer than SHA-256's block", "k" * 200, event),
    ("a secret of one byte", "k", event),
    ("every byte there is", "whsec_test", bytes(range(256))),
    ("letters outside ASCII", "whsec_test", '{"data":{"email":"zoë@bücher.example"}}'.encode()),
]
vectors = []
for name, secret, body in cases:
    line = subprocess.run(["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", "hexkey:" + secret.encode().hex()], input=body, capture_output=True, check=True)
    signature = line.stdout.decode().split("= ")[-1].strip()
    assert signature == hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(), name
    vectors.append({"name": name, "secret": secret, "body": base64.b64encode(body).decode(), "signature": signature})
with open("vectors.json", "w") as f:
    json.dump(vectors, f, indent=1, ensure_ascii=False)
    f.write("\n")
PY
