"""Import and export of prompts: LangChain's JSON, OpenAI's messages, plain text.

These formats hold messages only: examples become messages, and fragments, settings, tags and the save record are
dropped; an imported answer prompt gets the fragments of the shipped one. An OpenAI request brings its settings
along, also one of a batch file, of the Responses API, for Ollama or Anthropic, and so does an export of Langfuse.
YAML is read like JSON.
Nothing is instantiated from a file; what cannot be imported faithfully is refused or named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import ValidationError

from prompts import plain_yaml
from prompts.library import find_prompt
from prompts.openai_settings import MESSAGES, settings_of
from prompts.parts import PromptSettings
from prompts.template import (
    Message,
    PromptTemplate,
    PromptTemplateError,
    Role,
    placeholders,
    split_placeholders,
)
from prompts.validation import first_problem

Format = Literal["langchain", "openai", "text"]
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_HEADING = re.compile(rf"^## ({'|'.join(get_args(Role))})$", re.MULTILINE)
_OPENAI_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_TEXTS = ("text", "input_text", "output_text")
_LANGCHAIN_ROLES: Mapping[str, Role] = {"System": "system", "Human": "user", "AI": "assistant"}
_LITERAL_BRACES = "Text in double braces cannot be imported: it would become a variable."


@dataclass(frozen=True, slots=True)
class Imported:
    """A prompt of another program.

    Attributes:
        left_out: What of it a prompt cannot have, by name.
    """

    draft: PromptTemplate
    left_out: tuple[str, ...] = ()

    @property
    def added(self) -> str:
        """The fragments that are added from shipped prompts, as a sentence; empty if none are."""
        names = ", ".join(self.draft.fragments)
        return (
            f"Added the default fragments of an answer prompt, which this format lacks: {names}." if names else ""
        )

    @property
    def note(self) -> str:
        """What is left out or added, in a sentence each; empty if nothing is."""
        names = ", ".join(self.left_out)
        left_out = f"Left out, because a prompt has no such setting: {names}." if names else ""
        return " ".join(filter(None, (left_out, self.added)))


def read_prompt(
    text: str, name: str, *, description: str = "", form: Format | None = None, file: str = ""
) -> Imported:
    """Import a prompt of another program as a draft.

    Args:
        text: The content of its file.
        name: The name of the draft.
        description: The description of the draft.
        form: The format; None to detect it: JSON with messages is OpenAI's, other JSON is LangChain's, and
            anything else is text.
        file: The name of its file; without a format, one that ends in ``.json``, ``.jsonl`` or ``.yaml`` must be
            JSON or YAML.

    Raises:
        PromptTemplateError: The text is malformed, or has parts that cannot be imported.
    """
    # Some editors begin a file with a byte order mark.
    text = text.removeprefix("\ufeff")
    suffix = file.lower().rpartition(".")[2] if form is None else ""
    if suffix in ("yaml", "yml"):
        data = _request(_yaml(text))
    else:
        required = form in ("langchain", "openai") or suffix in ("json", "jsonl", "ndjson")
        data = None if form == "text" else _request(_json(text, required=required))
    try:
        messages = _messages(text, data, form)
        settings, left_out = settings_of(data) if _is_openai(data, form) and isinstance(data, dict) else ({}, ())
        variables = placeholders(messages)
        draft = PromptTemplate(
            name=name,
            version=1,
            description=description,
            variables=variables,
            messages=messages,
            fragments=_default_fragments(variables),
            settings=PromptSettings.model_validate(settings),
        )
    except ValidationError as error:
        raise PromptTemplateError(
            f"The prompt {name} cannot be imported: {first_problem(error, PromptTemplate)}."
        ) from error
    return Imported(draft, left_out)


def _default_fragments(variables: Sequence[str]) -> dict[str, str]:
    """Return the shipped fragments that an answer prompt with these variables needs; none for another prompt."""
    if "refusal" not in variables:
        return {}
    shipped = {**find_prompt("answer").fragments, **find_prompt("answer-from-evidence").fragments}
    needed = {"passages": "passage", "evidence": "evidence", "refusal": "refusal"}
    return {name: shipped[name] for variable, name in needed.items() if variable in variables}


def _messages(text: str, data: Any, form: Format | None) -> tuple[Message, ...]:
    if data is None and form in (None, "text"):
        return _from_text(text)
    if _is_openai(data, form):
        return _from_openai(_openai_list(data))
    return _from_langchain(data)


def _is_openai(data: Any, form: Format | None) -> bool:
    return form == "openai" or (form is None and isinstance(_openai_list(data), list))


def write_prompt_as(prompt: PromptTemplate, form: Format) -> str:
    """Export a prompt for another program, with its placeholders unfilled.

    Raises:
        PromptTemplateError: A text in it would be misread in this format.
    """
    if form == "langchain":
        return _to_langchain(prompt)
    messages = prompt.render({name: f"{{{{{name}}}}}" for name in prompt.variables})
    if form == "openai":
        exported = json.dumps([message.model_dump() for message in messages], ensure_ascii=False, indent=2) + "\n"
    else:
        exported = "".join(f"## {message.role}\n{message.content}\n" for message in messages)
    # The text of an example may look like a placeholder, and any text like a heading.
    if (
        placeholders(prompt.shown_examples)
        or read_prompt(exported, prompt.name, form=form).draft.messages != messages
    ):
        raise PromptTemplateError(
            f"The prompt {prompt.label} contains text that this format would misread: use `langchain` instead."
        )
    return exported


def _json(text: str, *, required: bool) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if required:
            raise PromptTemplateError(f"The prompt must be valid JSON: {error}.") from error
        return None


def _yaml(text: str) -> Any:
    import yaml

    try:
        data = plain_yaml.load(text)
    except yaml.YAMLError as error:
        raise PromptTemplateError(f"The prompt must be valid YAML: {' '.join(str(error).split())}.") from error
    if isinstance(data, dict) and "variables" in data:
        raise PromptTemplateError(
            "This is a prompt of ragsmith: `ragsmith prompts new NAME --file FILE` reads it."
        )
    return data


# OpenAI's messages


def _request(data: Any) -> Any:
    """Return the body of a request in OpenAI's batch files, and in Langfuse's export; other data as it is."""
    if not isinstance(data, dict) or "messages" in data:
        return data
    if isinstance(data.get("body"), dict):
        return data["body"]
    config = data.get("config")
    return {**config, "prompt": data["prompt"]} if isinstance(config, dict) and "prompt" in data else data


def _openai_list(data: Any) -> Any:
    """Return the messages of a request to OpenAI, also to its Responses API, and to others; other data as it is.

    Anthropic and Ollama have the system message beside the others, and completions a single text.
    """
    if not isinstance(data, dict) or "lc" in data or "_type" in data:
        return data
    asked = next((data[name] for name in MESSAGES if isinstance(data.get(name), str | list)), None)
    if asked is None:
        return None
    system = data.get("instructions") or data.get("system")
    first = [{"role": "system", "content": system}] if system else []
    return first + ([{"role": "user", "content": asked}] if isinstance(asked, str) else asked)


def _from_openai(data: Any) -> tuple[Message, ...]:
    if not isinstance(data, list) or not data:
        raise PromptTemplateError("OpenAI messages must be a non-empty list of objects with `role` and `content`.")
    return tuple(_openai_message(number, item) for number, item in enumerate(data, 1))


def _openai_message(number: int, data: Any) -> Message:
    role = _OPENAI_ROLES.get(str(data.get("role"))) if isinstance(data, dict) else None
    content = data.get("content") if role else None
    if isinstance(content, list) and all(_is_text(part) for part in content):
        content = "".join(str(part["text"]) for part in content)
    if role is None or not isinstance(content, str):
        raise PromptTemplateError(
            f"Message {number} cannot be imported: it must be text with a role of {', '.join(_OPENAI_ROLES)}."
        )
    return Message(role=role, content=content)


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _TEXTS and "text" in part


# Plain text


def _from_text(text: str) -> tuple[Message, ...]:
    """Parse messages under headings such as ``## user``; text without a leading heading is one user message."""
    if not text.strip():
        raise PromptTemplateError("The file of a prompt must not be empty.")
    headings = list(_HEADING.finditer(text))
    if not headings or headings[0].start() > 0:
        return (Message(role="user", content=text),)
    starts = [heading.end() + 1 for heading in headings]
    ends = [*(heading.start() for heading in headings[1:]), len(text)]
    return tuple(
        Message.model_validate({"role": heading[1], "content": text[start : max(end - 1, start)]})
        for heading, start, end in zip(headings, starts, ends, strict=True)
    )


