"""Prompts from and for other programs: LangChain's JSON, OpenAI's messages, plain text.

What they hold are messages: examples stand among them, and fragments, tags and who saved a version stay behind.
Nothing is instantiated from a file; what cannot be taken over as it is meant is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import ValidationError

from prompts.template import Message, PromptTemplate, PromptTemplateError, Role, places, split_places, told_of

Format = Literal["langchain", "openai", "text"]
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_HEADING = re.compile(rf"^## ({'|'.join(get_args(Role))})$", re.MULTILINE)
_OPENAI_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_LANGCHAIN_ROLES: Mapping[str, Role] = {"System": "system", "Human": "user", "AI": "assistant"}


def read_prompt(text: str, name: str, *, description: str = "", form: Format | None = None) -> PromptTemplate:
    """A draft of what another program wrote.

    Args:
        text: The content of its file.
        name: How the prompt is to be called here.
        description: What it is for.
        form: None to find out: JSON with messages is OpenAI's, other JSON LangChain's, and anything else text.

    Raises:
        PromptTemplateError: It is malformed, or has parts that have no like here.
    """
    told = None if form == "text" else _json(text)
    if told is None and form in ("langchain", "openai"):
        raise PromptTemplateError("This is no JSON.")
    try:
        messages = _messages(text, told, form)
        return PromptTemplate(
            name=name, version=1, description=description, variables=places(messages), messages=messages
        )
    except ValidationError as error:
        raise PromptTemplateError(f"This cannot become the prompt {name}: {told_of(error)}.") from error


def _messages(text: str, told: Any, form: Format | None) -> tuple[Message, ...]:
    if told is None:
        return _from_text(text)
    if form == "openai" or (form is None and isinstance(_openai_list(told), list)):
        return _from_openai(_openai_list(told))
    return _from_langchain(told)


def write_prompt_as(prompt: PromptTemplate, form: Format) -> str:
    """A prompt for another program, its places unfilled.

    Raises:
        PromptTemplateError: A text of it would be read as something else.
    """
    if form == "langchain":
        return _to_langchain(prompt)
    messages = prompt.render({name: f"{{{{{name}}}}}" for name in prompt.variables})
    if form == "openai":
        told = json.dumps([message.model_dump() for message in messages], ensure_ascii=False, indent=2) + "\n"
    else:
        told = "".join(f"## {message.role}\n{message.content}\n" for message in messages)
    # The text of an example may look like a place, and any text like a heading.
    if places(prompt.shown_examples) or read_prompt(told, prompt.name, form=form).messages != messages:
        raise PromptTemplateError(
            f"The prompt {prompt.label} has text that would be read as something else in this format: take "
            "`langchain`."
        )
    return told


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


# OpenAI's messages


def _openai_list(told: Any) -> Any:
    return told.get("messages") if isinstance(told, dict) and "lc" not in told else told


def _from_openai(told: Any) -> tuple[Message, ...]:
    if not isinstance(told, list) or not told:
        raise PromptTemplateError("These are no messages of OpenAI: a list of `role` and `content` is.")
    return tuple(_openai_message(number, each) for number, each in enumerate(told, 1))


def _openai_message(number: int, told: Any) -> Message:
    role = _OPENAI_ROLES.get(str(told.get("role"))) if isinstance(told, dict) else None
    content = told.get("content") if role else None
    if isinstance(content, list) and all(_is_text(each) for each in content):
        content = "".join(str(each["text"]) for each in content)
    if role is None or not isinstance(content, str):
        raise PromptTemplateError(
            f"Message {number} is no text of one of the roles {', '.join(_OPENAI_ROLES)}: it cannot be taken over."
        )
    return Message(role=role, content=content)


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and "text" in part


# Plain text


def _from_text(text: str) -> tuple[Message, ...]:
    """Messages under headings such as ``## user``; without one at its beginning it is one message of a user."""
    headings = list(_HEADING.finditer(text))
    if not headings or headings[0].start() > 0:
        return (Message(role="user", content=text),)
    ends = [*(each.start() for each in headings[1:]), len(text)]
    return tuple(
        Message.model_validate({"role": each[1], "content": text[each.end() + 1 : max(end - 1, each.end() + 1)]})
        for each, end in zip(headings, ends, strict=True)
    )


# LangChain's JSON


