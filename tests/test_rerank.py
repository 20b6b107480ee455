"""A reranker reads the first passages that were found, and puts those that go with the question first."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from chance import BASE, adapter_of_chance, network_of_chance
from hypothesis import given, settings
from hypothesis import strategies as st
from nasty import BLANK, STRINGS
from terminal import assert_one_line, call, objects
from tiny import CORPUS, QUESTION, settings_at
from tuning_data import LONG, STRANGE, fact

from rag.encoders.adapters import Adapter, find_adapter
from rag.encoders.network_conversion import GRAPH, TOKENIZER
from rag.encoders.question_passage_pair import Renderer
from rag.encoders.tuned_conversion import converted_network
from rag.errors import AdapterError, EncoderError
from rag.retrieval.reranking import BATCH, WINDOW, CrossReranker, NullReranker, place_score
from rag.retrieval.retriever import Retriever, SearchOptions
from rag.settings import EncoderSettings, RetrievalSettings
from rag.types import Hit, Passage
from rag.workspace import Workspace
from ui.app.app import App, open_app

VARIABLE = "RAGSMITH_RETRIEVAL__RERANKER"


@pytest.fixture(scope="module")
def network() -> Any:
    return network_of_chance("reranker")


@pytest.fixture(scope="module")
def adapter(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    return adapter_of_chance(network, "reranker", tmp_path_factory.mktemp("adapters") / "sorter", rank_weight=2.5)


@pytest.fixture(scope="module")
def converted(adapter: Adapter, converted_models: Path) -> Path:
    return converted_network(adapter, converted_models)


@pytest.fixture(scope="module")
def reranker(adapter: Adapter, converted: Path) -> CrossReranker:
    return CrossReranker(converted, adapter, precision="f32", depth=30)


@pytest.fixture(scope="module")
def weighing(adapter: Adapter, converted: Path) -> Callable[..., CrossReranker]:
    """Makes rerankers of another mixture and depth."""

    def make(weight: float, depth: int = 30) -> CrossReranker:
        card = adapter.card.model_copy(update={"rank_weight": weight})
        return CrossReranker(converted, replace(adapter, card=card), precision="f32", depth=depth)

    return make


def hit(number: int, text: str, *headings: str) -> Hit:
    passage = Passage(number, 1, "/t.md", "t.md", "Towns", text, 0, len(text), headings)
    return Hit(passage, 1 / number, number, 0.5, None, None)


TEXTS = [
    fact(1).paragraph,
    "",
    LONG,
    "Ida.",
    STRANGE,
    *(fact(number).sentences[number % 4] for number in range(2, 13)),
    " \n\n - . ",
]
HITS = [hit(number, text, *["Mills"] * (number % 3)) for number, text in enumerate(TEXTS, 1)]
ASKED = "Who built the granary of Ostholm?"


def numbers(hits: Sequence[Hit]) -> list[int]:
    return [each.passage.id for each in hits]


# The order


def test_an_empty_reranker_changes_nothing() -> None:
    assert NullReranker().rerank(ASKED, HITS) == HITS
    assert NullReranker().rerank(ASKED, []) == []
    assert NullReranker().depth == 0


def test_what_was_read_is_ordered_by_its_score(reranker: CrossReranker) -> None:
    found = reranker.rerank(ASKED, HITS)
    assert sorted(numbers(found)) == numbers(HITS)
    assert numbers(found) != numbers(HITS)
    scores = [each.rerank_score for each in found]
    assert None not in scores
    assert all(one >= other for one, other in pairwise(scores))  # type: ignore[operator]
    logits = reranker.logits(ASKED, HITS)
    for each in found:
        # Nothing else of a hit has changed.
        assert replace(each, rerank_score=None) == HITS[each.passage.id - 1]
        place = reranker.adapter.card.rank_weight * place_score(each.passage.id)
        assert each.rerank_score == pytest.approx(logits[each.passage.id - 1] + place, abs=1e-3)


@pytest.mark.parametrize("depth", [1, 3, BATCH + 1, len(HITS), 500])
def test_what_lies_deeper_keeps_its_order_and_has_no_score(
    depth: int, weighing: Callable[..., CrossReranker]
) -> None:
    found = weighing(0.0, depth).rerank(ASKED, HITS)
    assert found[depth:] == HITS[depth:]
    assert sorted(numbers(found[:depth])) == numbers(HITS[:depth])
    assert all(each.rerank_score is not None for each in found[:depth])


def test_nothing_and_a_single_hit(reranker: CrossReranker) -> None:
    assert reranker.rerank(ASKED, []) == []
    assert reranker.logits(ASKED, []) == []
    (found,) = reranker.rerank(ASKED, HITS[:1])
    assert replace(found, rerank_score=None) == HITS[0]
    assert found.rerank_score is not None


def test_the_weight_of_the_card_decides_how_much_the_place_counts(weighing: Callable[..., CrossReranker]) -> None:
    assert numbers(weighing(1e6).rerank(ASKED, HITS)) == numbers(HITS)
    by_itself = weighing(0.0)
    alone, turned = by_itself.rerank(ASKED, HITS), by_itself.rerank(ASKED, HITS[::-1])
    assert [each.rerank_score for each in alone] == pytest.approx([each.rerank_score for each in turned], abs=1e-3)


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_a_better_place_says_more(one: int, other: int) -> None:
    assert 0 < place_score(one) <= place_score(1) == 1
    assert (place_score(one) > place_score(other)) == (one < other)


# The scores


@pytest.mark.parametrize("question", [ASKED, "", "mill " * 100])
def test_the_scores_are_those_of_the_network_in_training(
    question: str, reranker: CrossReranker, network: Any
) -> None:
    import torch
    from tokenizers import Tokenizer

    renderer = Renderer(Tokenizer.from_file(str(BASE.folder / TOKENIZER)), WINDOW)
    for each, logit in zip(HITS, reranker.logits(question, HITS), strict=True):
        place = (each.passage.title, *each.passage.headings)
        # The beginning of the long one stands for it.
        window = renderer.windows(question, place, each.passage.text)[0]
        ids = torch.tensor([window.ids])
        types = (torch.arange(len(window.ids)) >= window.second).long()[None]
        with torch.no_grad():
            expected = float(network(ids, types, torch.ones_like(ids))[0, 0])
        # The adapter is kept in 16 bits.
        assert logit == pytest.approx(expected, abs=0.02)


def test_each_passage_is_read_as_if_it_were_alone(reranker: CrossReranker) -> None:
    together = reranker.logits(ASKED, HITS)
    assert len(HITS) > 2 * BATCH
    for each, logit in zip(HITS, together, strict=True):
        assert reranker.logits(ASKED, [each]) == pytest.approx([logit], abs=1e-3)
    assert reranker.logits(ASKED, HITS[::-1]) == pytest.approx(together[::-1], abs=1e-3)
    assert max(together) - min(together) > 0.1


def test_in_bf16_the_scores_are_nearly_the_same(
    adapter: Adapter, converted: Path, reranker: CrossReranker
) -> None:
    from rag.encoders.encoder_opening import choose_precision

    if choose_precision(EncoderSettings())[0] != "bf16":
        pytest.skip("this processor does not compute in bf16")
    rough = CrossReranker(converted, adapter, precision="bf16", depth=30).logits(ASKED, HITS)
    assert rough == pytest.approx(reranker.logits(ASKED, HITS), abs=0.5)


@settings(max_examples=10)
@given(st.one_of(st.text(max_size=300), st.sampled_from([*STRINGS, *BLANK])), st.integers(0, 2))
def test_no_query_and_no_passage_fails(reranker: CrossReranker, text: str, count: int) -> None:
    hits = [hit(1, text, text), *HITS[1 : count + 1]]
    found = reranker.rerank(text, hits)
    assert sorted(numbers(found)) == numbers(hits)
    assert all(each.rerank_score is not None and abs(each.rerank_score) < 1e3 for each in found)


# What is wrong with a reranker


def test_an_adapter_of_another_task_is_refused(ready_workspace: Workspace, converted: Path) -> None:
    reader = find_adapter("reader", ready_workspace)
    with pytest.raises(AdapterError) as raised:
        CrossReranker(converted, reader, precision="f32", depth=30)
    assert str(raised.value) == f"The adapter {reader.folder} must be a reranker, not a reader."


@pytest.mark.parametrize("name", [GRAPH, "model.bin", TOKENIZER])
@pytest.mark.parametrize("damage", ["deleted", "cut"])
def test_a_damaged_conversion_is_told_with_what_to_do(
    name: str, damage: str, converted: Path, adapter: Adapter, tmp_path: Path
) -> None:
    folder = tmp_path / "models" / "reranker"
    shutil.copytree(converted, folder, ignore=shutil.ignore_patterns("cache"))
    file = folder / name
    if damage == "cut":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        file.unlink()
    with pytest.raises(EncoderError, match=r"Delete that folder; it is created again") as raised:
        CrossReranker(folder, adapter, precision="f32", depth=30).rerank(ASKED, HITS[:1])
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)


# In the search


class Backwards:
    """Turns round what it sees, and notes how much that was."""

    identity = "backwards"

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.seen: list[int] = []

    def rerank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        self.seen.append(len(hits))
        return list(reversed(hits))


@pytest.mark.parametrize(("depth", "k", "seen"), [(4, 1, 4), (4, 2, 4), (2, 4, 4), (0, 3, 3)])
def test_the_search_shows_the_reranker_more_than_is_wanted_of_it(depth: int, k: int, seen: int, app: App) -> None:
    usual = app.releases.retriever().search(QUESTION, SearchOptions(seen))
    assert len(usual) == seen
    backwards = Backwards(depth)
    # As few as each side may be asked for: the depth counts all the same.
    made = Retriever(app.stores.index(), RetrievalSettings(candidates=1), backwards)
    try:
        found = made.search(QUESTION, SearchOptions(k, "dense"))
    finally:
        made.close()
    assert backwards.seen == [seen]
    dense = app.releases.retriever().search(QUESTION, SearchOptions(seen, "dense"))
    assert numbers(found) == numbers(dense[::-1][:k])


@pytest.fixture(scope="module")
def reranked(harbour: Path, adapter: Adapter, converted: Path) -> Iterator[App]:
    """The app with the reranker of chance."""
    made = open_app(settings_at(harbour, retrieval={"reranker": str(adapter.folder), "rerank_depth": 3}))
    yield made
    made.close()


def test_the_workbench_takes_the_reranker_of_the_settings(reranked: App, app: App, adapter: Adapter) -> None:
    assert isinstance(reranked.models.reranker(reranked.settings.retrieval), CrossReranker)
    assert reranked.models.reranker(reranked.settings.retrieval).adapter == adapter
    assert reranked.models.reranker(reranked.settings.retrieval).depth == 3
    # A release tells which one it was, not only its name.
    assert reranked.releases.pipeline().release.reranker == adapter.identity
    assert app.releases.pipeline().release.reranker == ""
    found = reranked.releases.retriever().search(QUESTION, SearchOptions(5))
    usual = app.releases.retriever().search(QUESTION, SearchOptions(5))
    assert {each.passage.text for each in found[:3]} == {each.passage.text for each in usual[:3]}
    assert [each.passage.text for each in found[3:]] == [each.passage.text for each in usual[3:]]
    assert [each.rerank_score is None for each in found] == [False] * 3 + [True] * 2
    assert len(reranked.releases.retriever().search(QUESTION, SearchOptions(1))) == 1


def test_by_default_there_is_none(app: App) -> None:
    assert isinstance(app.models.reranker(app.settings.retrieval), NullReranker)


@pytest.mark.usefixtures("one_encoder", "converted")
def test_the_command_shows_what_the_reranker_says(
    harbour: Path, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    (usual,) = objects(call(harbour, "search", QUESTION, "--corpus", CORPUS, "--json"))
    assert [each["rerank_score"] for each in usual["results"]] == [None] * 5
    assert "reranked" not in call(harbour, "search", QUESTION, "--corpus", CORPUS).stdout
    monkeypatch.setenv(VARIABLE, str(adapter.folder))
    monkeypatch.setenv("RAGSMITH_RETRIEVAL__RERANK_DEPTH", "4")
    (found,) = objects(call(harbour, "search", QUESTION, "--corpus", CORPUS, "--json"))
    scores = [each["rerank_score"] for each in found["results"]]
    assert scores[:4] == sorted(scores[:4], reverse=True)
    assert scores[4:] == [None]
    lines = call(harbour, "search", QUESTION, "--corpus", CORPUS, "-k", "1").stdout.splitlines()
    assert lines[1].startswith(f"    reranked: {scores[0]:.3f} | score 0.")


@pytest.mark.usefixtures("one_encoder")
@pytest.mark.parametrize("name", ["riddles", "r" * 500, "~nobody-of-that-name/adapter", "."])
def test_a_reranker_that_is_not_there_is_told_in_one_line(
    name: str, harbour: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, name)
    result = call(harbour, "search", QUESTION, "--corpus", CORPUS)
    assert_one_line(result, f"There is no adapter {name}.", "Name a folder with a card.json, or one of:", "reader")


@pytest.mark.usefixtures("one_encoder")
def test_a_reader_in_its_place_is_told_in_one_line(harbour: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "reader")
    assert_one_line(call(harbour, "search", QUESTION, "--corpus", CORPUS), "must be a reranker, not a reader.")
