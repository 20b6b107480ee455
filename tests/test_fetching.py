"""Pages of the web: what is fetched, from where, and within which limits."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from web_site import Site, site

from rag.documents import fetching
from rag.documents.fetching import fetch_page, fetch_pages, is_address, is_public
from rag.errors import LoadError
from rag.settings import IngestSettings

LOCAL = IngestSettings(private_addresses=True)
PAGE = "<title>Fees</title><p>The ferry takes 12 euro a car.</p>"


@pytest.fixture(scope="module")
def web() -> Iterator[Site]:
    with site() as served:
        yield served


@pytest.mark.parametrize(
    ("kind", "path", "suffix"),
    [
        ("text/html; charset=utf-8", "/", ".html"),
        ("application/pdf", "/report?id=1", ".pdf"),
        ("TEXT/PLAIN", "/notes", ".txt"),
        ("text/plain", "/README.md", ".md"),
        ("application/octet-stream", "/rates.csv", ".csv"),
        ("", "/rates.json", ".json"),
        ("text/html", "/rates.csv", ".html"),
    ],
)
def test_the_content_type_chooses_the_loader(web: Site, kind: str, path: str, suffix: str) -> None:
    page = fetch_page(web.serve(path, kind, PAGE), LOCAL)
    assert (page.address, page.data, page.suffix) == (web.address + path, PAGE.encode(), suffix)


@pytest.mark.parametrize(
    ("kind", "path", "named"),
    [
        ("image/png", "/a.pdf", "image/png"),
        ("video/mp4", "/a", "video/mp4"),
        ("", "/a", "not given"),
        ("application/octet-stream", "/a.bin", "octet-stream"),
    ],
)
def test_other_content_types_are_refused_by_name(web: Site, kind: str, path: str, named: str) -> None:
    with pytest.raises(LoadError, match=named):
        fetch_page(web.serve(path, kind, b"\x89PNG"), LOCAL)


def test_an_encoding_that_only_the_server_names_is_kept(web: Site) -> None:
    page = fetch_page(web.serve("/cyrillic", "text/plain; charset=koi8-r", "Паром".encode("koi8-r")), LOCAL)
    assert page.data.decode("utf-8-sig") == "Паром"


def test_a_page_is_named_by_the_address_that_was_asked_for(web: Site) -> None:
    web.serve("/new", "text/html", PAGE)
    old = web.serve("/old", "", b"", 301, Location="/new")
    assert fetch_page(f"{old}#top", LOCAL).address == old
    assert fetch_page(old, LOCAL).data == PAGE.encode()


def test_redirects_end(web: Site) -> None:
    for number in range(7):
        web.serve(f"/hop{number}", "", b"", 302, Location=f"/hop{number + 1}")
    web.serve("/hop7", "text/html", PAGE)
    assert fetch_page(web.address + "/hop2", LOCAL).data == PAGE.encode()
    web.asked.clear()
    with pytest.raises(LoadError, match="more than 5 times"):
        fetch_page(web.address + "/hop0", LOCAL)
    assert len(web.asked) == 6


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "//", "http://user:secret@127.0.0.1/"]
)
def test_a_redirect_leads_to_no_other_kind_of_address(web: Site, target: str) -> None:
    address = web.serve("/away", "", b"", 302, Location=target)
    with pytest.raises(LoadError) as raised:
        fetch_page(address, LOCAL)
    assert "secret" not in str(raised.value)


def test_a_page_is_no_larger_than_a_file(web: Site) -> None:
    address = web.serve("/large", "text/plain", b"x" * 1_000_001)
    with pytest.raises(LoadError, match=r"max_file_mb allows \(1 MB\)"):
        fetch_page(address, IngestSettings(private_addresses=True, max_file_mb=1))


@pytest.mark.parametrize("status", [204, 403, 404, 500])
def test_an_error_of_the_server_is_told(web: Site, status: int) -> None:
    with pytest.raises(LoadError, match=f"answers {status}"):
        fetch_page(web.serve("/error", "text/html", b"", status), LOCAL)


def test_a_server_that_is_silent_or_gone_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "WAIT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(LoadError, match="does not answer within"):
            fetch_page(address, LOCAL)
    with pytest.raises(LoadError, match="cannot be reached"):
        fetch_page(address, LOCAL)


def test_a_stop_does_not_wait_for_a_silent_server(web: Site) -> None:
    address = web.serve("/quick", "text/html", PAGE)
    stop = threading.Event()
    assert [page.address for page in fetch_pages([address, address], LOCAL, stop)] == [address, address]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        threading.Timer(0.2, stop.set).start()
        started = time.monotonic()
        assert fetch_pages([address, f"http://127.0.0.1:{silent.getsockname()[1]}/"], LOCAL, stop) == []
    assert time.monotonic() - started < 5
    with pytest.raises(LoadError, match="unknown"):
        fetch_pages(["http://nowhere.invalid/"], LOCAL, threading.Event())


def test_a_slow_page_is_given_up(web: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "TOTAL_S", -1.0)
    with pytest.raises(LoadError, match="takes longer"):
        fetch_page(web.serve("/slow", "text/html", PAGE), LOCAL)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"])
def test_this_machine_is_asked_for_nothing_by_default(web: Site, host: str) -> None:
    web.asked.clear()
    port = web.address.rpartition(":")[2]
    with pytest.raises(LoadError, match=r"private address|unknown"):
        fetch_page(f"http://{host}:{port}/", IngestSettings())
    assert web.asked == []


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1"),
        *("255.255.255.255", "::", "::1", "fe80::1", "fec0::1", "fd00::1", "ff02::1", "::ffff:10.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:7f00:1::", "::127.0.0.1"),
    ],
)
def test_private_addresses_are_recognized(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_recognized(address: str) -> None:
    assert is_public(ip_address(address))


def test_the_connection_goes_to_the_address_that_was_checked(web: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(web.address.rpartition(":")[2])
    web.serve("/", "text/html", PAGE)
    asked: list[str] = []

    def resolved(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        # A second query would lead elsewhere.
        ip = "127.0.0.1" if len(asked) == 1 else "127.0.0.9"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))]

    real = socket.getaddrinfo

    def looked_up(host: Any, *given: Any, **more: Any) -> Any:
        return resolved(host) if host == "ferry.example" else real(host, *given, **more)

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    page = fetch_page(f"http://ferry.example:{port}/", LOCAL)
    assert page.address == f"http://ferry.example:{port}/"
    assert web.asked[-1] == ("/", f"ferry.example:{port}")
    assert asked == ["ferry.example"]


def test_a_redirect_into_the_private_network_is_refused(web: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    port = web.address.rpartition(":")[2]
    web.serve("/inner", "text/html", PAGE)
    outer = web.serve("/outer", "", b"", 302, Location=f"http://localhost:{port}/inner")
    web.asked.clear()
    # The first host counts as public, the second one does not.
    public = iter([True, False, False])
    monkeypatch.setattr(fetching, "is_public", lambda _: next(public))
    with pytest.raises(LoadError, match="localhost has a private address"):
        fetch_page(outer, IngestSettings())
    assert [path for path, _ in web.asked] == ["/outer"]


@pytest.mark.parametrize(
    "address",
    ["http://", "https://user:pass@example.org/", "http://exa mple.org", "http://x:99999/", "http://[::"],
)
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(LoadError):
        fetch_page(address, LOCAL)


def test_paths_are_no_addresses() -> None:
    assert is_address("HTTPS://example.org")
    assert not any(is_address(path) for path in ("http", "https:/x", "./http://x", "file:///x"))


@pytest.mark.parametrize("address", ["https://not an address", "https://not%20an/address", "http://a,b/"])
def test_what_is_no_web_address_is_called_that(address: str) -> None:
    with pytest.raises(LoadError, match=r"is not a web address|must be a valid address"):
        fetch_page(address, IngestSettings())


def test_a_private_address_is_named_once() -> None:
    with pytest.raises(LoadError, match=r"127\.0\.0\.1 is a private address\."):
        fetch_page("http://127.0.0.1:9/", IngestSettings())
