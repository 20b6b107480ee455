"""A tokenizer without transformers, whose import takes seconds and 250 MB.

The conversion of a model (``rag.models.local.causal_conversion``) stores what transformers makes of the
tokenizer's files, and compares both on many texts.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from rag.errors import ModelUnavailable, first_line

if TYPE_CHECKING:
    from jinja2 import Environment

TOKENIZER = "tokenizer.json"
FACTS = "tokenizer_facts.json"
# Samples that are compared, and their longest length in pieces.
SAMPLES, LONGEST = 300, 30
_CHARACTERS = (
    "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789 \n\t.,;:!?'\"()[]{}<>|/\\-_=+*&%$#@~`"
    "éüßñçøÅЖжλΩ中文字日本한국🙂👩💻\u0301\u200b\u00a0…“”"
)


class TokenizerFacts(BaseModel):
    """What a tokenizer of transformers knows beyond the file of its vocabulary.

    Attributes:
        special: Special tokens by id.
        named: Special tokens by the names that chat templates use, such as ``bos_token``.
    """

    model_config = ConfigDict(frozen=True)
    chat_template: str | None
    eos_token_id: int | None
    pad_token_id: int | None
    unk_token_id: int | None
    special: Mapping[int, str]
    named: Mapping[str, str]


class LightTokenizer:
    """The part of a tokenizer of transformers that local models use.

    Args:
        folder: The converted model.

    Raises:
        ModelUnavailable: A file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        try:
            facts = TokenizerFacts.model_validate_json((folder / FACTS).read_text(encoding="utf-8"))
            self._tokenizer: Any = Tokenizer.from_file(str(folder / TOKENIZER))
        # The library raises plain exceptions.
        except (Exception, ValidationError) as error:
            raise ModelUnavailable(
                f"The converted model in {folder} is damaged: {first_line(error)}.",
                fix="Delete that folder; it is created again at the next start.",
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._named = facts.named
        self.chat_template = facts.chat_template
        self.eos_token_id, self.pad_token_id = facts.eos_token_id, facts.pad_token_id
        self.unk_token_id = facts.unk_token_id
        self.all_special_ids = list(facts.special)
        self.all_special_tokens = list(facts.special.values())
        self.added_tokens_decoder: Mapping[int, Any] = self._tokenizer.get_added_tokens_decoder()

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """Return the token ids of a text, under ``input_ids``."""
        return {"input_ids": self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def decode(
        self, ids: Sequence[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool = False
    ) -> str:
        """Return the text of token ids."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def apply_chat_template(
        self, turns: Sequence[Mapping[str, str]], *, chat_template: str | None = None, **given: Any
    ) -> dict[str, list[int]]:
        """Return the token ids of a conversation, under ``input_ids``.

        Args:
            turns: The messages, each with ``role`` and ``content``.
            chat_template: A template to use instead of the tokenizer's own.
            given: Variables of the template.

        Raises:
            jinja2.TemplateError: The template does not accept these messages.
        """
        template = self._templates.from_string(chat_template or self.chat_template or "")
        context = {**self._named, "tools": None, "documents": None, **given}
        return self(template.render(messages=[dict(turn) for turn in turns], **context), add_special_tokens=False)

    @cached_property
    def _templates(self) -> Environment:
        return _environment()


def store_tokenizer(reference: Any, target: Path) -> None:
    """Store a tokenizer of transformers for ``LightTokenizer``, unless that would differ from it.

    Args:
        reference: The tokenizer of transformers.
        target: The converted model.
    """
    template = reference.chat_template
    if not reference.is_fast or not (template is None or isinstance(template, str)):
        return
    facts = TokenizerFacts(
        chat_template=template,
        eos_token_id=reference.eos_token_id,
        pad_token_id=reference.pad_token_id,
        unk_token_id=reference.unk_token_id,
        special=dict(zip(reference.all_special_ids, map(str, reference.all_special_tokens), strict=True)),
        named={name: token for name, token in reference.special_tokens_map.items() if isinstance(token, str)},
    )
    reference.backend_tokenizer.save(str(target / TOKENIZER))
    (target / FACTS).write_text(facts.model_dump_json(), encoding="utf-8")
    if not _agree(reference, LightTokenizer(target)):
        (target / FACTS).unlink()
        (target / TOKENIZER).unlink()


def _agree(reference: Any, light: LightTokenizer) -> bool:
    rng = random.Random(0)  # noqa: S311 - no secret
    texts = list(sample_texts(rng, [*light.all_special_tokens, *_words(reference, rng)]))
    for text in texts:
        for special in (True, False):
            ids = reference(text, add_special_tokens=special)["input_ids"]
            if ids != light(text, add_special_tokens=special)["input_ids"]:
                return False
            for skipped in (True, False):
                expected = reference.decode(ids, skip_special_tokens=skipped, clean_up_tokenization_spaces=False)
                if expected != light.decode(ids, skip_special_tokens=skipped):
                    return False
    return reference.chat_template is None or all(
        _rendered(reference, turns) == _rendered(light, turns) for turns in _conversations(texts)
    )


def _words(reference: Any, rng: random.Random) -> list[str]:
    vocabulary = sorted(reference.get_vocab())
    return [reference.convert_tokens_to_string([token]) for token in rng.choices(vocabulary, k=500)]


def sample_texts(rng: random.Random, words: Sequence[str]) -> Sequence[str]:
    """Return texts of random words and characters.

    Args:
        rng: Random numbers.
        words: Words that may occur, such as special tokens.
    """
    return [
        "".join(
            rng.choice((rng.choice(words), rng.choice(_CHARACTERS), " ")) for _ in range(rng.randint(0, LONGEST))
        )
        for _ in range(SAMPLES)
    ]


def _conversations(texts: Sequence[str]) -> Sequence[list[dict[str, str]]]:
    system, user, reply, again = (
        {"role": r, "content": t} for r, t in zip(("system", "user", "assistant", "user"), texts[:4], strict=True)
    )
    return [[user], [system, user], [user, reply, again], [system, user, reply, again], [system], [user, again]]


def _rendered(tokenizer: Any, turns: list[dict[str, str]]) -> Any:
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(
            turns,
            chat_template=None,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            enable_thinking=False,
        )["input_ids"]
    except TemplateError as error:
        return str(error)


def _environment() -> Environment:
    """Return an environment like that of transformers; a sandbox, since templates come with models."""
    from jinja2 import TemplateError, nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """Templates for training mark what the model writes."""

        tags = {"generation"}  # noqa: RUF012 - the base class declares it

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    class SafeNamespace(Namespace):
        """Refuses names with which a template could reach what is inside of Python."""

        def __setitem__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                raise SecurityError(f"a chat template must not set {name}")
            super().__setitem__(name, value)

    def namespace(*args: Any, **given: Any) -> SafeNamespace:
        made = SafeNamespace()
        for name, value in dict(*args, **given).items():
            made[name] = value
        return made

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, **given: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **given)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols], autoescape=False
    )
    made.filters["tojson"] = to_json
    made.globals |= {
        "raise_exception": refuse,
        "strftime_now": lambda form: datetime.now().astimezone().strftime(form),
        "namespace": namespace,
        "dict": lambda *args, **given: dict(*args, **given),
    }
    return made
