"""Notices of alerts as signed requests to an address."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from rag.alerting.alert_notices import Notice
from rag.errors import DeliveryError

TIMESTAMP_HEADER, SIGNATURE_HEADER = "X-Ragsmith-Timestamp", "X-Ragsmith-Signature"


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a request: HMAC-SHA256 of timestamp, full stop and body, as ``sha256=`` and hex."""
    signed = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={signed.hexdigest()}"


class WebhookChannel:
    """Posts notices as JSON.

    Args:
        url: The address, which is not shown: its path may be a secret.
        secret: The key of the signature.
        timeout_s: Seconds for the whole request.
    """

    def __init__(self, url: str, secret: str, timeout_s: float) -> None:
        self._url = url
        self._secret = secret
        self._timeout_s = timeout_s
        self._shown = f"The webhook at {urlsplit(url).hostname}"

    def send(self, notice: Notice) -> None:
        """Post a notice.

        Raises:
            DeliveryError: There is no connection, or the answer is not a success (2xx).
        """
        import asyncio

        import httpx

        body = json.dumps(notice.payload).encode()
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "ragsmith",
            TIMESTAMP_HEADER: timestamp,
            SIGNATURE_HEADER: signature(self._secret, timestamp, body),
        }
        try:
            status = asyncio.run(asyncio.wait_for(self._post(body, headers), self._timeout_s))
        except (TimeoutError, httpx.TimeoutException) as error:
            raise self._failed(f"did not answer within {self._timeout_s:g} seconds") from error
        except httpx.HTTPError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise self._failed("has a certificate that is not trusted") from error
            # The texts of these errors may repeat the address.
            raise self._failed(f"cannot be reached ({type(error).__name__})") from error
        if not 200 <= status < 300:
            raise self._failed(f"answers with {status}")

    async def _post(self, body: bytes, headers: Mapping[str, str]) -> int:
        """Return the status. A redirect is not followed: nobody has chosen its address. The answer is not read."""
        import httpx

        # The time-out of a client begins anew with every header that arrives; the caller limits the whole.
        async with (
            httpx.AsyncClient(timeout=self._timeout_s) as client,
            client.stream("POST", self._url, content=body, headers=headers) as response,
        ):
            return response.status_code

    def _failed(self, reason: str) -> DeliveryError:
        return DeliveryError(f"{self._shown} {reason}.", fix="Check it, and the setting alerts.webhook_url.")
