"""Notices reach a webhook, a mail server and a command, and a failure is named without a secret."""

from __future__ import annotations

import email
import hashlib
import hmac
import json
import socket
import socketserver
import sys
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import Message as Mail
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError
from terminal import OBEYED
from tracked import wait_for

from rag.alert_settings import AlertSettings
from rag.alerting.alert_channels import Channel, channel_of, open_channels
from rag.alerting.alert_notices import Message, Notice
from rag.errors import AlertError, DeliveryError

SECRET = "hush-4711-hush"
MESSAGE = Message(
    alert="slow",
    event="changed",
    level="alert",
    before="ok",
    at=1_772_500_000.0,
    metric="p95",
    unit="seconds",
    value=3.5,
    alert_at=2.0,
    warn_at=None,
    direction="above",
    window_s=3_600.0,
    filter="model = tiny",
    text="The p95 was 3.5 s.",
)
NOTICE = Notice("webhook", MESSAGE)


def channel(name: str, **settings: Any) -> Channel:
    return channel_of(open_channels(AlertSettings(**settings), None), name)  # type: ignore[arg-type]  # a literal


def failure(opened: Channel) -> str:
    with pytest.raises(DeliveryError) as raised:
        opened.send(NOTICE)
    assert raised.value.fix
    assert SECRET not in str(raised.value)
    return raised.value.message


# Webhook


class Receiver:
    """What a webhook has received; ``answer`` is the status of its answers, 0 for none."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.answer = 204
        self.ended = threading.Event()
        self.url = ""


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.received.append((dict(self.headers), body))
            if not receiver.answer:
                receiver.ended.wait(60)
                return
            self.send_response(receiver.answer)
            self.send_header("Location", receiver.url)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/{SECRET}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as opened:
        yield opened


def webhook(receiver: Receiver, **settings: Any) -> Channel:
    return channel("webhook", webhook_url=receiver.url, webhook_secret=SECRET, **settings)


def test_a_webhook_gets_a_notice_that_its_owner_can_verify(receiver: Receiver) -> None:
    webhook(receiver).send(NOTICE)
    ((headers, body),) = receiver.received
    signed = headers["X-Ragsmith-Timestamp"].encode() + b"." + body
    expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(headers["X-Ragsmith-Signature"], f"sha256={expected}")
    assert headers["Content-Type"] == "application/json"
    found = json.loads(body)
    assert (found["id"], found["title"]) == (NOTICE.id, "ragsmith: slow is alert")
    assert (found["metric"], found["value"], found["level"], found["before"]) == ("p95", 3.5, "alert", "ok")
    assert SECRET not in body.decode() + "".join(headers.values())


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 500])
def test_a_webhook_that_does_not_say_yes_has_failed(receiver: Receiver, status: int) -> None:
    receiver.answer = status
    assert failure(webhook(receiver)) == f"The webhook at 127.0.0.1 answers with {status}."
    # No redirect is followed.
    assert len(receiver.received) == 1


def test_a_webhook_that_does_not_answer_is_not_waited_for(receiver: Receiver) -> None:
    receiver.answer = 0
    assert failure(webhook(receiver, timeout_s=0.2)) == (
        "The webhook at 127.0.0.1 did not answer within 0.2 seconds."
    )


def test_a_webhook_that_drips_headers_is_not_waited_for() -> None:
    ended = threading.Event()

    def drip(server: socket.socket) -> None:
        taken, _ = server.accept()
        with taken, suppress(OSError):
            taken.sendall(b"HTTP/1.1 200 OK\r\n")
            while not ended.wait(0.05):
                taken.sendall(b"X-More: 1\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        dripping = threading.Thread(target=drip, args=(server,))
        dripping.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        try:
            assert "did not answer within 0.3 seconds" in failure(
                channel("webhook", webhook_url=url, webhook_secret=SECRET, timeout_s=0.3)
            )
        finally:
            ended.set()
            dripping.join()


def test_a_webhook_that_is_away_is_named_without_its_path() -> None:
    with receiving() as gone:
        pass
    assert failure(webhook(gone)) == "The webhook at 127.0.0.1 cannot be reached (ConnectError)."


@pytest.mark.parametrize(
    "url", ["http://example.org/x", "ftp://127.0.0.1", "https://", "127.0.0.1", "http://10.0.0.1/", "http://[::1"]
)
def test_notices_leave_this_machine_only_encrypted(url: str) -> None:
    with pytest.raises(ValidationError, match="https URL, or an http URL of this machine") as raised:
        AlertSettings(webhook_url=f"{url}/{SECRET}")
    assert SECRET not in str(raised.value)
    for usable in ("https://example.org/x", "http://localhost:9/x", "http://[::1]:9/x", "http://127.0.0.2/x"):
        assert AlertSettings(webhook_url=usable).webhook_url == usable


# Mail


class MailServer:
    """The mails that a server has taken, and the users that have signed in."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.receivers: list[str] = []
        self.signed_in: list[bytes] = []
        self.refuses = ""
        self.port = 0


