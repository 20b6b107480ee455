"""Secrets are masked; prose is left as it was."""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import logging
import random
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.redaction import (
    MASK,
    is_secret_key,
    redact,
    redact_json,
    secrets_in,
    without_password,
    without_secrets,
)

HEX = "0123456789abcdef0123456789abcdef01234567"
LETTERS = "AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh"

# The text, and the part of it that must be gone.
SECRETS = [
    ("sk-proj-Ab12Cd34Ef56Gh78Ij90", "Ab12Cd34"),
    ("key sk-ant-api03-Ab12Cd34Ef56Gh78 leaked", "Ab12Cd34"),
    ("sk_live_51H8abcdefGHIJKL", "51H8abc"),
    ("Authorization: Bearer abc123def456ghi789jkl", "abc123def456"),
    ("authorization: basic dXNlcjpwYXNzd29yZA==", "dXNlcjpw"),
    ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSF"),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrXUtn"),
    ("ghp_" + LETTERS + "12", LETTERS),
    ("github_pat_11ABCDEFG0abcdefghijkl_mnop", "11ABCDEFG0"),
    ("hf_" + LETTERS, LETTERS),
    ("WANDB_API_KEY=" + HEX, HEX),
    ("wandb login " + HEX, HEX),
    ("my wandb key is " + HEX, HEX),
    ('{"key": "' + HEX + '"}', HEX),
    ("xoxb-123456789012-abcdefghijkl", "123456789012"),
    ("AIza" + LETTERS + "9", LETTERS),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3.SflKxwRJSMeKKF2QT4", "SflKxwRJ"),
    ("postgresql://me:s3cr3t@db.example.org/x", "s3cr3t"),
    ("redis://:s3cr3t@cache:6379/0", "s3cr3t"),
    ("postgresql://me:p/s3cr3t@db.example.org/x", "s3cr3t"),
    ("postgresql://me:p@s3cr3t@db.example.org/x", "s3cr3t"),
    ("postgresql://me:%2Fs3cr3t%40@db.example.org/x", "s3cr3t"),
    ("amqp://me:8000@queue.example.org", "8000"),
    ("password=hunter2", "hunter2"),
    ("password=correcthorse", "correcthorse"),
    ("PASSWORD: hunter22", "hunter22"),
    ("'password': 'correct horse'", "correct horse"),
    ('api_key: "abcdefgh"', "abcdefgh"),
    ("api_key: abc123def456", "abc123def456"),
    ("https://example.org/?api_key=abcdef&x=1", "abcdef"),
    ('client_secret="very-long-thing"', "very-long"),
    (
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAabc\nDEFghi+/==\n-----END RSA PRIVATE KEY-----",
        "MIIEow",
    ),
    ("-----BEGIN PRIVATE KEY-----\\nMIIEowIBAAKCAQEAabc\\nDEF\\n-----END PRIVATE KEY-----", "MIIEow"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA", "b3Blbn"),
]

PROSE = [
    "Your password: choose one that is long, and keep it secret.",
    "A token is a piece of a word; 512 tokens are about 380 words.",
    "The bearer of this letter misunderstandings aside, is our friend.",
    "Bearer authentication uses the Authorization header.",
    f"The fix is in commit {HEX} of the repository.",
    "Key: value pairs are separated by a colon. The secret: there is none.",
    "api_key: str | None = None",
    "client = Client(api_key=os.environ['KEY'], password=getpass())",
    "password=None, secret=str, token=True",
    "A risk-2024-free-of-sk-learn task-oriented approach",
    "A PEM file begins with -----BEGIN PRIVATE KEY----- and ends with its END line.",
    "Open https://example.org:8080/path@2 or mail me@example.org",
    "It answers at http://localhost:8000, and mail goes to me@example.org.",
    "[the page](http://localhost:8000/a@b) and {'url': 'http://h:8000','mail':'a@b.c'}",
    "http://[::1]:8000/a@b and git+ssh://git@example.org/x.git",
    "Set the API key: https://example.org/v1 shows where.",
    "hf_transfer and gh_action are names; AKIA is a prefix.",
    "the key to max_tokens: 512 is in secret/README.md",
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_secrets_are_masked(text: str, secret: str) -> None:
    for around in (text, f"see: {text}", f"({text})", f"{text}\nmore"):
        shown = redact(around)
        assert secret not in shown
        assert MASK in shown


@pytest.mark.parametrize("text", PROSE)
def test_prose_about_secrets_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("module", [argparse, asyncio, json, logging, random, subprocess, inspect])
def test_documented_source_code_stays(module: object) -> None:
    source = inspect.getsource(module)  # type: ignore[arg-type]
    assert redact(source) == source


SENTENCE = """
the password token secret key bearer api login wandb credentials authorization private begin of is a
sk hf passes tokenizer keyed secretary monkey 2024 512 3.5 wir über 東京 naïve don't e-mail re-ranked
"""
WORDS = SENTENCE.split()
ENDS = [" ", ", ", ". ", ": ", "; ", " – ", "? ", "\n", " (", ") ", " = "]


@given(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(ENDS[:-1])), max_size=60))
def test_any_sentence_of_ordinary_words_stays(parts: list[tuple[str, str]]) -> None:
    text = "".join(word + end for word, end in parts)
    assert redact(text) == text


