"""Every mail that lies as a file in a checkout, whatever its name.

    python3 harvest-files.py CHECKOUT OUT_DIR

A file is a mail when its name says so, or when its first lines are a mail's
header and its name is not that of a program. An mbox is taken apart.
"""
import hashlib
import os
import re
import sys

SAYS_SO = (".eml", ".msg", ".raw", ".email")
NO_MAIL = re.compile(r"\.(java|cs|php|rs|js|ts|c|cc|h|cxx|hxx|cpp|lua|go|py|pl|pm|t|rb|md|html?|xml|json|ya?ml|po|tt2|robot|out|svg|css|sql|rfc|conf|expected|gz|zip|der|pem)$", re.I)
FIELD = re.compile(rb"^(from|to|subject|date|received|mime-version|content-type|message-id|return-path|reply-to)[ \t]*:", re.I | re.M)
MBOX = re.compile(rb"^From \S+ .*\d\d:\d\d.*\r?\n", re.M)

root, out = sys.argv[1:]
os.makedirs(out, exist_ok=True)
seen = set()


def looks(data, path):
    if NO_MAIL.search(path) or b"\0\0\0\0" in data[:2000]:
        return False
    fields = {f.lower() for f in FIELD.findall(data[:3000])}
    first = data.lstrip(b"\r\n").split(b"\n", 1)[0]
    is_head = re.match(rb"(?:From |>From |[!-9;-~]+[ \t]*:)", first)
    return len(fields) >= 2 and bool(is_head)


def take(data, name):
    key = hashlib.sha256(data).digest()
    if key in seen or not data.strip():
        return
    seen.add(key)
    name = re.sub(r"[^A-Za-z0-9_.=-]+", "_", name)[-120:]
    while os.path.exists(os.path.join(out, name + ".eml")):
        name += "+"
    with open(os.path.join(out, name + ".eml"), "wb") as f:
        f.write(data)


for folder, dirs, files in os.walk(root):
    dirs[:] = sorted(d for d in dirs if d not in (".git", "rfc"))
    for f in sorted(files):
        path = os.path.join(folder, f)
        if os.path.islink(path) or os.path.getsize(path) > 4 << 20:
            continue
        with open(path, "rb") as fh:
            data = fh.read()
        rel = os.path.relpath(path, root)
        if data.startswith(b"version https://git-lfs") or not (f.lower().endswith(SAYS_SO) or looks(data, path)):
            continue
        starts = [m.start() for m in MBOX.finditer(data)]
        if len(starts) > 1 and not data[:starts[0]].strip():
            for i, (a, b) in enumerate(zip(starts, starts[1:] + [len(data)])):
                take(data[a:b].split(b"\n", 1)[1], rel + "." + str(i))
        else:
            take(data, rel)
