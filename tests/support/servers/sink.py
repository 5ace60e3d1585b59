"""Takes mails and web requests, and writes down what it got: a line of JSON each in mails.jsonl and requests.jsonl.

usage: sink.py FOLDER CERTIFICATE KEY STARTTLS_PORT TLS_PORT PLAIN_PORT HTTP_PORT

Mails: STARTTLS and login are demanded at the first port, TLS from the start and login at the second; the third takes what
it gets, and is for programs on this machine. As long as there is a file `refuse`, every recipient gets its content as an
answer, such as `451 4.3.0 try again later`; every web request gets status 503 as long as there is a file `refuse-http`.
"""

import email
import email.policy
import json
import pathlib
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

folder = pathlib.Path(sys.argv[1])
starttls_port, tls_port, plain_port, http_port = map(int, sys.argv[4:8])
certificate = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
certificate.load_cert_chain(sys.argv[2], sys.argv[3])
lock = threading.Lock()


def write(name, record):
    with lock, open(folder / name, "a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")


def login(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"reports", b"sink-password-5d2c")
    # What is not handled here, the server answers: 535.
    return AuthResult(success=good, handled=good)


class Mails:
    def __init__(self, tls):
        self.tls = tls

    async def handle_RCPT(self, server, session, envelope, address, options):
        refuse = folder / "refuse"
        if refuse.exists():
            return refuse.read_text()
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        text, html = mail.get_body(["plain"]), mail.get_body(["html"])
        write("mails.jsonl", {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": self.tls or session.ssl is not None,
            "login": bool(session.authenticated),
            "subject": mail["subject"],
            "id": mail["message-id"],
            "automatic": mail["auto-submitted"],
            "text": text.get_content() if text else None,
            "html": html.get_content() if html else None,
        })
        return "250 2.0.0 taken"


class Requests(BaseHTTPRequestHandler):
    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        refused = (folder / "refuse-http").exists()
        if self.path != "/ready" and not refused:
            headers = {name.lower(): value for name, value in self.headers.items()}
            write("requests.jsonl", {
                "method": self.command, "path": self.path, "headers": headers, "body": body.decode(),
            })
        self.send_response(503 if refused else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST = answer

    def log_message(self, *arguments):
        pass


place = {"hostname": "127.0.0.1"}
guarded = {"authenticator": login, "auth_required": True}
Controller(Mails(False), port=starttls_port, tls_context=certificate, require_starttls=True, **guarded, **place).start()
Controller(Mails(True), port=tls_port, ssl_context=certificate, auth_require_tls=False, **guarded, **place).start()
Controller(Mails(False), port=plain_port, **place).start()
ThreadingHTTPServer(("127.0.0.1", http_port), Requests).serve_forever()