@contextmanager
def mail_server() -> Iterator[MailServer]:
    kept = MailServer()

    class Handler(socketserver.StreamRequestHandler):
        def say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

        def handle(self) -> None:
            # A client that refuses the encryption does not say good-bye.
            with suppress(ConnectionResetError):
                self.talk()

        def talk(self) -> None:
            self.say("220 ready")
            while line := self.rfile.readline():
                verb, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
                if kept.refuses and kept.refuses == verb.upper():
                    self.say("550 refused")
                elif verb.upper() == "EHLO":
                    self.say("250-hello")
                    self.say("250 AUTH PLAIN")
                elif verb.upper() == "AUTH":
                    kept.signed_in.append(b64decode(rest.partition(" ")[2]))
                    self.say("235 welcome")
                elif verb.upper() == "RCPT":
                    kept.receivers.append(rest)
                    self.say("250 ok")
                elif verb.upper() == "DATA":
                    self.say("354 go on")
                    lines = iter(self.rfile.readline, b".\r\n")
                    kept.mails.append(email.message_from_bytes(b"".join(lines)))
                    self.say("250 taken")
                else:
                    self.say("221 bye" if verb.upper() == "QUIT" else "250 ok")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    kept.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def mails() -> Iterator[MailServer]:
    with mail_server() as opened:
        yield opened


def mail(server: MailServer, **settings: Any) -> Channel:
    basic = {"smtp_host": "127.0.0.1", "smtp_port": server.port, "smtp_security": "none"}
    return channel("email", **basic | {"mail_to": ("ada@example.org", "bob@example.org")} | settings)


def test_a_mail_goes_to_all_receivers_after_signing_in(mails: MailServer) -> None:
    mail(mails, smtp_user="ada", smtp_password=SECRET, mail_from="ragsmith@example.org").send(NOTICE)
    (sent,) = mails.mails
    assert (sent["Subject"], sent["From"]) == ("ragsmith: slow is alert", "ragsmith@example.org")
    assert sent["To"] == "ada@example.org, bob@example.org"
    assert sent["Message-ID"] == f"<{NOTICE.id}@ragsmith>"
    assert len(mails.receivers) == 2
    assert mails.signed_in == [b"\0ada\0" + SECRET.encode()]
    text = sent.get_payload()
    assert "The p95 was 3.5 s." in text
    assert "Only answers with: model = tiny" in text


@pytest.mark.parametrize(
    ("refused", "settings", "problem"),
    [
        ("AUTH", {"smtp_user": "ada", "smtp_password": SECRET}, "does not accept alerts.smtp_user"),
        ("RCPT", {}, "refuses all receivers"),
        ("DATA", {}, "cannot be used"),
        ("", {"smtp_security": "starttls"}, "cannot be used: STARTTLS extension not supported"),
        ("", {"smtp_security": "tls"}, "has no usable encryption"),
        ("", {"mail_to": ("ada@example.org\nBcc: eve@example.org",)}, "The mail cannot be written"),
    ],
)
def test_what_a_mail_server_refuses_is_named(
    mails: MailServer, refused: str, settings: dict[str, Any], problem: str
) -> None:
    mails.refuses = refused
    assert problem in failure(mail(mails, **settings))
    assert not mails.mails


def test_a_mail_server_that_is_away_is_named() -> None:
    with mail_server() as gone:
        pass
    assert "127.0.0.1" in failure(mail(gone))


def test_no_password_leaves_this_machine_without_encryption() -> None:
    opened = channel(
        "email", smtp_host="mail.example.org", smtp_security="none", mail_to=("a@b.c",), smtp_password=SECRET
    )
    assert "without encryption" in failure(opened)


# Command


def command(code: str, *arguments: str, **settings: Any) -> Channel:
    return channel("command", command=(sys.executable, "-c", code, *arguments), **settings)


def test_a_command_reads_the_notice_and_no_shell_its_arguments(tmp_path: Path) -> None:
    target = tmp_path / "$(echo gone); notice"
    command("import sys; open(sys.argv[1], 'w').write(sys.stdin.read())", str(target)).send(NOTICE)
    assert json.loads(target.read_text()) == NOTICE.payload


def test_a_command_that_fails_is_named_with_its_last_words() -> None:
    code = f"import sys; print('first', file=sys.stderr); sys.exit('api_key={SECRET} is wrong\\x1b[31m')"
    reason = failure(command(code))
    assert "ended with status 1: api_key=[redacted] is wrong" in reason
    assert "first" not in reason
    assert not set(OBEYED) & set(reason)


def test_a_command_that_cannot_be_started_is_named() -> None:
    assert failure(channel("command", command=("/no/such/program",))) == (
        "The command /no/such/program cannot be started: No such file or directory."
    )


def test_a_command_that_hangs_is_killed_with_what_it_has_started(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    # A shell starts at once, also on a busy machine.
    started = ("sh", "-c", 'sleep 600 & echo $! > "$1"; wait', "sh", str(noted))
    reason = failure(channel("command", command=started, timeout_s=1.5))
    assert reason == "The command sh did not end within 1.5 seconds."
    child = int(noted.read_text())
    wait_for(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


# Settings


def test_a_channel_without_its_settings_says_which_are_missing() -> None:
    channels = open_channels(AlertSettings(webhook_url="https://example.org", smtp_host="mail"), None)
    for name, missing in (
        ("webhook", "WEBHOOK_SECRET"),
        ("email", "alerts.mail_to"),
        ("command", "alerts.command"),
        ("wandb", "tracking.wandb"),
    ):
        with pytest.raises(AlertError, match=f"channel {name} is not configured") as raised:
            channel_of(channels, name)  # type: ignore[arg-type]  # a literal
        assert missing in raised.value.fix


def test_secrets_are_not_shown_with_their_settings() -> None:
    shown = repr(AlertSettings(webhook_secret=SECRET, smtp_password=SECRET))
    assert SECRET not in shown
