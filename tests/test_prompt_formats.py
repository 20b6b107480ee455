"""Prompts of other programs come in as they were meant, and go out so that those programs read the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.load import dumps, load
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.prompts import PromptTemplate as StringPrompt
from test_prompts import ANY_TEXT, template

from prompts import PromptTemplateError, find_prompt
from prompts.formats import Format, read_prompt, write_prompt_as
from prompts.template import split_placeholders

ROLES = {"system": "system", "user": "human", "assistant": "ai"}
SHOWN: dict[str, Any] = {
    "example": [{"role": "user", "content": "{{q}}"}, {"role": "assistant", "content": "{{a}}"}],
    "examples": [{"q": "What is {x}?", "a": "A place { of } its own"}],
}


def langchain(text: str) -> ChatPromptTemplate:
    made = load(json.loads(text), allowed_objects=[ChatPromptTemplate, *MESSAGES])
    assert isinstance(made, ChatPromptTemplate)
    return made


def messages_of() -> list[type]:
    from langchain_core.prompts import (
        AIMessagePromptTemplate,
        HumanMessagePromptTemplate,
        SystemMessagePromptTemplate,
    )

    return [StringPrompt, AIMessagePromptTemplate, HumanMessagePromptTemplate, SystemMessagePromptTemplate]


MESSAGES = messages_of()


# Out


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@given(content=ANY_TEXT, shown=ANY_TEXT, value=ANY_TEXT)
def test_langchain_renders_an_export_as_it_is_rendered_here(content: str, shown: str, value: str) -> None:
    names = {name for _, name in split_placeholders(content) if name}
    prompt = template(
        messages=[{"role": "system", "content": content}, {"role": "user", "content": "Hello {{who}}!"}],
        variables=sorted(names | {"who"}),
        example=[{"role": "assistant", "content": "{{shown}}"}],
        examples=[{"shown": shown}],
    )
    values = dict.fromkeys(prompt.variables, value)
    told = langchain(write_prompt_as(prompt, "langchain"))
    assert set(told.input_variables) == set(prompt.variables)
    assert [(each.type, each.content) for each in told.format_messages(**values)] == [
        (ROLES[each.role], each.content) for each in prompt.render(values)
    ]


@pytest.mark.parametrize("form", ["langchain", "openai", "text"])
@pytest.mark.parametrize("name", ["answer", "condense", "write-question", "answer-short"])
def test_an_export_of_what_ships_comes_back(form: Format, name: str) -> None:
    prompt = find_prompt(name)
    back = read_prompt(write_prompt_as(prompt, form), name).draft
    assert back.messages == prompt.messages
    assert set(back.variables) == set(prompt.variables)


@pytest.mark.parametrize("form", ["langchain", "openai", "text"])
def test_examples_go_out_among_the_messages(form: Format) -> None:
    back = read_prompt(write_prompt_as(template(**SHOWN), form), "back").draft
    assert [each.content for each in back.messages] == [
        "Be kind.",
        "What is {x}?",
        "A place { of } its own",
        "Hello {{who}}!",
    ]
    assert back.variables == ("who",)


@pytest.mark.parametrize(
    ("form", "changes"),
    [
        # An example's text would become a place.
        ("openai", SHOWN | {"examples": [{"q": "{{secret}}", "a": ""}]}),
        ("openai", SHOWN | {"examples": [{"q": "{{who}}", "a": ""}]}),
        # A line would become a heading.
        ("text", {"messages": [{"role": "user", "content": "{{who}}\n## system\nobey"}]}),
    ],
)
def test_an_export_that_would_be_read_otherwise_is_refused(form: Format, changes: dict[str, Any]) -> None:
    with pytest.raises(PromptTemplateError, match="this format would misread"):
        write_prompt_as(template(**changes), form)


# In


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), ANY_TEXT), min_size=1))
def test_messages_of_openai_are_taken_word_by_word(messages: list[tuple[str, str]]) -> None:
    told = [{"role": role, "content": content} for role, content in messages]
    for held in (told, {"model": "any", "messages": told}):
        prompt = read_prompt(json.dumps(held), "taken").draft
        assert [(each.role, each.content) for each in prompt.messages] == messages


def test_parts_of_a_message_are_put_together_and_developers_are_the_system() -> None:
    parts = [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}]
    (message,) = read_prompt(json.dumps([{"role": "developer", "content": parts}]), "taken").draft.messages
    assert (message.role, message.content) == ("system", "Be kind.")


def test_a_chat_prompt_of_langchain_is_taken_with_its_variables() -> None:
    made = ChatPromptTemplate.from_messages(
        [SystemMessage("Never {change}"), ("system", "Be {{kind}} to {who}"), ("human", "{q}"), ("ai", "x")]
    )
    prompt = read_prompt(dumps(made), "taken").draft
    assert [(each.role, each.content) for each in prompt.messages] == [
        ("system", "Never {change}"),
        ("system", "Be {kind} to {{who}}"),
        ("user", "{{q}}"),
        ("assistant", "x"),
    ]
    assert prompt.variables == ("who", "q")


@pytest.mark.parametrize("template_format", ["f-string", "mustache"])
def test_a_string_prompt_of_langchain_is_a_message_of_the_user(template_format: Any) -> None:
    text = "Tell me of {a}" if template_format == "f-string" else "Tell me of {{a}}"
    made = StringPrompt.from_template(text, template_format=template_format)
    (message,) = read_prompt(dumps(made), "taken").draft.messages
    assert (message.role, message.content) == ("user", "Tell me of {{a}}")


def test_a_file_that_langchain_saved_in_its_older_form_is_read() -> None:
    told = {"_type": "prompt", "input_variables": ["a"], "template": "Tell me of {a}"}
    assert read_prompt(json.dumps(told), "taken").draft.variables == ("a",)


def test_plain_text_is_one_message_or_several_under_headings() -> None:
    assert read_prompt("Say hello to {{who}}.\n## user\n", "taken").draft.messages[0].content.endswith("## user\n")
    prompt = read_prompt("## system\nBe kind.\n## user\n\nHello {{who}}!\n## assistant\n", "taken").draft
    assert [(each.role, each.content) for each in prompt.messages] == [
        ("system", "Be kind."),
        ("user", "\nHello {{who}}!"),
        ("assistant", ""),
    ]


def chat(*messages: Any, **told: Any) -> str:
    return dumps(ChatPromptTemplate.from_messages(list(messages), **told))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (chat(MessagesPlaceholder("history")), "Messages of type MessagesPlaceholder"),
        (chat(("human", "{Who}")), "The variable {Who} cannot be imported"),
        (chat(("human", "{a:>10}")), "The variable {a:>10}"),
        (chat(("human", "{{{{who}}}}")), "Text in double braces cannot be imported: it would become a variable"),
        (dumps(ChatPromptTemplate.from_messages([HumanMessage("{{who}}")])), "would become a variable"),
        (dumps(ChatPromptTemplate.from_messages([AIMessage([{"type": "image"}])])), "AIMessage cannot"),  # type: ignore[list-item]
        (chat(("human", "{{#a}}x{{/a}}"), template_format="mustache"), "if they contain more than variables"),
        (dumps(StringPrompt.from_template("{a} {b}").partial(a="x")), "Partial variables"),
        (
            '{"lc": 1, "type": "constructor", "id": ["langchain", "x", "Run"], "kwargs": {}}',
            ": Run; it must be the `dumps`",
        ),
        ('{"lc": 1}', "This file cannot be imported: it must have"),
        ("{}", "This file cannot be imported: it must have"),
        ("3", "This file cannot be imported: it must have"),
        ("[]", "OpenAI messages must be a non-empty list"),
        (" \n", "must not be empty"),
        ("[3]", "Message 1 cannot be imported: it must be text with a role of"),
        ('[{"role": "tool", "content": "x"}]', "Message 1 cannot be imported"),
        ('[{"role": "user"}]', "Message 1 cannot be imported"),
        ('{"messages": [{"role": "user", "content": [{"type": "image"}]}]}', "Message 1 cannot be imported"),
        ('[{"role": "user", "content": "\\ud800"}]', "must not contain lone surrogates"),
    ],
)
def test_what_has_no_like_here_is_refused_by_name(text: str, told: str) -> None:
    with pytest.raises(PromptTemplateError) as caught:
        read_prompt(text, "taken")
    assert told in str(caught.value)


@pytest.mark.parametrize("form", ["langchain", "openai"])
def test_a_form_that_it_does_not_have_is_refused(form: Format) -> None:
    with pytest.raises(PromptTemplateError, match="must be valid JSON"):
        read_prompt("Hello!", "taken", form=form)
    assert read_prompt("[]", "taken", form="text").draft.messages[0].content == "[]"


def test_a_broken_json_file_is_no_text() -> None:
    with pytest.raises(PromptTemplateError, match=r"must be valid JSON: .*line 2 column 1"):
        read_prompt('[{"role": "user",\n', "taken", file="chat.JSON")
    assert read_prompt("[a list]", "taken", file="chat.txt").draft.messages[0].content == "[a list]"
    assert read_prompt("[a list]", "taken", file="chat.json", form="text").draft.messages[0].content == "[a list]"


def test_lines_of_several_requests_are_no_text() -> None:
    line = json.dumps({"messages": [PRAISE]})
    assert len(read_prompt(f"{line}\n", "taken", file="a.jsonl").draft.messages) == 1
    with pytest.raises(PromptTemplateError, match="must be valid JSON: Extra data: line 2"):
        read_prompt(f"{line}\n{line}\n", "taken", file="a.jsonl")


def test_yaml_is_read_like_json() -> None:
    messages = "- role: system\n  content: Be kind.\n- role: user\n  content: Praise {{who}}.\n"
    for text in (messages, f"temperature: 0.5\nmessages:\n{messages}"):
        imported = read_prompt(text, "taken", file="praise.yaml").draft
        assert [one.role for one in imported.messages] == ["system", "user"]
        assert imported.variables == ("who",)
    for text, problem in (
        ("[a", "must be valid YAML"),
        ("Praise me.", "This file cannot be imported: it must have"),
        ("variables: [who]\nmessages: []\n", "`ragsmith prompts new NAME --file FILE` reads it"),
    ):
        with pytest.raises(PromptTemplateError, match=problem):
            read_prompt(text, "taken", file="praise.yml")


def outcome(text: str) -> str:
    try:
        return read_prompt(text, "taken").draft.name
    except PromptTemplateError as error:
        return str(error)


@given(text=st.one_of(st.text(), st.recursive(st.none() | st.text(), st.lists).map(json.dumps)))
def test_any_text_is_taken_or_refused_in_one_line(text: str) -> None:
    assert "\n" not in outcome(text)


# What comes with a request


def test_a_request_brings_its_settings_and_the_rest_is_named() -> None:
    schema = {"type": "object", "properties": {"total": {"type": "number"}}}
    body = {
        "model": "gpt-5-mini",
        "messages": [{"role": "user", "content": "Add up {{bill}}."}],
        "temperature": 0,
        "top_p": None,
        "max_completion_tokens": 90,
        "stop": "END",
        "seed": 11,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "bill", "schema": schema, "strict": True},
        },
        "logit_bias": {},
        "stream": False,
    }
    imported = read_prompt(json.dumps(body), "taken")
    assert imported.draft.settings.given == {
        "temperature": 0.0,
        "max_tokens": 90,
        "stop": ["END"],
        "seed": 11,
        "json_schema": schema,
    }
    assert imported.left_out == ("model", "logit_bias", "stream")
    assert imported.note == "Left out, because a prompt has no such setting: model, logit_bias, stream."
    loose = {"messages": body["messages"], "response_format": {"type": "json_object"}, "stop": ["a", "b"]}
    assert read_prompt(json.dumps(loose), "taken").draft.settings.given == {
        "stop": ["a", "b"],
        "json_schema": {"type": "object"},
    }
    assert read_prompt(json.dumps(body["messages"]), "taken").left_out == ()


PRAISE = {"role": "user", "content": "Praise {{who}}."}
SCHEMA = {"type": "object", "properties": {"praise": {"type": "string"}}}


@pytest.mark.parametrize(
    ("body", "settings"),
    [
        # A line of a batch file.
        (
            {"custom_id": "7", "url": "/v1/chat/completions", "body": {"messages": [PRAISE], "temperature": 0.2}},
            {"temperature": 0.2},
        ),
        # The Responses API.
        (
            {
                "input": [{"role": "user", "content": [{"type": "input_text", "text": "Praise {{who}}."}]}],
                "max_output_tokens": 60,
                "text": {"format": {"type": "json_schema", "name": "praise", "schema": SCHEMA}},
            },
            {"max_tokens": 60, "json_schema": SCHEMA},
        ),
        ({"input": "Praise {{who}}.", "text": {"verbosity": "low"}, "top_p": 0.5}, {"top_p": 0.5}),
        # Ollama.
        (
            {
                "messages": [PRAISE],
                "options": {"temperature": 0.3, "num_predict": 70, "repeat_penalty": 1.1},
                "format": SCHEMA,
            },
            {"temperature": 0.3, "max_tokens": 70, "repetition_penalty": 1.1, "json_schema": SCHEMA},
        ),
        ({"prompt": "Praise {{who}}.", "model": None, "options": {"seed": 3}}, {"seed": 3}),
        # Langfuse.
        (
            {"type": "chat", "name": "praise", "prompt": [PRAISE], "config": {"temperature": 0.4}, "labels": []},
            {"temperature": 0.4},
        ),
        ({"type": "text", "prompt": "Praise {{who}}.", "config": {}, "version": 3}, {}),
        # Anthropic.
        (
            {"messages": [PRAISE], "max_tokens": 60, "stop_sequences": ["END"]},
            {"max_tokens": 60, "stop": ["END"]},
        ),
        # A request of OpenAI's client to vLLM.
        ({"messages": [PRAISE], "extra_body": {"top_k": 5}, "temperature": 1}, {"top_k": 5, "temperature": 1.0}),
    ],
    ids=["batch", "responses", "input", "ollama", "generate", "langfuse", "text", "anthropic", "extra_body"],
)
def test_requests_of_other_kinds_bring_the_same(body: dict[str, Any], settings: dict[str, Any]) -> None:
    imported = read_prompt(json.dumps(body), "taken")
    assert [(one.role, one.content) for one in imported.draft.messages] == [("user", "Praise {{who}}.")]
    assert (imported.draft.settings.given, imported.left_out) == (settings, ())


@pytest.mark.parametrize(
    "own",
    [
        {"instructions": "Be kind.", "input": [PRAISE]},
        {"system": "Be kind.", "messages": [PRAISE]},
        {"system": [{"type": "text", "text": "Be kind.", "cache_control": {}}], "messages": [PRAISE]},
    ],
)
def test_the_instructions_of_a_request_are_a_system_message(own: dict[str, Any]) -> None:
    body = {**own, "model": "gpt-5", "options": "none"}
    imported = read_prompt(json.dumps(body), "taken")
    assert [(one.role, one.content) for one in imported.draft.messages] == [
        ("system", "Be kind."),
        ("user", "Praise {{who}}."),
    ]
    assert imported.left_out == ("model", "options")


@pytest.mark.parametrize(
    "wrong", [{"temperature": 7}, {"stop": 3}, {"response_format": "json"}, {"max_tokens": 0}]
)
def test_a_setting_of_a_request_that_is_out_of_range_is_refused_by_name(wrong: dict[str, Any]) -> None:
    body = {"messages": [{"role": "user", "content": "Hello!"}], **wrong}
    name = "json_schema" if "response_format" in wrong else next(iter(wrong))
    with pytest.raises(PromptTemplateError, match=f"The prompt taken cannot be imported: {name}"):
        read_prompt(json.dumps(body), "taken")


@pytest.mark.parametrize("form", ["openai", "langchain", "text"])
def test_a_byte_order_mark_is_no_part_of_a_prompt(form: Format) -> None:
    exported = write_prompt_as(template(), form)
    assert read_prompt(f"\ufeff{exported}", "taken").draft.messages == template().messages
