"""A GET request that says whether a server answers."""

from __future__ import annotations

from dataclasses import dataclass

TIMEOUT_S = 3.0
"""Seconds to wait for an answer; a healthy server takes milliseconds."""


@dataclass(frozen=True, slots=True)
class ServerReply:
    """The reply to a GET; ``status`` is None if there was none."""

    status: int | None
    reason: str

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return self.status == 200


def fetch(url: str, headers: dict[str, str] | None = None) -> ServerReply:
    """GET a URL and return only the status; network failures are not raised."""
    from http.client import HTTPException, InvalidURL
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    if not url.startswith(("http://", "https://")):
        return ServerReply(None, "the URL must begin with http:// or https://")
    try:
        with urlopen(Request(url, headers=headers or {}), timeout=TIMEOUT_S) as reply:  # noqa: S310 - checked above
            return ServerReply(reply.status, reply.reason)
    except HTTPError as error:
        error.close()
        return ServerReply(error.code, f"{error.code} {error.reason}")
    except URLError as error:
        return ServerReply(None, f"no answer ({error.reason})")
    except InvalidURL:
        # What the error calls the port may be half of a password.
        return ServerReply(None, "the URL must have a host and a numeric port")
    except (OSError, HTTPException, ValueError) as error:
        return ServerReply(None, f"no answer ({error or type(error).__name__})")
