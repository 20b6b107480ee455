"""Pages of the web: fetched within limits, and only from public addresses unless a setting allows others.

The name of a host is resolved once for every request, and the connection goes to an address that was checked: a
name server that gives another address to the next query cannot lead into the private network.
"""

from __future__ import annotations

import codecs
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from rag.errors import LoadError, first_line

if TYPE_CHECKING:
    import httpx

    from rag.settings import IngestSettings

MOST_REDIRECTS = 5
# Seconds to connect, and between two pieces of a page.
WAIT_S = 15.0
# Seconds for a whole page.
TOTAL_S = 120.0
# Seconds between two looks at whether to stop.
LOOK_S = 0.1
MEGABYTE = 1_000_000
_SCHEMES = ("http", "https")
_REDIRECTS = (301, 302, 303, 307, 308)
# A name, or an IPv4 or IPv6 address.
_HOST = re.compile(r"[\w.-]+|[\da-fA-F:.]+(?:%[\w.-]+)?")
# IPv6 addresses that a gateway turns into the IPv4 address at their end (RFC 6052).
_NAT64 = IPv6Network("64:ff9b::/96")

_SUFFIXES = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "application/pdf": ".pdf",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "text/x-rst": ".rst",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/json": ".json",
    "application/x-ndjson": ".jsonl",
    "application/jsonl": ".jsonl",
    "application/rtf": ".rtf",
    "text/rtf": ".rtf",
    "application/epub+zip": ".epub",
    "message/rfc822": ".eml",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
}
# Servers that do not know a format call it one of these: the address then says more.
_VAGUE = ("text/plain", "application/octet-stream", "binary/octet-stream", "")


@dataclass(frozen=True, slots=True)
class FetchedPage:
    """A page as it was received.

    Attributes:
        address: The address that was asked for, not the one that it was redirected to.
        suffix: Suffix that selects the loader, with its dot.
    """

    address: str
    data: bytes
    suffix: str


def is_address(text: str) -> bool:
    """Whether a text is the address of a page, and not a path."""
    return text.lower().startswith(("http://", "https://"))


def fetch_page(address: str, settings: IngestSettings) -> FetchedPage:
    """Fetch a page.

    Args:
        settings: The largest file, and whether private addresses are allowed.

    Raises:
        LoadError: The address is invalid or not allowed, the server does not answer in time or answers with an
            error, or the page is too large or of a format that is not read.
    """
    import httpx

    url = _checked(address, address)
    address = str(url)
    end = time.monotonic() + TOTAL_S
    # A proxy would resolve the names itself, so none is used.
    with httpx.Client(trust_env=False, verify=httpx.create_ssl_context(), timeout=WAIT_S) as client:
        for _ in range(MOST_REDIRECTS + 1):
            with _response(client, url, settings, address) as response:
                if response.status_code not in _REDIRECTS or "location" not in response.headers:
                    return _page(address, url, response, settings, end)
                url = _checked(response.headers["location"], address, url)
    raise LoadError(f"{address} redirects more than {MOST_REDIRECTS} times.", fix="Give the address of the page.")


def fetch_pages(addresses: Sequence[str], settings: IngestSettings, stop: threading.Event) -> list[FetchedPage]:
    """Fetch pages one after the other; return none of them once ``stop`` is set.

    Raises:
        LoadError: See ``fetch_page``.
    """
    pages: list[FetchedPage] = []
    for address in addresses:
        page: Future[FetchedPage] = Future()
        # A daemon: what a slow server holds back keeps neither the caller nor the process waiting.
        threading.Thread(target=_fulfil, args=(page, address, settings), daemon=True).start()
        while not wait([page], LOOK_S).done:
            if stop.is_set():
                return []
        pages.append(page.result())
    return [] if stop.is_set() else pages


def _fulfil(page: Future[FetchedPage], address: str, settings: IngestSettings) -> None:
    try:
        page.set_result(fetch_page(address, settings))
    except BaseException as error:  # noqa: BLE001 - raised where the page is awaited
        page.set_exception(error)


def _checked(text: str, address: str, before: httpx.URL | None = None) -> httpx.URL:
    """Return an address, without its fragment.

    Args:
        before: The page that redirects to it.

    Raises:
        LoadError: It is no address of a page.
    """
    import httpx

    try:
        url = before.join(text) if before else httpx.URL(text)
        # With a slash where it ends with the host, so that a page has one name.
        url = url.copy_with(raw_path=url.raw_path, fragment=None)
    except (httpx.InvalidURL, ValueError) as error:
        raise LoadError(f"{address} must be a valid address: {first_line(error)}.") from error
    redirected = f" It redirects to {url}." if before else ""
    if url.scheme not in _SCHEMES or not url.host:
        raise LoadError(f"{address} must be an address with http or https.{redirected}")
    if not _HOST.fullmatch(url.host):
        raise LoadError(
            f"{address} is not a web address.{redirected}", fix="Give one such as https://example.org/page."
        )
    if url.userinfo:
        # The address names the source in answers and traces.
        raise LoadError(
            "The address of a page must not contain a user name or a password.",
            fix="Download the page and add it as a file.",
        )
    return url


