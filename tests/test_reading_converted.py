"""A reader that was converted says what its network says, without torch, and tells what is wrong with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chance import BASE, adapter_of_chance, network_of_chance
from tracked import ROOT
from tuning_data import LONG, STRANGE, fact

from rag.documents.sentences import split_sentences
from rag.encoders.adapters import CARD, CONFIG, HEAD, WEIGHTS, Adapter, Calibration, find_adapter, read_adapter
from rag.encoders.network_conversion import GRAPH, TOKENIZER
from rag.encoders.question_passage_pair import Renderer
from rag.encoders.tuned_architectures import open_base, span_network
from rag.encoders.tuned_conversion import converted_network, merge
from rag.errors import AdapterError, EncoderError
from rag.models.extractive.span_reader import ReadPassage, SpanReader
from rag.models.extractive.spans import best_spans
from rag.settings import EncoderSettings
from rag.workspace import Workspace

pytestmark = pytest.mark.slow

CALIBRATION = Calibration(slope=0.5, intercept=-1.0)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    from tokenizers import Tokenizer

    return Renderer(Tokenizer.from_file(str(BASE.folder / TOKENIZER)))


@pytest.fixture(scope="module")
def network() -> Any:
    return network_of_chance("reader")


@pytest.fixture(scope="module")
def adapter(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    return adapter_of_chance(
        network, "reader", tmp_path_factory.mktemp("adapters") / "guesser", calibration=CALIBRATION
    )


@pytest.fixture(scope="module")
def converted(adapter: Adapter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted_network(adapter, tmp_path_factory.mktemp("workspace") / "models")


@pytest.fixture(scope="module")
def reader(adapter: Adapter, converted: Path) -> SpanReader:
    return SpanReader(converted, adapter, precision="f32")


PASSAGES = [
    ReadPassage(fact(1).paragraph, ("Towns", "Mills")),
    ReadPassage(""),
    ReadPassage(LONG, ("Towns",)),
    ReadPassage("Ida."),
    ReadPassage(STRANGE),
    ReadPassage(" \n\n - . "),
]


def by_torch(network: Any, renderer: Renderer, question: str, passage: ReadPassage) -> dict[int, Any]:
    """The best span of each sentence, window by window, as the network in training computes them."""
    import torch

    best: dict[int, Any] = {}
    for window in renderer.windows(question, passage.place, passage.text):
        ids = torch.tensor([window.ids])
        types = (torch.arange(len(window.ids)) >= window.second).long()[None]
        with torch.no_grad():
            scores = network(ids, types, torch.ones_like(ids))[0].numpy()
        for span in best_spans(window, scores, split_sentences(passage.text)):
            known = best.get(span.sentence.start)
            if known is None or span.margin > known.margin:
                best[span.sentence.start] = span
    return best


@pytest.mark.parametrize("question", ["Who built the granary of Ostholm?", "", "mill " * 100])
def test_the_converted_network_gives_the_scores_of_the_network(
    question: str, reader: SpanReader, network: Any, renderer: Renderer
) -> None:
    found = reader.read(question, PASSAGES)
    assert [bool(spans) for spans in found] == [True, False, True, True, True, False]
    for spans, passage in zip(found, PASSAGES, strict=True):
        expected = by_torch(network, renderer, question, passage)
        assert [span.sentence.start for span in spans] == sorted(expected)
        for span in spans:
            other = expected[span.sentence.start]
            # The adapter is kept in 16 bits.
            assert span.margin == pytest.approx(other.margin, abs=0.02)
            assert span.sentence.start <= span.start < span.end <= span.sentence.end
            if abs(span.margin - other.margin) < 1e-3:
                assert (span.start, span.end) == (other.start, other.end)
    assert [len(spans) for spans in found][2] == len(split_sentences(LONG))


def test_in_bf16_the_scores_are_nearly_the_same(adapter: Adapter, converted: Path, reader: SpanReader) -> None:
    from rag.encoders.encoder_opening import choose_precision

    if choose_precision(EncoderSettings())[0] != "bf16":
        pytest.skip("this processor does not compute in bf16")
    question = "When was the granary built?"
    rough = SpanReader(converted, adapter, precision="bf16").read(question, PASSAGES)
    margins = [[span.margin for span in spans] for spans in reader.read(question, PASSAGES)]
    for one, other in zip(rough, margins, strict=True):
        assert [span.margin for span in one] == pytest.approx(other, abs=0.5)


def test_each_passage_is_read_as_if_it_were_alone(reader: SpanReader) -> None:
    question = "Who paid for the granary?"
    together = reader.read(question, PASSAGES)
    for spans, passage in zip(together, PASSAGES, strict=True):
        (alone,) = reader.read(question, [passage])
        assert [(span.start, span.end) for span in alone] == [(span.start, span.end) for span in spans]
        assert [span.margin for span in alone] == pytest.approx([span.margin for span in spans], abs=1e-3)
    assert reader.read(question, []) == []


def test_margins_become_probabilities(reader: SpanReader) -> None:
    assert reader.probability(2.0) == 0.5
    assert reader.probability(4.0) == pytest.approx(1 / (1 + np.exp(-1)))
    assert 0 <= reader.probability(-1e9) < 1e-9
    assert 1 - 1e-9 < reader.probability(1e9) <= 1


READ = """
import sys
from pathlib import Path
from rag.encoders.adapters import read_adapter
from rag.encoders.tuned_conversion import converted_network
from rag.models.extractive.span_reader import ReadPassage, SpanReader

