"""Which files of a corpus a person means by a path or a name."""

from __future__ import annotations

import pytest

from rag.errors import CorpusError
from rag.indexing.corpus_sources import CorpusSource, named_sources

PLACES = (
    ("/srv/siv/docs/looms.md", "docs/looms.md"),
    ("/srv/siv/docs/mills/looms.md", "docs/mills/looms.md"),
    ("/srv/siv/docs/mills/rye.md", "docs/mills/rye.md"),
    ("/srv/siv/looms.md", "looms.md"),
    ("/srv/ove/docs/vats.md", "docs/vats.md"),
    ("/srv/ove/docs/looms.md", "docs/looms.md"),
    ("/srv/uploads/port/example.org-1f.html", "https://example.org/"),
    ("/srv/uploads/port/example.org_a-2e.html", "https://example.org/a"),
)
SOURCES = [CorpusSource(number, path, name, 1, 1, 0.0, True) for number, (path, name) in enumerate(PLACES)]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ("/srv/siv/docs", [0, 1, 2]),
        ("/srv/siv/docs/looms.md", [0]),
        ("/srv/siv/docs/", [0, 1, 2]),
        ("docs/mills", [1, 2]),
        ("docs/mills/looms.md", [1]),
        ("rye.md", [2]),
        ("vats.md", [4]),
        # The file of this very name, not all that end with it.
        ("looms.md", [3]),
        ("https://example.org/a", [7]),
        ("https://example.org", [6, 7]),
    ],
)
def test_a_path_or_a_name_stands_for_files(wanted: str, ids: list[int]) -> None:
    assert [source.id for source in named_sources(SOURCES, wanted, "mill")] == ids


@pytest.mark.parametrize("wanted", ["docs", "docs/looms.md"])
def test_a_name_that_stands_for_files_of_several_folders_is_refused(wanted: str) -> None:
    with pytest.raises(CorpusError, match=r"in several places, such as /srv/ove/docs/looms\.md"):
        named_sources(SOURCES, wanted, "mill")


def test_a_bare_name_of_several_files_is_refused() -> None:
    with pytest.raises(CorpusError, match="2 files in several places"):
        named_sources(SOURCES[:2], "looms.md", "mill")


@pytest.mark.parametrize("wanted", ["loom", "doc", "/srv/siv/doc", "mills", "", "/nowhere"])
def test_anything_else_is_refused(wanted: str) -> None:
    with pytest.raises(CorpusError, match="The corpus mill contains no file or folder") as raised:
        named_sources(SOURCES, wanted, "mill")
    assert raised.value.fix == "See `ragsmith corpora show mill`."
