"""Before the log-in: sockets that stand still, and requests that no browser sends."""

from __future__ import annotations

import http.client

from bench.abuse import Instance, Outcome, check

# Headers and bodies that escaped the pages of some web program or other; none may end in a 5xx.
ODD = {
    "charset utf-16": ({"Content-Type": "application/x-www-form-urlencoded; charset=utf-16"}, b"username=a"),
    "charset undefined": ({"Content-Type": "application/x-www-form-urlencoded; charset=undefined"}, b"username=a"),
    "charset zlib": ({"Content-Type": "multipart/form-data; boundary=x; charset=zlib"}, b"--x\r\n\r\na\r\n--x--"),
    "unknown charset": ({"Content-Type": "application/json; charset=klingon"}, b"{}"),
    "multipart without boundary": ({"Content-Type": "multipart/form-data"}, b"x"),
    "multipart cut off": ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\nContent-Dispo"),
    "no such type": ({"Content-Type": ";;;=\xff"}, b"x"),
    "session of NUL": ({"Cookie": 'sessionid="\\000aaaaaaaaaaaa"; csrftoken="\\000"'}, b""),
    "messages of nobody": ({"Cookie": "messages=W10:x:y; sessionid=\xff\xfe; =; ;"}, b""),
    "language of NUL": ({"Accept-Language": "de;q=x, \xff, " + "a-" * 2000}, b""),
}


@check("odd requests")
def odd_requests(instance: Instance) -> Outcome:
    """None of them is answered with a 5xx."""
    failed = []
    for name, (headers, body) in ODD.items():
        for method in ("GET", "POST"):
            asked = http.client.HTTPConnection(*instance.place, timeout=10)
            asked.putrequest(method, "/login/?next=%00")
            for field, value in {**headers, "Content-Length": str(len(body))}.items():
                asked.putheader(field, value.encode("latin-1"))
            asked.endheaders(body)
            status = asked.getresponse().status
            asked.close()
            if status >= 500:
                failed.append(f"{method} {name}: {status}")
    return Outcome(not failed, "; ".join(failed) or f"{2 * len(ODD)} odd requests, none answered with a 5xx")
