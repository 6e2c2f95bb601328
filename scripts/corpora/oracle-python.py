"""What CPython's email package reads in each mail, as JSON lines.

    python3 oracle-python.py FILE...
"""
import email
import email.policy
import email.utils
import json
import sys


def text(part):
    try:
        return part.get_content()
    except Exception:
        data = part.get_payload(decode=True) or b""
        return data.decode(part.get_content_charset() or "utf-8", "replace") if isinstance(data, bytes) else str(data)


def defects(m):
    """What CPython finds malformed, in the structure and in the fields compared."""
    found = []
    for p in m.walk():
        found += [type(d).__name__ for d in p.defects]
        for name in ("subject", "from", "content-type", "content-disposition", "content-transfer-encoding"):
            try:
                found += [type(d).__name__ for h in p.get_all(name, []) for d in getattr(h, "defects", ())]
            except Exception as e:
                found.append(repr(e))
    return found


def read(path):
    with open(path, "rb") as f:
        m = email.message_from_binary_file(f, policy=email.policy.default)
    r = {"subject": str(m.get("subject", "")), "from": [], "text": "", "html": "", "attachments": []}
    try:
        for a in m["from"].addresses if m["from"] else []:
            r["from"].append({"name": a.display_name, "email": a.addr_spec})
    except Exception:
        r["from"] = [{"name": n, "email": e} for n, e in email.utils.getaddresses([str(m.get("from", ""))])]
    texts, htmls = [], []
    def walk(p):
        kind = p.get_content_type()
        # A delivery status is a list of messages to CPython; it is one part.
        if kind.startswith("multipart/") and not p.is_multipart():
            return  # without parts: no file, whatever stands in it
        if kind.startswith("message/") or not p.is_multipart():
            name = p.get_filename()
            if p.get_content_disposition() == "attachment" or kind not in ("text/plain", "text/html"):
                r["attachments"].append({"name": name or "", "type": kind})
            elif kind == "text/html":
                htmls.append(text(p))
            else:
                texts.append(text(p))
            return
        for child in p.get_payload():
            walk(child)
    walk(m)
    r["text"], r["html"] = "\n".join(texts), "\n".join(htmls)
    r["defects"] = defects(m)
    return r


for path in sys.argv[1:]:
    try:
        r = read(path)
    except Exception as e:
        r = {"error": repr(e)}
    r["file"] = path
    sys.stdout.write(json.dumps(r, ensure_ascii=True) + "\n")