adapter = read_adapter(Path(sys.argv[1]))
folder = converted_network(adapter, Path(sys.argv[2]))
spans = SpanReader(folder, adapter, precision="f32").read("Who?", [ReadPassage("Ida built it. Peter paid.")])
print(len(spans[0]), sorted({"torch", "transformers", "peft", "finetune"} & set(sys.modules)))
"""


def test_a_process_that_reads_imports_no_torch_and_converts_nothing_again(
    adapter: Adapter, converted: Path
) -> None:
    before = (converted / GRAPH).stat().st_mtime_ns
    done = subprocess.run(
        [sys.executable, "-c", READ, str(adapter.folder), str(converted.parent)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "2 []\n", done.stderr
    assert (converted / GRAPH).stat().st_mtime_ns == before
    assert [path for path in converted.parent.iterdir() if path.is_dir()] == [converted]


def test_peft_reads_the_adapter_that_was_written(adapter: Adapter, network: Any, renderer: Renderer) -> None:
    import torch
    from peft import PeftModel

    (window,) = renderer.windows("Who built it?", (), fact(1).paragraph)
    ids = torch.tensor([window.ids])
    inputs = (ids, torch.zeros_like(ids), torch.ones_like(ids))
    merged: Any = span_network(open_base(BASE.folder)).eval()
    merge(merged, adapter.folder)
    by_peft: Any = span_network(PeftModel.from_pretrained(open_base(BASE.folder), adapter.folder)).eval()
    by_peft.head = merged.head
    with torch.no_grad():
        assert torch.allclose(merged(*inputs), by_peft(*inputs), atol=1e-3)
        assert torch.allclose(merged(*inputs), network(*inputs), atol=2e-2)
    config = json.loads((adapter.folder / CONFIG).read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == BASE.name
    assert str(BASE.folder) not in (adapter.folder / CONFIG).read_text(encoding="utf-8")


# What is wrong with an adapter


@pytest.fixture
def copied(adapter: Adapter, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter.folder, tmp_path / "copied"))


@pytest.mark.parametrize("name", [CARD, CONFIG, WEIGHTS])
def test_a_missing_file_of_an_adapter_is_named(name: str, copied: Path) -> None:
    (copied / name).unlink()
    with pytest.raises(AdapterError, match=f"copied is incomplete: {name} is missing"):
        read_adapter(copied)


def test_a_reader_without_head_or_calibration_is_none(copied: Path, tmp_path: Path) -> None:
    found = read_adapter(copied)
    bare = replace(found, card=found.card.model_copy(update={"calibration": None}))
    with pytest.raises(AdapterError, match="must have a calibration in its card"):
        SpanReader(copied, bare, precision="f32")
    (copied / HEAD).unlink()
    with pytest.raises(AdapterError, match=f"incomplete: {HEAD} is missing"):
        converted_network(found, tmp_path / "models")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "mapping"),
        ('{"name": "x"}', "task: Field required"),
        ("\xff", "cannot be read"),
    ],
)
def test_a_malformed_card_is_told_by_what_is_wrong(text: str, reason: str, copied: Path) -> None:
    (copied / CARD).write_bytes(text.encode("latin-1"))
    with pytest.raises(AdapterError, match=r"card of the adapter .*copied cannot be read") as raised:
        read_adapter(copied)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_adapter_for_other_weights_is_refused(adapter: Adapter, tmp_path: Path) -> None:
    other = replace(adapter, card=adapter.card.model_copy(update={"base_sha256": "0" * 64}))
    with pytest.raises(AdapterError, match=r"trained on other weights of .*MiniLM.*Train it again"):
        converted_network(other, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_adapters_are_found_by_folder_or_name(copied: Path, workspace: Workspace) -> None:
    shutil.copytree(copied, workspace.adapters / "mine")
    assert find_adapter(str(copied), workspace).folder == copied
    assert find_adapter("mine", workspace).folder == workspace.adapters / "mine"
    with pytest.raises(AdapterError, match=r"There is no adapter theirs\. .*one of: .*\bmine\b"):
        find_adapter("theirs", workspace)


def test_the_identity_of_an_adapter_is_that_of_its_weights(adapter: Adapter, copied: Path) -> None:
    assert read_adapter(copied).identity == adapter.identity
    assert adapter.identity.startswith("guesser@")
    with (copied / HEAD).open("ab") as file:
        file.write(b"x")
    assert read_adapter(copied).identity != adapter.identity


@pytest.fixture
def damaged(converted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted, tmp_path / "models" / "reader", ignore=shutil.ignore_patterns("cache")))


@pytest.mark.parametrize("name", [GRAPH, "model.bin", TOKENIZER])
@pytest.mark.parametrize("damage", ["deleted", "cut"])
def test_a_damaged_conversion_is_told_with_what_to_do(
    name: str, damage: str, damaged: Path, adapter: Adapter
) -> None:
    file = damaged / name
    if damage == "cut":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        file.unlink()
    with pytest.raises(EncoderError, match=r"Delete that folder; it is created again") as raised:
        SpanReader(damaged, adapter, precision="f32").read("Who?", [ReadPassage("Ida did.")])
    assert str(damaged) in str(raised.value)
    assert "\n" not in str(raised.value)
