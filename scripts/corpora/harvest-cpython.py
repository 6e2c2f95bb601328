"""Runs CPython's email tests with the parser wrapped and writes every mail they
parse to a directory.

    python3 harvest-cpython.py OUT

The Python that runs it must have its test package (Debian: libpython3-testsuite).
"""
import hashlib
import os
import sys
import unittest
import email.feedparser
import email.parser

out = sys.argv[1]
os.makedirs(out, exist_ok=True)
seen = set()
current = "?"


def save(data):
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogateescape")
    key = hashlib.sha256(data).hexdigest()
    if key in seen or len(data) < 20 or len(data) > 1 << 20 or b":" not in data:
        return
    seen.add(key)
    name = current.rsplit(".", 1)[-1][:60]
    with open(os.path.join(out, "%04d-%s.eml" % (len(seen), name)), "wb") as f:
        f.write(data)


real_str = email.parser.Parser.parsestr
real_bytes = email.parser.BytesParser.parsebytes


def parsestr(self, text, *a, **k):
    save(text)
    return real_str(self, text, *a, **k)


def parsebytes(self, text, *a, **k):
    save(bytes(text))
    return real_bytes(self, text, *a, **k)


email.parser.Parser.parsestr = parsestr
email.parser.BytesParser.parsebytes = parsebytes


class Result(unittest.TestResult):
    def startTest(self, test):
        global current
        current = test.id()
        super().startTest(test)


import test.test_email as suite

base = os.path.dirname(suite.__file__)
tests = unittest.defaultTestLoader.loadTestsFromNames(
    "test.test_email." + f[:-3] for f in sorted(os.listdir(base)) if f.startswith("test_") and f.endswith(".py"))
tests.run(Result())
data = os.path.join(base, "data")
for f in sorted(os.listdir(data)):
    if f.endswith(".txt"):
        current = f[:-4]
        with open(os.path.join(data, f), "rb") as mail:
            save(mail.read())
