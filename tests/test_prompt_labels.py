"""No label that ragsmith runs names a version that it cannot fill, and text that looks like a variable is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from terminal import assert_one_line, call
from test_prompts import template

from prompts import PromptLibrary, PromptTemplate, PromptTemplateError, find_prompt
from prompts.lookalikes import lookalikes, warning_of
from prompts.template import placeholders
from rag.answering.prompt_filling import FILLED, check_fillable, is_filled
from rag.errors import PromptError
from rag.settings import load_settings
from rag.workspace import Workspace
from ui.app.prompt_labels import PromptLabels
from ui.doctor.store_checks import check_prompts


@pytest.fixture
def labels(workspace: Workspace) -> PromptLabels:
    return PromptLabels(PromptLibrary(workspace.prompts), "answer")


def keep(labels: PromptLabels, name: str, old: str, new: str) -> PromptTemplate:
    """The shipped prompt as a person changed one text of it, with the variables that it then has."""
    shipped = find_prompt(name)
    messages = [one.model_copy(update={"content": one.content.replace(old, new)}) for one in shipped.messages]
    changes = {"messages": tuple(messages), "variables": placeholders(messages)}
    draft = shipped.model_copy(update=changes)
    return labels.library.save(draft, by="ida", message="a try")


def move(labels: PromptLabels, name: str, label: str, version: int | None) -> None:
    labels.move(name, label, version, by="ida", message="")


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("answer", "Question:", "Audience: {{audience}}. Question:", "no value for its variable audience"),
        ("answer", "{{passages}}", "", "it lacks the variable passages"),
        ("answer", "{{passages}}", "{{pasages}}", "no value for its variable pasages, and it lacks the variable"),
        (
            "condense",
            "{{history}}",
            "{{talk}}",
            "no value for its variable talk, and it lacks",
        ),
        ("judge-answer", "{{answer}}", "{{reply}}", "there is no value for its variable reply"),
    ],
)
def test_production_does_not_move_to_a_version_that_cannot_be_filled(
    labels: PromptLabels, name: str, old: str, new: str, told: str
) -> None:
    saved = keep(labels, name, old, new)
    assert told in " ".join(labels.warnings(saved))
    with pytest.raises(PromptError, match=told):
        move(labels, name, "production", saved.version)
    assert labels.library.labels(name) == {"production": 1}
    # Another label is for trying out, and the way back is open where production came to such a version before.
    move(labels, name, "staging", saved.version)
    labels.library.move(name, "production", saved.version, by="ida", message="with an older ragsmith")
    move(labels, name, "production", None)
    assert labels.library.find(name).version == 1


def test_the_label_in_the_settings_is_guarded_too(labels: PromptLabels) -> None:
    saved = keep(labels, "answer", "Question:", "{{tone}} Question:")
    live = PromptLabels(labels.library, "answer@live")
    with pytest.raises(PromptError, match="variable tone"):
        move(live, "answer", "live", saved.version)
    with pytest.raises(PromptError, match="variable tone"):
        move(live, "answer", "production", saved.version)
    assert not is_filled("answer-short", "answer@live")


def test_a_removed_label_does_not_lead_back_to_such_a_version(workspace: Workspace) -> None:
    labels = PromptLabels(PromptLibrary(workspace.prompts), "mine")
    base = find_prompt("answer").model_dump() | {"name": "mine"}
    labels.library.save(PromptTemplate.model_validate(base), by="ida", message="")
    labels.library.save(template(name="mine"), by="ida", message="")
    with pytest.raises(PromptError, match="cannot fill the prompt mine@2"):
        move(labels, "mine", "production", None)


def test_a_fragment_with_another_variable_cannot_be_filled() -> None:
    shipped = find_prompt("answer")
    changed = {**shipped.fragments, "passage": "[{{no}}] {{text}}"}
    with pytest.raises(PromptError, match=r"variable of the fragment passage no, .* passage number, place"):
        check_fillable(shipped.model_copy(update={"fragments": changed}))
    with pytest.raises(PromptError, match="it lacks the fragment refusal"):
        check_fillable(shipped.model_copy(update={"fragments": {"passage": changed["passage"]}}))


def test_what_ships_can_be_filled_and_has_nothing_that_looks_like_a_variable() -> None:
    library = PromptLibrary()
    for name in library.names():
        prompt = library.find(name)
        assert lookalikes(prompt) == ()
        if name in FILLED or "answer" in prompt.tags:
            check_fillable(prompt)


def test_the_doctor_names_a_version_that_runs_and_cannot_be_filled(
    labels: PromptLabels, workspace: Workspace
) -> None:
    settings = load_settings({"home": workspace.root})
    assert check_prompts(settings).detail.startswith("answer@1 answers")
    saved = keep(labels, "answer", "{{passages}}", "")
    labels.library.move("answer", "production", saved.version, by="ida", message="with an older ragsmith")
    found = check_prompts(settings)
    assert (found.ok, found.detail) == (
        False,
        "ragsmith cannot fill the prompt answer@2: it lacks the variable passages.",
    )
    assert check_prompts(load_settings({"home": workspace.root, "prompt": "answer@7"})).ok is False


def test_latest_is_always_the_newest_version(labels: PromptLabels, workspace: Workspace) -> None:
    assert_one_line(
        call(workspace.root, "prompts", "label", "answer", "latest", "1"), "The label latest is reserved"
    )
    keep(labels, "answer", "Question:", "The question:")
    assert labels.library.find("answer@latest").version == 2
    assert call(workspace.root, "prompts", "show", "answer@latest").stdout.startswith("name: answer\nversion: 2\n")
    with pytest.raises(PromptTemplateError, match="There is no prompt farewell@latest"):
        labels.library.find("farewell@latest")


def test_a_label_latest_of_an_older_ragsmith_is_not_listed(labels: PromptLabels, workspace: Workspace) -> None:
    keep(labels, "answer", "Question:", "The question:")
    path = workspace.prompts / "answer" / "labels.jsonl"
    path.write_text('{"label":"latest","version":1,"by":"ida","at":"2026-01-01T00:00:00Z","message":""}\n')
    assert labels.library.labels("answer") == {"production": 1}
    assert labels.library.find("answer@latest").version == 2


def prompt_with(text: str, variables: list[str]) -> PromptTemplate:
    return template(variables=variables, messages=[{"role": "user", "content": text}])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Dear {{firstName}}, {{ Subject }}: {{text}}", ["{{firstName}}", "{{ Subject }}"]),
        ("{{#each items}}{{text}}{{/each}} {{! note }} {{order.total | round}}", 4),
        ("{% if text %}{{text}}{% endif %}", ["{% if text %}", "{% endif %}"]),
        ("{{größe}} {{ text-3 }} {{text}}", ["{{größe}}", "{{ text-3 }}"]),
        ("Write {text} here: {{text}}", ["{text}"]),
        ("{{$json.text}} {{ @root.text }} {{=text}} {{text}}", 3),
        ('{{{text}}} {"a": {{text}}} { {{text}} and {{text}} }', ["{{{text}}}"]),
        # JSON, LaTeX, braces around a value, and names of nothing that the prompt has.
        ('{"reason": "…", "points": {"{{text}}": 1}} {{"a": 1}}', []),
        (r"\frac{text}{{{text}}} \textbf{{{text}}} {name} {{text}} {{> rules@1}}", []),
    ],
)
def test_what_looks_like_a_variable_is_named(text: str, found: list[str] | int) -> None:
    told = lookalikes(prompt_with(text, ["text"]))
    assert (len(told) if isinstance(found, int) else list(told)) == found


def test_a_prompt_without_variables_that_has_names_in_single_braces_is_told() -> None:
    found = lookalikes(prompt_with("Translate {text} to {language}.", []))
    assert warning_of(found) == (
        "{text}, {language} look like variables but are sent as written: a variable is {{name}}, of lower-case "
        "letters, digits and _."
    )
    assert warning_of([f"{{{{N{number}}}}}" for number in range(7)]).startswith(
        "{{N0}}, {{N1}}, {{N2}}, {{N3}}, {{N4}} and 2 more look"
    )


def test_the_command_saves_and_warns(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "greeting.yaml"
    file.write_text(
        "description: d\nvariables: [who]\nmessages:\n- role: user\n  content: '{{who}}, {{whoElse}}'\n"
    )
    saved = call(home, "prompts", "new", "greeting", "--file", file, "-m", "x")
    assert saved.stdout == "Saved greeting@1.\n"
    assert saved.stderr.startswith("Warning: {{whoElse}} looks like a variable but is sent as written")
