"""What `helm test` runs: log in at a Webapp through its Service and send one message, which the simulator delivers to nobody."""

import base64
import http.client
import json
import os
import socket
import ssl
import sys
import time

SECONDS = 300.0
host, _, port = os.environ["WEBAPP"].rpartition(":")
context = ssl.create_default_context(cadata=os.environ.get("AUTHORITY") or None)
if os.environ.get("VERIFICATION") == "None":
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE


class Connection(http.client.HTTPSConnection):
    """TLS by the name in the certificate, which need not be that of the Service."""

    def connect(self):
        """Connect, and show the server the name that its certificate must have."""
        plain = socket.create_connection((self.host, self.port), self.timeout)
        self.sock = context.wrap_socket(plain, server_hostname=os.environ["SERVER_NAME"])


def post(path, body, authorization):
    """Return (status, answer) of one call."""
    connection = Connection(host, int(port), timeout=10)
    try:
        connection.request("POST", path, json.dumps(body), {"Authorization": authorization, "Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def send():
    """Return why no message was taken, or None; never with a secret in it."""
    user = f"{os.environ.get('ADMIN_USERNAME') or 'admin'}:{os.environ['ADMIN_PASSWORD']}"
    status, text = post("/v1/users/login", {}, "Basic " + base64.b64encode(user.encode()).decode())
    if status != 200:
        return f"the login was answered with {status}"
    token = json.loads(text)["users"][0]["token"]
    message = {"to": "15550100", "type": "text", "text": {"body": "helm test"}}
    status, _ = post("/v1/messages", message, f"Bearer {token}")
    return None if status in {200, 201} else f"the message was answered with {status}"


deadline = time.monotonic() + SECONDS
while True:
    try:
        trouble = send()
    except (OSError, http.client.HTTPException) as error:  # no name, no route, no answer; TLS errors too
        trouble = f"{host}:{port} does not answer: {error}"
    if trouble is None:
        sys.stdout.write(f"{host} took a message\n")
        break
    if time.monotonic() > deadline:
        sys.exit(f"after {SECONDS:g} s: {trouble}")
    time.sleep(2)
