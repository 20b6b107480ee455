"""Access to the server: the password of the page and the key of the API."""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rag.errors import SettingsError
from ui.guard import is_loopback
from ui.openai_shapes import refusal_of

if TYPE_CHECKING:
    from pydantic import SecretStr

    from rag.settings import AccessSettings, Settings

WRONG_S = 1.0
"""Seconds that the answer to a wrong password or key is delayed, so that guessing is slow."""
GUESSES = 4
"""Concurrent sign-in attempts of one client that are checked; further ones are refused unchecked."""

# What the sign-in form needs. For everything else Gradio itself asks for the cookie.
_OPEN = frozenset(
    {
        "/", "/config", "/favicon.ico", "/gradio_api/app_id", "/gradio_api/login_check",
        "/gradio_api/startup-events", "/gradio_api/theme.css", "/gradio_api/token", "/healthz", "/login",
        "/logout", "/manifest.json", "/robots.txt", "/theme.css",
    }
)  # fmt: skip
_OPEN_FOLDERS = ("/assets/", "/static/")


def check_access(settings: Settings) -> None:
    """Refuse to serve other machines without a password.

    Raises:
        SettingsError: Other machines can reach the host, and it has no authentication.
    """
    access = settings.access
    if is_loopback(settings.host) or access.password is not None or access.no_auth:
        return
    raise SettingsError(
        f"Other machines can reach {settings.host}, and no password is set.",
        fix="Set RAGSMITH_ACCESS__PASSWORD, or keep host at 127.0.0.1. Behind a proxy that signs users in, "
        "pass --no-auth.",
    )


class Credentials:
    """Compares the credentials of a client with the settings; the answer to wrong ones is delayed.

    Args:
        access: Settings with a password.
    """

    def __init__(self, access: AccessSettings) -> None:
        self._user = access.user
        self._password = access.password
        self._key = access.api_key or access.password
        self._attempts: Counter[str] = Counter()

    @contextmanager
    def attempt(self, client: str) -> Iterator[bool]:
        """Count an attempt of a client while it is checked.

        Yields:
            Whether to check it: a client with too many concurrent attempts is refused.
        """
        if self._attempts[client] >= GUESSES:
            yield False
            return
        self._attempts[client] += 1
        try:
            yield True
        finally:
            self._attempts[client] -= 1
            if not self._attempts[client]:
                del self._attempts[client]

    async def signs_in(self, user: str, password: str) -> bool:
        """Whether these are the user and the password of the page."""
        right_user = _equal(user, self._user)
        return await self._verdict(_matches(password, self._password) and right_user)

    async def has_key(self, headers: Headers) -> bool:
        """Whether a request has the right bearer key; the answer is immediate if it has none."""
        kind, _, key = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            return False
        return await self._verdict(_matches(key.strip(), self._key))

    async def _verdict(self, right: bool) -> bool:
        if not right:
            await asyncio.sleep(WRONG_S)
        return right


def _matches(offered: str, secret: SecretStr | None) -> bool:
    return secret is not None and _equal(offered, secret.get_secret_value())


def _equal(offered: str, expected: str) -> bool:
    return hmac.compare_digest(offered.encode("utf-8", "replace"), expected.encode("utf-8", "replace"))


class SignedIn:
    """Admits clients that are signed in or have the key, and everybody to the sign-in form.

    Args:
        credentials: Checks keys.
        is_session: Whether a cookie, by name and value, belongs to a signed-in user.
    """

    def __init__(self, app: ASGIApp, credentials: Credentials, is_session: Callable[[str, str], bool]) -> None:
        self._app = app
        self._credentials = credentials
        self._is_session = is_session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 401, or with 429 after too many concurrent attempts."""
        if scope["type"] != "http" or self._has_session(scope):
            scope["state"] = {**scope.get("state", {}), "signed_in": True}
            await self._app(scope, receive, send)
            return
        headers, path = Headers(scope=scope), scope["path"]
        signs_in = path.rstrip("/") == "/login" and scope["method"] == "POST"
        known = False
        if signs_in or "authorization" in headers:
            with self._credentials.attempt(str((scope.get("client") or ("",))[0])) as admitted:
                if not admitted:
                    wait = refusal_of(path, "Too many attempts.", 429, code="busy", headers={"retry-after": "5"})
                    await wait(scope, receive, send)
                    return
                known = await self._credentials.has_key(headers)
                if signs_in:
                    await self._app(scope, receive, send)
                    return
        if not known and not _is_open(path):
            await _refusal(path)(scope, receive, send)
            return
        scope["state"] = {**scope.get("state", {}), "signed_in": known}
        await self._app(scope, receive, send)

    def _has_session(self, scope: Scope) -> bool:
        return any(self._is_session(name, value) for name, value in HTTPConnection(scope).cookies.items())


def _is_open(path: str) -> bool:
    return (path.rstrip("/") or "/") in _OPEN or path.startswith(_OPEN_FOLDERS)


def _refusal(path: str) -> Response:
    headers = {"www-authenticate": "Bearer"}
    if path.startswith("/v1/"):
        needs = "The request needs the key of this server: `Authorization: Bearer KEY`."
        return refusal_of(path, needs, 401, code="invalid_api_key", headers=headers)
    return refusal_of(path, "Sign in on the page first.", 401, headers=headers)
