"""The small generator: what it reads, how it writes, and what becomes of its lower-case tokens."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chance import BASE, network_of_chance
from hypothesis import example, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage
from tracked import ROOT
from tuning_data import LONG, STRANGE, fact

from rag.encoders.adapters import Adapter, find_adapter
from rag.encoders.network_conversion import GRAPH, TOKENIZER
from rag.encoders.tuned_conversion import converted_network
from rag.errors import AdapterError, EncoderError, ModelError
from rag.models.chat_models import open_generator_model
from rag.models.extractive.evidence import Evidence, EvidencePassage
from rag.models.generator.case_restoration import Restorer
from rag.models.generator.generator_chat import GeneratorChatModel
from rag.models.generator.generator_decoding import NO_REPEAT, Generator, Refusal, Sampling
from rag.models.generator.generator_input import MOST_REPLY, POSITIONS, PromptRenderer, without_passage
from rag.models.replies import ModelInput, reply_to
from rag.settings import Settings
from rag.workspace import Workspace


@pytest.fixture(scope="module")
def renderer() -> PromptRenderer:
    from tokenizers import Tokenizer

    return PromptRenderer(Tokenizer.from_file(str(BASE.folder / TOKENIZER)))


@pytest.fixture(scope="module")
def network() -> Any:
    return network_of_chance("generator")


@pytest.fixture(scope="module")
def adapter(babbler: Adapter) -> Adapter:
    return babbler


@pytest.fixture(scope="module")
def converted(adapter: Adapter, converted_models: Path) -> Path:
    return converted_network(adapter, converted_models)


@pytest.fixture(scope="module")
def generator(adapter: Adapter, converted: Path) -> Generator:
    return Generator(converted, adapter, precision="f32")


# The prompt


TEXTS = st.lists(st.text(max_size=300), min_size=1, max_size=4)


@given(TEXTS)
@example(["", STRANGE])
@example([LONG, LONG, "Who built it?"])
def test_a_prompt_is_within_its_window_and_tells_a_word_for_each_token(
    renderer: PromptRenderer, texts: list[str]
) -> None:
    prompt = renderer.prompt(texts)
    assert len(prompt.ids) <= renderer.most
    assert len(prompt.ids) == len(prompt.words) == len(prompt.spaced)
    assert prompt.ids[-1] == renderer.end
    whole = "\n".join(texts)
    assert all(word in whole for word in prompt.words)
    assert not prompt.cut or len(prompt.ids) == renderer.most


def entry(number: int, passage: str) -> str:
    return f"[{number}] Towns\n{passage}\n"


def prompt_with(passages: list[str]) -> str:
    shown = "\n".join(entry(number, passage) for number, passage in enumerate(passages, 1))
    return f"{shown}\n\nQuestion: Who built the granary?"


@pytest.mark.parametrize(("count", "dropped"), [(1, 0), (3, 0), (8, 4)])
def test_passages_that_do_not_fit_are_dropped_from_the_end(
    renderer: PromptRenderer, count: int, dropped: int
) -> None:
    passages = [fact(number).paragraph for number in range(count)]
    prompt = renderer.prompt(["Answer briefly.", prompt_with(passages)], passages)
    assert (prompt.dropped, prompt.cut) == (dropped, False)
    kept = passages[: count - dropped]
    # As if the others had never been found.
    assert prompt.ids == renderer.prompt(["Answer briefly.", prompt_with(kept)]).ids


def test_a_passage_that_alone_is_too_long_loses_its_beginning_and_the_question_stays(
    renderer: PromptRenderer,
) -> None:
    prompt = renderer.prompt(["Answer briefly.", prompt_with([LONG, "A mill."])], [LONG, "A mill."])
    assert (prompt.dropped, prompt.cut) == (1, True)
    assert "".join(prompt.words).endswith("Question:Whobuiltthegranary?")
    assert "".join(prompt.words).startswith("Answerbriefly.")


def test_a_passage_that_is_not_in_the_prompt_is_dropped_from_nothing() -> None:
    assert without_passage("Who?", 1, "A mill.") == "Who?"
    assert without_passage("A mill. Who?", 1, "A mill.") == "A mill. Who?"
    # The same words in the question are not taken for the passage's line.
    assert without_passage("[1] Who?\n[2] Mills\nA mill.\n", 2, "A mill.") == "[1] Who?\n\n"


def test_a_reply_ends_with_the_token_that_ends_it(renderer: PromptRenderer) -> None:
    assert renderer.reply("Ida Brandt")[-1] == renderer.end
    assert len(renderer.reply(LONG)) == MOST_REPLY
    assert renderer.reply("") == (renderer.end,)


# Words as the prompt writes them


def restored(renderer: PromptRenderer, prompt: str, reply: str) -> str:
    rendered = renderer.prompt([prompt])
    restorer = Restorer(rendered, [renderer.word(token) for token in rendered.ids])
    told = [restorer.add(renderer.word(token)) for token in renderer.reply(reply)[:-1]]
    return "".join(told) + restorer.rest()


@pytest.mark.parametrize(
    ("prompt", "reply", "shown"),
    [
        ("The mill was built by Ida McBrandt in 1820.", "ida mcbrandt", "Ida McBrandt"),
        ("It holds naïve Œuvres.", "naive œuvres", "Naïve Œuvres"),
        (
            "Ida paid 3,500.50 euros (in all).",
            "ida paid 3,500.50 euros (in all).",
            "Ida paid 3,500.50 euros (in all).",
        ),
        ("The storm took The Hague and the roof.", "what did the storm take?", "What did the storm take?"),
        ("The storm took The Hague and the roof.", "it took the hague", "It took The Hague"),
        ("Nothing of that.", "don't say that i won't [1]", "Don't say that I won't [1]"),
        ("A well-known re-use of x.y.", "a well-known re-use of x.y [2]", "A well-known re-use of x.y [2]"),
        ("one\n\n  two", "one two", "One two"),
        ("", "where is it?", "Where is it?"),
    ],
)
def test_words_are_written_as_the_prompt_writes_them(
    renderer: PromptRenderer, prompt: str, reply: str, shown: str
) -> None:
    assert restored(renderer, prompt, reply) == shown


@settings(max_examples=200)
@given(st.integers(0, 8), st.data())
def test_what_is_copied_from_the_prompt_is_the_prompts_own_text(
    renderer: PromptRenderer, number: int, data: st.DataObject
) -> None:
    words = fact(number).paragraph.split(" ")
    first = data.draw(st.integers(0, len(words) - 4))
    part = " ".join(words[first : first + data.draw(st.integers(3, 12))])
    shown = restored(renderer, fact(number).paragraph, part)
    # What comes before the part is not known, and its first letter is written large.
    assert shown.casefold() == part.casefold()
    assert shown[1:] == part[1:] or shown.split(" ")[1:] == part.split(" ")[1:]


@given(st.lists(st.integers(999, 30521), max_size=12), st.text(max_size=60))
def test_any_tokens_become_a_text_and_no_word_is_lost(
    renderer: PromptRenderer, tokens: list[int], prompt: str
) -> None:
    rendered = renderer.prompt([prompt])
    restorer = Restorer(rendered, [renderer.word(token) for token in rendered.ids])
    pieces = [renderer.word(token) for token in tokens]
    shown = "".join(restorer.add(piece) for piece in pieces) + restorer.rest()
    assert (
        shown.replace(" ", "").casefold()
        == "".join(piece.removeprefix("##") for piece in pieces).replace(" ", "").casefold()
        or prompt
    )


# Writing


def shares_by_torch(network: Any, prompt: tuple[int, ...], reply: tuple[int, ...]) -> Any:
    """The probability of every token at every step, as the training computes it."""
    import torch

    ids = torch.tensor([[*prompt, *reply]])
    types = (torch.arange(ids.shape[1]) >= len(prompt)).long()[None]
    places = torch.arange(len(prompt) - 1, ids.shape[1])
    with torch.no_grad():
        drawn = network.replies(ids, types, torch.ones_like(ids), torch.zeros_like(places), places)
    share = drawn.gate.sigmoid()[:, None]
    copied = (1 - share) * drawn.copied.softmax(1)
    return (share * drawn.vocabulary.softmax(1)).scatter_add(1, ids.expand(len(places), -1), copied).numpy()


@pytest.mark.parametrize("text", ["Who?", fact(3).paragraph, LONG])
def test_the_most_probable_reply_is_the_one_that_the_network_in_training_gives(
    text: str, generator: Generator, network: Any
) -> None:
    prompt = generator.renderer.prompt(["Answer.", text])
    reply = tuple(generator.write(prompt, 12))
    assert len(reply) <= 12
    # Also what ended it was the most probable one.
    reply += (generator.renderer.end,) if len(reply) < 12 else ()
    shares = shares_by_torch(network, prompt.ids, reply)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-4)
    for step, token in enumerate(reply):
        # The adapter is kept in 16 bits; what stood in a row before is not written again.
        allowed = shares[step].copy()
        allowed[forbidden(reply[:step])] = 0
        assert allowed[token] >= allowed.max() - 2e-3


def forbidden(written: tuple[int, ...]) -> list[int]:
    last = written[-(NO_REPEAT - 1) :]
    return [
        written[at + NO_REPEAT - 1]
        for at in range(len(written) - NO_REPEAT + 1)
        if written[at : at + NO_REPEAT - 1] == last
    ]


def test_nothing_is_said_twice_in_a_row(generator: Generator) -> None:
    prompt = generator.renderer.prompt([fact(1).paragraph])
    reply = list(generator.write(prompt, 90))
    runs = [tuple(reply[at : at + NO_REPEAT]) for at in range(len(reply) - NO_REPEAT + 1)]
    assert len(set(runs)) == len(runs)


def test_a_reply_ends_where_the_window_does(generator: Generator) -> None:
    renderer = PromptRenderer(generator._model.tokenizer(), most=POSITIONS - 5)
    prompt = renderer.prompt([LONG])
    assert len(prompt.ids) == POSITIONS - 5
    assert len(list(generator.write(prompt, 90))) <= 5


def test_a_temperature_draws_and_the_seed_decides(generator: Generator) -> None:
    prompt = generator.renderer.prompt([fact(2).paragraph])
    drawn = {seed: list(generator.write(prompt, 12, Sampling(1.5, seed))) for seed in range(4)}
    assert drawn[0] == list(generator.write(prompt, 12, Sampling(1.5, 0)))
    assert len({tuple(each) for each in drawn.values()}) > 1
    assert list(generator.write(prompt, 12)) == list(generator.write(prompt, 12, Sampling(0.0, 7)))


@pytest.mark.parametrize("number", range(4))
def test_a_refusal_is_written_only_where_it_is_probable_enough(number: int, generator: Generator) -> None:
    prompt = generator.renderer.prompt([fact(number).paragraph])
    usual = list(generator.write(prompt, 8))
    # What it would write anyway stands in for the refusal, since this network has learned none.
    refusal = tuple(usual)
    assert list(generator.write(prompt, 8, refusal=Refusal(refusal, least=0.0))) == usual
    other = list(generator.write(prompt, 8, refusal=Refusal(refusal, least=1.01)))
    assert other[:2] != usual[:2]
    assert other
    # A refusal that it would not begin with changes nothing.
    elsewhere = (*reversed(refusal),)
    if elsewhere[0] != usual[0]:
        assert list(generator.write(prompt, 8, refusal=Refusal(elsewhere, least=1.01))) == usual


def test_replies_from_several_threads_do_not_mix(generator: Generator) -> None:
    from concurrent.futures import ThreadPoolExecutor

    prompts = [generator.renderer.prompt([fact(number).paragraph]) for number in range(4)]
    alone = [list(generator.write(prompt, 10)) for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda prompt: list(generator.write(prompt, 10)), prompts)) == alone


# The chat model


MESSAGES = [SystemMessage("Answer in a few words."), HumanMessage(fact(4).paragraph)]


def chat(generator: Generator, **changes: Any) -> GeneratorChatModel:
    return GeneratorChatModel(generator=generator, **({"max_tokens": 12} | changes))


def read(model: GeneratorChatModel, messages: Any = MESSAGES, **given: Any) -> AIMessageChunk:
    reply = AIMessageChunk(content="")
    for chunk in model.stream(messages, **given):
        assert isinstance(chunk, AIMessageChunk)
        reply = reply + chunk
    return reply


def test_the_whole_reply_is_the_streamed_one_with_its_tokens_counted(generator: Generator) -> None:
    model = chat(generator)
    streamed = read(model)
    whole = model.invoke(MESSAGES)
    assert whole.text == streamed.text != ""
    prompt = generator.renderer.prompt([str(each.text) for each in MESSAGES])
    usage = streamed.usage_metadata
    assert usage is not None
    assert usage["input_tokens"] == len(prompt.ids)
    assert usage["output_tokens"] == len(list(generator.write(prompt, 12)))
    assert len(list(model.stream(MESSAGES))) > 3


def test_why_a_reply_ended_is_told(generator: Generator) -> None:
    cut = read(chat(generator, max_tokens=3))
    assert cut.response_metadata["finish_reason"] == "length"
    whole = read(chat(generator))
    stop = whole.text.split(" ")[2]
    stopped = read(chat(generator), stop=[stop])
    assert stopped.response_metadata["finish_reason"] == "stop"
    assert stopped.text == whole.text[: whole.text.index(stop)]


def test_a_call_may_decode_in_another_way(generator: Generator) -> None:
    model = chat(generator)
    assert (read(model, max_tokens=2).usage_metadata or {})["output_tokens"] == 2
    drawn = {read(model, temperature=2.0, seed=seed).text for seed in range(3)}
    assert len(drawn) > 1
    assert read(model, temperature=2.0, seed=1).text == read(model, temperature=2.0, seed=1).text


def test_without_a_seed_each_reply_is_drawn_anew(generator: Generator) -> None:
    model = chat(generator, temperature=2.0)
    assert len({read(model).text for _ in range(4)}) > 1
    seeded = chat(generator, temperature=2.0, seed=0)
    assert len({read(seeded).text for _ in range(3)}) == 1


@pytest.mark.parametrize("temperature", [1e-300, 1e-6, 1e-4, 1e-3])
def test_a_small_temperature_takes_the_most_probable_tokens(generator: Generator, temperature: float) -> None:
    assert read(chat(generator, temperature=temperature)).text == read(chat(generator)).text


def test_the_texts_of_the_settings_end_a_reply_beside_those_of_a_call(generator: Generator) -> None:
    whole = read(chat(generator)).text
    early, late = whole.split(" ")[2], whole.split(" ")[4]
    model = chat(generator, stop=(late,))
    assert read(model).text == whole[: whole.index(late)]
    assert read(model, stop=[early]).text == whole[: min(whole.index(early), whole.index(late))]
    assert read(model, stop=["never written"]).text == whole[: whole.index(late)]


def test_the_generator_writes_as_the_settings_say(generator: Generator) -> None:
    decoding = {"temperature": 0.5, "seed": 7, "max_tokens": 9, "stop": ["a", "b"], "top_k": 3, "top_p": 0.5}
    model: Any = open_generator_model(Settings(model="generator", decoding=decoding), generator)
    assert (model.temperature, model.seed, model.max_tokens, model.stop) == (0.5, 7, 9, ("a", "b"))


def test_passages_that_were_not_read_are_counted(generator: Generator) -> None:
    passages = [fact(number).paragraph for number in range(8)]
    evidence = Evidence(
        "Who?", tuple(EvidencePassage(at, text, "", (), None) for at, text in enumerate(passages, 1)), "No."
    )
    prompt = ModelInput((HumanMessage(prompt_with(passages)),), evidence)
    assert asyncio.run(reply_to(chat(generator), prompt, {})).unread == 4
    assert asyncio.run(reply_to(chat(generator), ModelInput(prompt.messages[:1]), {})).unread == 0


def test_nothing_to_answer_is_an_error(generator: Generator) -> None:
    with pytest.raises(ModelError, match="nothing to answer"):
        read(chat(generator), [HumanMessage(" \n")])


def test_leaving_the_stream_stops_the_work(generator: Generator) -> None:
    stream = chat(generator, max_tokens=90).stream(MESSAGES)
    next(stream)
    stream.close()
    assert read(chat(generator)).text


# What may be wrong


def test_an_adapter_of_another_task_is_refused(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="must be a generator, not a reader"):
        Generator(converted, find_adapter("reader", Workspace(tmp_path)), precision="f32")


def test_a_damaged_conversion_says_what_to_do(adapter: Adapter, converted: Path, tmp_path: Path) -> None:
    (tmp_path / TOKENIZER).write_text("{", encoding="utf-8")
    with pytest.raises(EncoderError, match=r"is damaged: tokenizer\.json cannot be read\. Delete that folder"):
        Generator(tmp_path, adapter, precision="f32")
    (tmp_path / TOKENIZER).write_bytes((converted / TOKENIZER).read_bytes())
    (tmp_path / GRAPH).write_text("<net", encoding="utf-8")
    broken = Generator(tmp_path, adapter, precision="f32")
    with pytest.raises(EncoderError, match=r"OpenVINO cannot load the network in .*: (?!Exception from)\w"):
        list(broken.write(broken.renderer.prompt(["Who?"]), 3))


def test_writing_imports_no_torch(converted: Path, adapter: Adapter) -> None:
    code = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "from rag.encoders.adapters import read_adapter\n"
        "from rag.models.generator.generator_decoding import Generator\n"
        "g = Generator(Path(sys.argv[1]), read_adapter(Path(sys.argv[2])), precision='f32')\n"
        "tokens = list(g.write(g.renderer.prompt(['Who?']), 3))\n"
        "print(json.dumps([len(tokens), 'torch' in sys.modules]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(converted), str(adapter.folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    count, torch_is_there = json.loads(done.stdout)
    assert 0 < count <= 3
    assert not torch_is_there