# LangChain's JSON


def _from_langchain(data: Any) -> tuple[Message, ...]:
    kind, arguments = _constructor(data)
    if kind == "ChatPromptTemplate" and isinstance(arguments.get("messages"), list):
        return tuple(_langchain_message(message) for message in arguments["messages"])
    if kind == "PromptTemplate" or (isinstance(data, dict) and data.get("_type") == "prompt"):
        return (Message(role="user", content=_langchain_text(arguments or data)),)
    if kind:
        raise PromptTemplateError(
            f"This LangChain object cannot be imported: {kind}; it must be the `dumps` of a "
            "ChatPromptTemplate or a PromptTemplate."
        )
    raise PromptTemplateError(
        "This file cannot be imported: it must have OpenAI's messages, or be the `dumps` of a LangChain prompt."
    )


def _constructor(data: Any) -> tuple[str, Mapping[str, Any]]:
    """Return the class and arguments that a LangChain constructor record names; empty if it is not one."""
    if not isinstance(data, dict) or not isinstance(data.get("id"), list) or not data["id"]:
        return "", {}
    arguments = data.get("kwargs")
    return str(data["id"][-1]), arguments if isinstance(arguments, dict) else {}


def _langchain_message(data: Any) -> Message:
    kind, arguments = _constructor(data)
    role = _LANGCHAIN_ROLES.get(kind.removesuffix("PromptTemplate").removesuffix("Message"))
    if role and kind.endswith("MessagePromptTemplate"):
        return Message(role=role, content=_langchain_text(_constructor(arguments.get("prompt"))[1]))
    if role and isinstance(arguments.get("content"), str):
        return Message(role=role, content=_as_text(arguments["content"]))
    raise PromptTemplateError(f"Messages of type {kind or 'unknown'} cannot be imported.")