@given(st.text(max_size=300))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


def test_json_is_masked_by_shape_and_by_key() -> None:
    value = redact_json({"password": "abc", "OPENAI_API_KEY": "x", "notes": ["sk-Ab12Cd34Ef56Gh78Ij90", 3, None]})
    assert value == {"password": MASK, "OPENAI_API_KEY": MASK, "notes": [MASK, 3, None]}
    assert redact_json({"secret": 5, "max_tokens": "5"}) == {"secret": 5, "max_tokens": "5"}
    assert is_secret_key("db_password")
    assert not is_secret_key("tokens")
    assert not is_secret_key("keyword")


@pytest.mark.parametrize(
    "piece",
    [
        "a-",
        "sk-",
        "a://b:",
        "a://b:c@",
        "://",
        "password",
        "password: '",
        "eyJ",
        "http://",
        "key ",
        "bearer ",
        "pwd=",
    ],
)
def test_a_hostile_line_takes_no_longer_than_its_length(piece: str) -> None:
    started = time.process_time()
    redact(piece * (100_000 // len(piece)))
    assert time.process_time() - started < 1.5


# Passwords in URLs

SIGNS = st.text("abcXYZ0189/@:%?#&=+.~!$^*()-_é", min_size=1, max_size=30)
SECRET = "hunter2horse"


@given(before=SIGNS, after=SIGNS, user=st.sampled_from(["", "me", "me%40here"]))
def test_no_part_of_a_password_in_a_url_is_shown(before: str, after: str, user: str) -> None:
    url = f"http://{user}:{before}{SECRET}{after}@host.example.org:8000/v1"
    assert SECRET not in without_password(url)
    assert without_password(url).endswith("host.example.org:8000/v1")


@given(before=SIGNS, after=SIGNS, user=st.sampled_from(["", "me", "me%40here"]))
def test_a_password_in_a_url_is_found_in_a_sentence(before: str, after: str, user: str) -> None:
    shown = redact(f"The server at http://{user}:p{before}{SECRET}{after}@host.example.org:8000/v1 refuses.")
    assert SECRET not in shown
    assert shown.startswith("The server at http://")
    assert shown.endswith("@host.example.org:8000/v1 refuses.")


@given(
    scheme=st.sampled_from(["http", "https", "ftp"]),
    host=st.sampled_from(["localhost", "example.org", "127.0.0.1", "[::1]"]),
    port=st.sampled_from(["", ":80", ":8000", ":65535"]),
    path=st.sampled_from(["", "/", "/v1", "/a@b", "/@me/7", "?mail=a@b.c", "#a@b"]),
    end=st.sampled_from(["", ",", ".", " me@example.org", ")", '"', " (a@b)"]),
)
def test_an_address_with_a_port_is_no_password(scheme: str, host: str, port: str, path: str, end: str) -> None:
    text = f"See {scheme}://{host}{port}{path}{end}"
    assert redact(text) == text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host:8000", "http://host:8000"),
        ("http://host:8000/v1?x=1", "http://host:8000/v1?x=1"),
        ("http://host/@me", "http://host/@me"),
        ("http://me:secret@host:8000/v1", f"http://{MASK}@host:8000/v1"),
        ("http://token@host", f"http://{MASK}@host"),
        ("http://:secret@host", f"http://{MASK}@host"),
        ("http://host/v1?api_key=abc&x=1", f"http://host/v1?api_key={MASK}&x=1"),
        ("http://host/v1?X-Amz-Signature=abc", f"http://host/v1?X-Amz-Signature={MASK}"),
        ("me:secret@host:8000", f"{MASK}@host:8000"),
        ("", ""),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert without_password(url) == shown
    assert without_password(shown) == shown


# Secrets that come back without the word before them


def test_a_typed_secret_is_masked_wherever_it_comes_back() -> None:
    secrets = secrets_in(
        "password=hunter2 and sk-Ab12Cd34Ef56Gh78Ij90, token: eyJ1 and password=correct. It is password=hunter2."
    )
    assert secrets == {"hunter2", "sk-Ab12Cd34Ef56Gh78Ij90"}
    value = {"query": "gauge password hunter2", "list": ["hunter2!", "hunter22", 7], "hunter2": None}
    assert without_secrets(value, secrets) == {
        "query": f"gauge password {MASK}",
        "list": [f"{MASK}!", "hunter22", 7],
        MASK: None,
    }


@given(st.text(max_size=300))
def test_what_was_masked_holds_no_secret_any_more(text: str) -> None:
    assert not secrets_in(redact(text))