@contextmanager
def _response(
    client: httpx.Client, url: httpx.URL, settings: IngestSettings, address: str
) -> Iterator[httpx.Response]:
    """Request a page from the first of the host's addresses that answers.

    Raises:
        LoadError: No address is allowed, or none answers.
    """
    import httpx

    problem: Exception | None = None
    try:
        for ip in _allowed(url, settings, address):
            request = client.build_request(
                "GET",
                url.copy_with(host=str(ip)),
                headers={
                    "Host": url.netloc.decode("ascii"),
                    "User-Agent": "ragsmith",
                    "Accept": "text/html, application/pdf, text/plain, */*;q=0.5",
                    "Accept-Encoding": "identity",
                },
                # The certificate must be that of the name.
                extensions={"sni_hostname": url.raw_host.decode("ascii")},
            )
            try:
                response = client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                problem = error
                continue
            try:
                yield response
            finally:
                response.close()
            return
    except httpx.TimeoutException as error:
        raise LoadError(
            f"{address} does not answer within {WAIT_S:.0f} seconds.", fix="Try again later."
        ) from error
    except httpx.HTTPError as error:
        raise LoadError(f"{address} cannot be fetched: {first_line(error)}.") from error
    reason = first_line(problem) if problem else "it has no address"
    raise LoadError(f"{address} cannot be reached: {reason}.", fix="Check the address and the connection.")


def _allowed(url: httpx.URL, settings: IngestSettings, address: str) -> list[IPv4Address | IPv6Address]:
    """Resolve the name of a host, and return those of its addresses that a page may come from.

    Raises:
        LoadError: The name is unknown, or only has addresses that are not allowed.
    """
    try:
        found = socket.getaddrinfo(url.raw_host.decode("ascii"), url.port or 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise LoadError(
            f"{address} cannot be reached: the host {url.host} is unknown.",
            fix="Check the address and the connection.",
        ) from error
    # A link-local address has its interface behind a percent sign.
    ips = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    allowed = [ip for ip in dict.fromkeys(ips) if settings.private_addresses or is_public(ip)]
    if not allowed:
        named = "is a private address" if url.host == str(ips[0]) else f"has a private address, {ips[0]}"
        raise LoadError(
            f"{address} cannot be fetched: {url.host} {named}.",
            fix="Set ingest.private_addresses = true to allow pages of this machine and its network.",
        )
    return allowed


def is_public(ip: IPv4Address | IPv6Address) -> bool:
    """Whether an address belongs to the public internet, also after a gateway has translated it."""
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _page(
    address: str, url: httpx.URL, response: httpx.Response, settings: IngestSettings, end: float
) -> FetchedPage:
    """Read the body of a response.

    Raises:
        LoadError: The server answers with an error, or the page is too large, too slow, or of another format.
    """
    if response.status_code != 200:
        raise LoadError(
            f"{address} cannot be fetched: the server answers {response.status_code} {response.reason_phrase}.",
            fix="Check the address; a page that asks for a sign-in can be added as a file.",
        )
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    suffix = _suffix(kind, url, address)
    data = bytearray()
    for piece in response.iter_bytes():
        data += piece
        if len(data) > settings.max_file_mb * MEGABYTE:
            raise LoadError(f"{address} is larger than ingest.max_file_mb allows ({settings.max_file_mb} MB).")
        if time.monotonic() > end:
            raise LoadError(f"{address} takes longer than {TOTAL_S:.0f} seconds.", fix="Try again later.")
    return FetchedPage(address, _as_utf8(bytes(data), kind, response.charset_encoding), suffix)


def _suffix(kind: str, url: httpx.URL, address: str) -> str:
    """Return the suffix of the loader for a content type.

    Raises:
        LoadError: Pages of this type are not read.
    """
    from rag.documents.loaders import kind_of

    if kind in _VAGUE:
        path = Path(url.path)
        if path.suffix and kind_of(path) is not None:
            return path.suffix.lower()
    suffix = _SUFFIXES.get(kind)
    if suffix is None:
        raise LoadError(
            f"{address} cannot be read: its content type is {kind or 'not given'}.",
            fix="Pages can be HTML, PDF, text, tables, JSON, Office files, e-books and mails.",
        )
    return suffix


def _as_utf8(data: bytes, kind: str, charset: str | None) -> bytes:
    """Return a text as a file that needs no header to be decoded: in UTF-8, with a byte order mark."""
    if not charset or not kind.startswith("text/"):
        return data
    try:
        if codecs.lookup(charset).name in ("utf-8", "ascii"):
            return data
        return codecs.BOM_UTF8 + data.decode(charset, "replace").encode()
    except LookupError:
        return data
