from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select, update
from tiny import QUESTION, answered, open_tiny

from rag.answering.release import Release
from rag.answering.release_store import ReleaseStore
from rag.database import reading, writing
from rag.errors import ReleaseError
from rag.settings import AnswerSettings, DecodingSettings, GroundingSettings, RetrievalSettings
from rag.tables import releases
from ui.app.app import App

RELEASE = Release(
    corpus="harbour",
    fingerprint="f" * 64,
    prompt="answer@3",
    prompt_sha256="a" * 64,
    model="openai:tide-1",
    retrieval=RetrievalSettings(mode="dense", k=7),
    decoding=DecodingSettings(temperature=0.4, seed=11, stop=("END",), json_schema={"type": "object"}),
    grounding=GroundingSettings(min_confidence=0.2),
    answer=AnswerSettings(citations="end"),
    adapter="reader@1a2b3c4d",
)

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
all_releases = st.builds(
    Release,
    corpus=texts,
    fingerprint=texts,
    prompt=texts,
    prompt_sha256=texts,
    model=texts,
    retrieval=st.builds(RetrievalSettings, k=st.integers(1, 1000), dense_weight=st.floats(0, 1), reranker=texts),
    decoding=st.builds(DecodingSettings, temperature=st.floats(0, 2), stop=st.tuples(texts), seed=st.none()),
    grounding=st.builds(GroundingSettings, min_support=st.floats(0, 1)),
)


@pytest.fixture
def kept(engine: Engine) -> ReleaseStore:
    return ReleaseStore(engine)


def stored(engine: Engine, name: str) -> Any:
    with reading(engine) as connection:
        return connection.execute(select(releases).where(releases.c.name == name)).one()


def alter(engine: Engine, name: str, **changes: Any) -> None:
    content = {**stored(engine, name).content, **changes}
    with writing(engine) as connection:
        connection.execute(update(releases).where(releases.c.name == name).values(content=content))


@given(release=all_releases)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_release_is_read_back_as_it_answered(kept: ReleaseStore, release: Release) -> None:
    kept.keep(release)
    found = kept.find(release.name)
    assert found.release == release
    assert found.is_whole


def test_the_draft_of_a_prompt_is_stored_with_its_release(kept: ReleaseStore) -> None:
    kept.keep(RELEASE, "description: try\n")
    assert kept.find(RELEASE.name).draft == "description: try\n"
    other = replace(RELEASE, corpus="town")
    kept.keep(other)
    assert kept.find(other.name).draft == ""


def test_a_release_is_written_once(kept: ReleaseStore, engine: Engine) -> None:
    kept.keep(RELEASE)
    first = stored(engine, RELEASE.name)
    threads = [Thread(target=kept.keep, args=(RELEASE,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stored(engine, RELEASE.name) == first


def test_fields_of_a_newer_version_are_left_out_and_known(kept: ReleaseStore, engine: Engine) -> None:
    kept.keep(RELEASE)
    retrieval = RELEASE.retrieval.model_dump(mode="json") | {"depth": 3}
    alter(engine, RELEASE.name, retrieval=retrieval, planner="deep")
    assert kept.find(RELEASE.name).release == RELEASE


def test_a_field_of_an_older_version_that_is_missing_has_its_default(kept: ReleaseStore, engine: Engine) -> None:
    odd = replace(RELEASE, condenser="condenser@99")
    kept.keep(odd)
    content = {name: value for name, value in stored(engine, odd.name).content.items() if name != "condenser"}
    with writing(engine) as connection:
        connection.execute(update(releases).values(content=content))
    found = kept.find(odd.name)
    assert found.release == RELEASE
    assert not found.is_whole


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": 5}, "5 must be a text"),
        ({"retrieval": {"k": "many"}}, "k: "),
        ({"decoding": None}, "NoneType"),
        ({"grounding": {"min_support": 7}}, "min_support: "),
    ],
)
def test_a_damaged_release_is_refused(
    kept: ReleaseStore, engine: Engine, changes: dict[str, Any], reason: str
) -> None:
    kept.keep(RELEASE)
    alter(engine, RELEASE.name, **changes)
    with pytest.raises(ReleaseError, match=f"The release {RELEASE.name} cannot be read: .*{reason}"):
        kept.find(RELEASE.name)


@pytest.mark.parametrize(("name", "what"), [("r-12345678", "r-12345678"), ("", "of this trace")])
def test_a_release_that_was_not_stored_is_named(kept: ReleaseStore, name: str, what: str) -> None:
    with pytest.raises(ReleaseError, match=f"The release {what} was not stored"):
        kept.find(name)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, converted_models: Path) -> Iterator[App]:
    made = open_tiny(tmp_path_factory.mktemp("releases"), converted_models)
    yield made
    made.close()


def test_the_release_of_every_answer_is_kept(app: App) -> None:
    answer = asyncio.run(answered(app, QUESTION))
    assert app.stores.releases.find(answer.release).release == app.releases.pipeline().release