def _langchain_text(arguments: Mapping[str, Any]) -> str:
    template, form = arguments.get("template"), arguments.get("template_format", "f-string")
    if not isinstance(template, str):
        raise PromptTemplateError("A LangChain template must have text.")
    if arguments.get("partial_variables"):
        raise PromptTemplateError("Partial variables cannot be imported: write their values into the template.")
    if form == "f-string":
        return _from_f_string(template)
    if form == "mustache" and "{{" not in "".join(text for text, _ in split_placeholders(template)):
        return template
    raise PromptTemplateError(
        f"Templates of the format {form} cannot be imported if they contain more than variables."
    )


def _from_f_string(template: str) -> str:
    content, end = "", 0
    for found in _FIELD.finditer(template):
        content += _as_text(template[end : found.start()])
        end = found.end()
        if found[0] in ("{{", "}}"):
            content += found[0][0]
            continue
        if found[1] is None or not re.fullmatch(r"[a-z][a-z0-9_]*", found[1]):
            raise PromptTemplateError(
                f"The variable {found[0]} cannot be imported: use lower-case letters, digits and underscores."
            )
        content += f"{{{{{found[1]}}}}}"
    content += _as_text(template[end:])
    wanted = [found[1] for found in _FIELD.finditer(template) if found[1] is not None]
    if [name for _, name in split_placeholders(content) if name] != wanted:
        raise PromptTemplateError(_LITERAL_BRACES)
    return content


def _as_text(text: str) -> str:
    if any(name for _, name in split_placeholders(text)):
        raise PromptTemplateError(_LITERAL_BRACES)
    return text


def _to_langchain(prompt: PromptTemplate) -> str:
    *first, last = [(message.role, _f_string(message.content)) for message in prompt.messages]
    shown = [(message.role, _escaped(message.content)) for message in prompt.shown_examples]
    return json.dumps(_chat([*first, *shown, last]), ensure_ascii=False, indent=2) + "\n"


def _f_string(content: str) -> str:
    return "".join(_escaped(text) + (f"{{{name}}}" if name else "") for text, name in split_placeholders(content))


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _chat(messages: Sequence[tuple[Role, str]]) -> dict[str, Any]:
    kinds = {role: kind for kind, role in _LANGCHAIN_ROLES.items()}
    records = [
        _record(
            ("chat", f"{kinds[role]}MessagePromptTemplate"),
            {
                "prompt": _record(
                    ("prompt", "PromptTemplate"),
                    {"input_variables": _fields(text), "template": text, "template_format": "f-string"},
                )
            },
        )
        for role, text in messages
    ]
    names = sorted({name for _, text in messages for name in _fields(text)})
    return _record(("chat", "ChatPromptTemplate"), {"input_variables": names, "messages": records})


def _record(path: tuple[str, str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"lc": 1, "type": "constructor", "id": ["langchain", "prompts", *path], "kwargs": dict(arguments)}


def _fields(template: str) -> list[str]:
    return sorted({found[1] for found in _FIELD.finditer(template) if found[1] is not None})