def _from_langchain(told: Any) -> tuple[Message, ...]:
    kind, held = _constructor(told)
    if kind == "ChatPromptTemplate" and isinstance(held.get("messages"), list):
        return tuple(_langchain_message(each) for each in held["messages"])
    if kind == "PromptTemplate" or (isinstance(told, dict) and told.get("_type") == "prompt"):
        return (Message(role="user", content=_langchain_text(held or told)),)
    raise PromptTemplateError(
        f"This is no prompt of LangChain that can be taken over{f': {kind}' if kind else ''}; `dumps` of a "
        "ChatPromptTemplate or a PromptTemplate is."
    )


def _constructor(told: Any) -> tuple[str, Mapping[str, Any]]:
    """The class that LangChain would make, and what of; empty where it is none."""
    if not isinstance(told, dict) or not isinstance(told.get("id"), list) or not told["id"]:
        return "", {}
    held = told.get("kwargs")
    return str(told["id"][-1]), held if isinstance(held, dict) else {}


def _langchain_message(told: Any) -> Message:
    kind, held = _constructor(told)
    role = _LANGCHAIN_ROLES.get(kind.removesuffix("PromptTemplate").removesuffix("Message"))
    if role and kind.endswith("MessagePromptTemplate"):
        return Message(role=role, content=_langchain_text(_constructor(held.get("prompt"))[1]))
    if role and isinstance(held.get("content"), str):
        return Message(role=role, content=_as_text(held["content"]))
    raise PromptTemplateError(f"A message of the kind {kind or 'unknown'} cannot be taken over.")


def _langchain_text(held: Mapping[str, Any]) -> str:
    template, form = held.get("template"), held.get("template_format", "f-string")
    if not isinstance(template, str):
        raise PromptTemplateError("A template of LangChain has no text.")
    if held.get("partial_variables"):
        raise PromptTemplateError("Variables that are filled in beforehand cannot be taken over: write them out.")
    if form == "f-string":
        return _from_f_string(template)
    if form == "mustache" and "{{" not in "".join(text for text, _ in split_places(template)):
        return template
    raise PromptTemplateError(
        f"A template of the format {form} cannot be taken over, unless all it has are variables."
    )


def _from_f_string(template: str) -> str:
    told, end = "", 0
    for found in _FIELD.finditer(template):
        told += _as_text(template[end : found.start()])
        end = found.end()
        if found[0] in ("{{", "}}"):
            told += found[0][0]
            continue
        if found[1] is None or not re.fullmatch(r"[a-z][a-z0-9_]*", found[1]):
            raise PromptTemplateError(
                f"The variable {found[0]} cannot be taken over: a name is lower-case letters, digits, underscores."
            )
        told += f"{{{{{found[1]}}}}}"
    told += _as_text(template[end:])
    wanted = [found[1] for found in _FIELD.finditer(template) if found[1] is not None]
    if [name for _, name in split_places(told) if name] != wanted:
        raise PromptTemplateError("Text in double braces would become a variable here: it cannot be taken over.")
    return told


def _as_text(text: str) -> str:
    if any(name for _, name in split_places(text)):
        raise PromptTemplateError("Text in double braces would become a variable here: it cannot be taken over.")
    return text


def _to_langchain(prompt: PromptTemplate) -> str:
    *first, last = [(each.role, _f_string(each.content)) for each in prompt.messages]
    shown = [(each.role, _escaped(each.content)) for each in prompt.shown_examples]
    return json.dumps(_chat([*first, *shown, last]), ensure_ascii=False, indent=2) + "\n"


def _f_string(content: str) -> str:
    return "".join(_escaped(text) + (f"{{{name}}}" if name else "") for text, name in split_places(content))


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _chat(messages: Sequence[tuple[Role, str]]) -> dict[str, Any]:
    kinds = {role: kind for kind, role in _LANGCHAIN_ROLES.items()}
    made = [
        _made(
            ("chat", f"{kinds[role]}MessagePromptTemplate"),
            {
                "prompt": _made(
                    ("prompt", "PromptTemplate"),
                    {"input_variables": _fields(text), "template": text, "template_format": "f-string"},
                )
            },
        )
        for role, text in messages
    ]
    names = sorted({name for _, text in messages for name in _fields(text)})
    return _made(("chat", "ChatPromptTemplate"), {"input_variables": names, "messages": made})


def _made(path: tuple[str, str], held: Mapping[str, Any]) -> dict[str, Any]:
    return {"lc": 1, "type": "constructor", "id": ["langchain", "prompts", *path], "kwargs": dict(held)}


def _fields(template: str) -> list[str]:
    return sorted({found[1] for found in _FIELD.finditer(template) if found[1] is not None})
