"""Refused requests to a model server: whether to try again, after how long, and without which parameter."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from random import uniform
from typing import Any

PACED = "paced"
"""The key of a call's metadata that says that its caller waits at a limit itself."""
LONGEST_PAUSE_S = 60.0
"""Maximum pause that is waited for here; a longer one is an error."""

_FIRST_PAUSE_S, _LONGEST_BACKOFF_S = 0.5, 8.0
_LIMITED = 429
# Overloaded servers (529 is Anthropic's), which are limits if they say when to ask again.
_OVERLOADED = frozenset({503, 529})
_MAY_PASS = frozenset({408, 409, _LIMITED})
# A quota does not come back by waiting.
_USED_UP = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
# Of Azure, and of OpenAI.
_FILTERED = frozenset({"content_filter", "content_policy_violation"})
_MALFORMED = frozenset({400, 422})
# Not a value that is too large: "'max_tokens' is too large".
_UNSUPPORTED = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|unexpected|not (?:allowed|permitted)|deprecated",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a failed request says about the next one.

    Attributes:
        status: The HTTP status; 0 without a response.
        after_s: Seconds after which the server wants to be asked again; None if it does not say.
        may_pass: Whether the same request may succeed later.
        message: What the server says.
        filtered: Whether a content filter blocks the prompt.
    """

    status: int
    after_s: float | None
    may_pass: bool
    message: str
    filtered: bool = False
    _parameter: str = ""

    @classmethod
    def of(cls, error: Exception) -> Refusal:
        """Read an error of the client."""
        names = {kind.__name__ for kind in type(error).__mro__}
        if "APIStatusError" not in names:
            return cls(0, None, "APIConnectionError" in names, str(error))
        status = int(getattr(error, "status_code", 0))
        headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
        message = str(error)
        # The client repeats the message only where OpenAI has it.
        if " - " not in message and (said := _message_in(getattr(error, "body", None))):
            message = f"{message} - {said}"
        code = getattr(error, "code", None)
        used_up = code in _USED_UP or getattr(error, "type", None) in _USED_UP
        may_pass = (status in _MAY_PASS or status >= 500) and not used_up
        parameter = str(getattr(error, "param", None) or "")
        return cls(status, _after(headers), may_pass, message, code in _FILTERED, parameter)

    @property
    def is_limit(self) -> bool:
        """Whether a limit of the server is reached that waiting lifts."""
        overloaded = self.status in _OVERLOADED and self.after_s is not None
        return self.may_pass and (self.status == _LIMITED or overloaded)

    def pause(self, tried: int) -> float:
        """Return the seconds to wait before the next request: what the server says, else a growing time."""
        if self.after_s is not None:
            return self.after_s
        growing: float = min(_FIRST_PAUSE_S * 2.0**tried, _LONGEST_BACKOFF_S)
        return growing * uniform(0.75, 1)  # noqa: S311 - no secret

    def is_about(self, parameter: str) -> bool:
        """Whether the server does not support this parameter, or only its default."""
        text = f"{self._parameter} {self.message}"
        return self.status in _MALFORMED and parameter in text and bool(_UNSUPPORTED.search(text))


def _message_in(body: object) -> str:
    """Return the message in the body of an error as Gemini, FastAPI and others write it; empty without one."""
    if isinstance(body, str):
        return "" if body.lstrip().startswith("<") else body
    if isinstance(body, list):
        return _message_in(body[0]) if body else ""
    if not isinstance(body, Mapping):
        return ""
    found = (_message_in(body.get(name)) for name in ("error", "message", "detail", "msg"))
    return next(filter(None, found), "")


def _after(headers: Mapping[str, str]) -> float | None:
    """Read ``Retry-After``, seconds or a date, or ``retry-after-ms``; None without a usable one."""
    try:
        if millis := headers.get("retry-after-ms"):
            seconds = float(millis) / 1000
        elif (given := headers.get("retry-after", "").strip()).replace(".", "", 1).isdecimal():
            seconds = float(given)
        else:
            seconds = parsedate_to_datetime(given).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def without_refused(payload: dict[str, Any], refused: set[str]) -> dict[str, Any]:
    """Return the body of a request without the parameters that the model refused.

    OpenAI's newer models refuse ``max_tokens`` under this name, and reasoning models ``temperature``.
    """
    changed = dict(payload)
    if "temperature" in refused:
        changed.pop("temperature", None)
    extra = dict(changed.get("extra_body") or {})
    if "max_tokens" in refused and "max_tokens" in extra:
        changed["max_completion_tokens"] = extra.pop("max_tokens")
        changed["extra_body"] = extra or None
    return changed
