"""What `helm test` runs: every operator lives, and one of them leads. OPERATORS is name:port of the headless Service."""

import os
import socket
import sys
import time
import urllib.request

SECONDS = 90.0
host, _, port = os.environ["OPERATORS"].rpartition(":")


def ask(address, path):
    """Return what one operator answers; IPv6 addresses in brackets."""
    where = f"[{address}]" if ":" in address else address
    with urllib.request.urlopen(f"http://{where}:{port}{path}", timeout=5) as answer:
        return answer.read().decode()


def check():
    """Return why the operators are not well, or None."""
    addresses = sorted({str(found[4][0]) for found in socket.getaddrinfo(host, int(port), proto=socket.IPPROTO_TCP)})
    for address in addresses:
        ask(address, "/healthz")
    leaders = [one for one in addresses if "\nmulticonnect_leading 1.0" in ask(one, "/metrics")]
    return None if len(leaders) == 1 else f"{len(leaders)} of {len(addresses)} operators lead, and it should be one"


deadline = time.monotonic() + SECONDS
while True:
    try:
        trouble = check()
    except OSError as error:  # no name, no route, no answer, a 503
        trouble = f"{host}:{port} does not answer: {error}"
    if trouble is None:
        sys.stdout.write("all operators answer and one leads\n")
        break
    if time.monotonic() > deadline:
        sys.exit(f"after {SECONDS:g} s: {trouble}")
    time.sleep(1)
