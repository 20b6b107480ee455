"""The library of prompts in a real browser, with the real app behind it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Open, ask, settle, wait_for_answers
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Locator, Page, Route, expect

from prompts import PromptLibrary, PromptTemplate
from prompts.files import as_draft, parse_draft
from rag.errors import PromptError
from rag.settings import Settings
from ui.app.app import App, open_app
from ui.pages.prompts.draft_settings import FIELDS, field_text, field_value, settings_in, with_settings
from ui.pages.prompts.prompt_listing import PromptListing
from ui.pages.prompts.prompts_view import changes_html, head_html, template_html

QUESTION = "What does the Stop button do?"
NASTY = "<img src=x onerror=\"document.title='owned'\"> </textarea><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def app(handbook_home: Path) -> Iterator[App]:
    made = open_app(Settings(home=handbook_home, tracking={"wandb": "off"}))
    yield made
    made.close()


@pytest.fixture
def page(open_page: Open) -> Page:
    return prompts_tab(open_page())


def prompts_tab(page: Page) -> Page:
    page.get_by_role("tab", name="Prompts").click()
    expect(page.locator("#prompt-template-pane .rs-message").first).to_be_visible()
    return page


def reload(page: Page) -> None:
    settle(page)
    page.reload()


def choose(page: Page, name: str) -> None:
    page.locator(f'.rs-prompt[data-value="{name}"]').click()
    expect(page.locator("#prompt-head h2")).to_contain_text(f"{name}@")


def head(page: Page) -> Locator:
    return page.locator("#prompt-head h2")


def pane(page: Page, name: str) -> None:
    page.locator("#prompt-panes").get_by_role("tab", name=name).click()


def draft(page: Page) -> Locator:
    return page.locator("#prompt-text textarea")


def begin(page: Page) -> str:
    """Open the editor; returns the draft."""
    page.locator("#prompt-edit").click()
    expect(page.locator("#prompt-verdict")).to_contain_text("This can be saved")
    settle(page)
    return draft(page).input_value()


def save(page: Page, why: str) -> None:
    settle(page)
    page.locator("#prompt-review").click()
    page.locator("#prompt-why").locator("textarea, input").fill(why)
    page.locator("#prompt-save").click()
    expect(page.locator("#prompt-view")).to_be_visible()


def make(app: App, name: str, count: int = 1) -> list[PromptTemplate]:
    """Versions of a prompt of a test's own."""
    base = app.stores.prompts.load("answer@1").model_copy(update={"name": name})
    made = []
    for number in range(1, count + 1):
        settings = base.settings.model_copy(update={"temperature": number / 10})
        made.append(
            app.stores.prompts.save(
                base.model_copy(update={"settings": settings}), by="ida", message=f"no. {number}"
            )
        )
    return made


def make_and_open(open_page: Open, app: App, name: str, count: int = 1) -> Page:
    """A page that shows the newest of these versions."""
    make(app, name, count)
    page = prompts_tab(open_page())
    choose(page, name)
    return page


def test_a_version_is_changed_saved_put_into_production_and_taken_back(page: Page, app: App) -> None:
    choose(page, "answer")
    expect(head(page)).to_have_text("answer@1")
    text = begin(page)
    draft(page).fill(text.replace("in one to four sentences", "in one sentence"))
    page.locator("#prompt-style").locator("input").click()
    page.get_by_role("option", name="sentence").click()
    page.locator("#prompt-temperature").locator("textarea, input").fill("0.25")
    page.locator("#prompt-review").click()
    changes = page.locator("#prompt-changes")
    expect(changes.locator("del", has_text="to four sentences").first).to_be_visible()
    expect(changes.locator("h3", has_text="settings temperature")).to_be_visible()
    expect(changes.locator("h3", has_text="settings style")).to_be_visible()
    page.locator("#prompt-why").locator("textarea, input").fill("Shorter answers")
    page.locator("#prompt-save").click()
    expect(head(page)).to_have_text("answer@2")
    newest = page.locator(".rs-point").first
    expect(newest).to_contain_text("v2")
    expect(newest).to_contain_text("Shorter answers")
    saved = app.stores.prompts.load("answer@2")
    assert saved.settings.given == {"temperature": 0.25, "style": "sentence"}
    assert "in one sentence, in the language" in saved.messages[0].content

    for answered, (version, why) in enumerate(((2, "try it"), (1, "roll back")), 1):
        page.locator(f'.rs-point[data-value="{version}"]').click()
        expect(head(page)).to_have_text(f"answer@{version}")
        settle(page)
        if app.stores.prompts.labels("answer")["production"] != version:
            page.locator("#prompt-to-production").click()
            expect(page.locator("#prompt-move-notice")).to_contain_text("The chat answers with it")
            page.locator("#prompt-reason").locator("textarea, input").fill(why)
            page.locator("#prompt-move-it").click()
        expect(page.locator("#prompt-head .is-production")).to_be_visible()
        expect(page.locator(f'.rs-point[data-value="{version}"] .is-production')).to_be_visible()
        page.get_by_role("tab", name="Chat").click()
        ask(page, QUESTION)
        wait_for_answers(page, answered)
        expect(page.locator(".rs-foot").last).to_contain_text(f"answer@{version}")
        page.get_by_role("tab", name="Prompts").click()
    pane(page, "History")
    expect(page.locator("#prompt-history-pane tbody tr").first).to_contain_text("roll back")
    pane(page, "Metrics")
    expect(page.locator("#prompt-metrics-pane tbody tr")).to_have_count(2)
    pane(page, "Used by")
    page.locator("#prompt-used-pane .rs-open-trace").first.click()
    expect(page.locator(".rs-trace-q")).to_have_text(QUESTION)


def test_a_malformed_draft_is_told_and_loses_nothing(open_page: Open, app: App) -> None:
    page = make_and_open(open_page, app, "malformed")
    text = begin(page)
    for broken, told in (
        ("messages: [\n" + text, "must be valid YAML"),
        (text.replace("description:", "descripton:"), "unknown field `descripton` (did you mean `description`?)"),
        (text.replace("settings:\n", "settings:\n  temperature: 9\n"), "temperature"),
        (text + "\nsettings:\n  seed: 5\n", "the key `settings` is already on line"),
        (text.replace("{{question}}", "{{query}}"), "used but not declared: query"),
    ):
        draft(page).fill(broken)
        expect(page.locator("#prompt-verdict .is-bad")).to_contain_text(told)
        page.locator("#prompt-review").click()
        expect(draft(page)).to_have_value(broken)
    assert app.stores.prompts.versions("malformed") == [1]
    # Neither loading the page anew nor closing the editor takes it away.
    reload(page)
    page.get_by_role("tab", name="Prompts").click()
    expect(draft(page)).to_have_value(broken)
    page.locator("#prompt-close").click()
    expect(page.locator("#prompt-bar")).to_contain_text("unsaved draft, begun from malformed@1")
    page.locator("#prompt-bar button", has_text="Continue").click()
    expect(draft(page)).to_have_value(broken)
    page.locator("#prompt-discard").click()
    expect(page.locator("#prompt-view")).to_be_visible()
    expect(page.locator("#prompt-bar")).not_to_contain_text("unsaved")


def test_a_pane_that_is_opened_while_a_version_is_being_fetched_shows_that_version(
    open_page: Open, app: App
) -> None:
    page = make_and_open(open_page, app, "quick", 2)
    settle(page)
    held: list[Route] = []
    page.route("**/queue/join*", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/queue/join*"):
        page.locator('.rs-point[data-value="1"]').click()
    pane(page, "Settings")
    expect(page.locator("#prompt-settings-pane")).to_contain_text("0.2")
    held[0].continue_()
    expect(head(page)).to_have_text("quick@1")
    expect(page.locator("#prompt-settings-pane")).to_contain_text("0.1")
    page.wait_for_url("**prompt=quick@1&pane=settings*")


def test_a_review_that_answers_late_leaves_what_was_typed_meanwhile(open_page: Open, app: App) -> None:
    page = make_and_open(open_page, app, "late")
    text = begin(page)
    draft(page).fill("messages: [\n" + text)
    expect(page.locator("#prompt-verdict .is-bad")).to_contain_text("must be valid YAML")
    held: list[Route] = []
    page.route("**/queue/join*", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/queue/join*"):
        page.locator("#prompt-review").click()
    typed = text.replace("description:", "descripton:")
    draft(page).fill(typed)
    expect(page.locator("#prompt-verdict .is-bad")).to_contain_text("unknown field `descripton`")
    held[0].continue_()
    expect(page.locator(".toast-body")).to_contain_text("must be valid YAML")
    settle(page)
    expect(page.locator("#prompt-verdict .is-bad")).to_contain_text("unknown field `descripton`")
    expect(draft(page)).to_have_value(typed)
    page.locator("#prompt-discard").click()


def test_fields_that_are_changed_at_once_are_all_kept(open_page: Open, app: App) -> None:
    page = make_and_open(open_page, app, "hurried")
    begin(page)
    held: list[Route] = []
    page.route("**/queue/join*", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/queue/join*"):
        page.locator("#prompt-max_tokens").locator("textarea, input").fill("77")
    page.locator("#prompt-seed").locator("textarea, input").fill("5")
    # The first change is kept waiting, so its event does not end.
    page.wait_for_timeout(600)
    held[0].continue_()
    settle(page)
    text = "document.querySelector('#prompt-text textarea').value"
    page.wait_for_function(f"['max_tokens: 77', 'seed: 5'].every(line => {text}.includes(line))")
    page.locator("#prompt-discard").click()


def test_fields_and_draft_follow_each_other(page: Page) -> None:
    choose(page, "answer-short")
    begin(page)
    field = page.locator("#prompt-max_tokens").locator("textarea, input")
    field.fill("77")
    page.wait_for_function("document.querySelector('#prompt-text textarea').value.includes('max_tokens: 77')")
    page.locator("#prompt-stop textarea").fill(r"\n\n")
    page.wait_for_function("document.querySelector('#prompt-text textarea').value.includes('stop:')")
    text = draft(page).input_value()
    assert settings_in(text) == {"max_tokens": 77, "stop": ["\n\n"], "style": "brief"}
    draft(page).fill(text.replace("77", "78"))
    expect(field).to_have_value("78")
    field.fill("-3")
    expect(page.locator("#prompt-verdict .is-bad")).to_contain_text("max_tokens")
    field.fill("")
    expect(page.locator("#prompt-verdict .is-good")).to_be_visible()
    assert "max_tokens" not in draft(page).input_value()
    page.locator("#prompt-discard").click()


def test_mark_up_is_shown_as_text(open_page: Open, app: App) -> None:
    base = app.stores.prompts.load("answer-short@1")
    message = base.messages[0].model_copy(update={"content": base.messages[0].content + NASTY})
    made = base.model_copy(
        update={"name": "nasty", "messages": (message, *base.messages[1:]), "description": NASTY}
    )
    app.stores.prompts.save(made, by=NASTY, message=NASTY)
    page = prompts_tab(open_page())
    choose(page, "nasty")
    expect(page.locator("#prompt-template-pane")).to_contain_text(NASTY)
    expect(page.locator(".rs-point").first).to_contain_text(NASTY)
    for name in ("Settings", "Compare", "History", "Metrics", "Used by"):
        pane(page, name)
    assert NASTY in begin(page)
    draft(page).fill(draft(page).input_value().replace("owned", "mine"))
    page.locator("#prompt-review").click()
    expect(page.locator("#prompt-changes ins").first).to_be_visible()
    page.locator("#prompt-back").click()
    page.locator("#prompt-discard").click()
    assert page.title() == "ragsmith"
    assert page.locator("#prompts img").count() == 0


def test_two_saves_at_once_are_both_kept(open_page: Open, app: App) -> None:
    make(app, "twice")
    first, second = prompts_tab(open_page()), prompts_tab(open_page(locale="de-DE"))
    for each, words in ((first, "one sentence"), (second, "two sentences")):
        choose(each, "twice")
        text = begin(each)
        draft(each).fill(text.replace("one to four sentences", words))
    save(first, "first")
    settle(second)
    second.locator("#prompt-review").click()
    expect(second.locator("#prompt-changes .rs-warn")).to_contain_text("Saved since you began: v2")
    second.locator("#prompt-why").locator("textarea, input").fill("second")
    second.locator("#prompt-save").click()
    expect(head(second)).to_have_text("twice@3")
    assert [app.stores.prompts.load(f"twice@{each}").saved.message for each in (2, 3)] == ["first", "second"]  # type: ignore[union-attr]
    assert "two sentences" in app.stores.prompts.load("twice@3").messages[0].content
    assert "in one sentence" in app.stores.prompts.load("twice@2").messages[0].content


def test_the_address_names_what_is_shown(page: Page, app: App, address: str) -> None:
    make(app, "linked", 3)
    settle(page)
    page.goto(f"{address}/?tab=prompts&prompt=linked@2&pane=compare&with=linked@3")
    expect(head(page)).to_have_text("linked@2")
    expect(page.locator("#prompt-compare-pane .rs-legend")).to_contain_text(
        "− only in linked@2 + only in linked@3"
    )
    pane(page, "Settings")
    expect(page.locator("#prompt-settings-pane")).to_contain_text("0.2")
    page.wait_for_url("**pane=settings*")
    settle(page)
    page.get_by_role("tab", name="Chat").click()
    expect(page).not_to_have_url(re.compile("prompt="))
    page.get_by_role("tab", name="Prompts").click()
    page.wait_for_url("**prompt=linked@2&pane=settings*")
    reload(page)
    expect(head(page)).to_have_text("linked@2")
    expect(page.locator("#prompt-settings-pane")).to_contain_text("0.2")
    settle(page)
    page.goto(f"{address}/?tab=prompts&prompt=nobody@2")
    expect(head(page)).to_contain_text("answer@")
    settle(page)


def test_another_label_is_set_and_taken_away(open_page: Open, app: App) -> None:
    page = make_and_open(open_page, app, "labelled", 2)
    page.locator("#prompt-to-label").click()
    expect(page.locator("#prompt-move-it")).to_have_text("Move staging to v2")
    page.locator("#prompt-move-it").click()
    expect(page.locator("#prompt-head .rs-chip", has_text="staging")).to_be_visible()
    assert app.stores.prompts.labels("labelled") == {"production": 1, "staging": 2}
    page.locator("#prompt-to-label").click()
    expect(page.locator("#prompt-move-notice")).to_contain_text("it is here already")
    page.locator("#prompt-remove-it").click()
    expect(page.locator("#prompt-head .rs-chip", has_text="staging")).to_have_count(0)
    assert app.stores.prompts.labels("labelled") == {"production": 1}


def test_production_is_not_offered_to_a_version_that_the_chat_cannot_fill(open_page: Open, app: App) -> None:
    broken = app.stores.prompts.load("answer@1").model_dump()
    broken["messages"][-1]["content"] += " For {{audience}} and {{theirBoss}}."
    broken["variables"] = [*broken["variables"], "audience"]
    library = app.stores.prompts
    saved = library.save(PromptTemplate.model_validate(broken), by="ida", message="for whom")
    page = prompts_tab(open_page())
    choose(page, "answer")
    page.locator(f'.rs-point[data-value="{saved.version}"]').click()
    expect(head(page)).to_have_text(saved.label)
    begin(page)
    warnings = page.locator("#prompt-verdict .rs-warn")
    expect(warnings.nth(0)).to_contain_text("{{theirBoss}} looks like a variable")
    expect(warnings.nth(1)).to_contain_text("no value for its variable audience")
    page.locator("#prompt-discard").click()
    page.locator("#prompt-to-production").click()
    expect(page.locator("#prompt-move-notice")).to_contain_text(f"cannot fill the prompt {saved.label}")
    expect(page.locator("#prompt-move-it")).to_be_disabled()


def test_a_version_is_archived_where_nothing_depends_on_it(open_page: Open, app: App) -> None:
    page = make_and_open(open_page, app, "stale", 2)
    page.locator('.rs-point[data-value="1"]').click()
    expect(head(page)).to_have_text("stale@1")
    page.locator("#prompt-archive").click()
    expect(page.locator(".toast-body")).to_contain_text("the label production names it")
    page.locator('.rs-point[data-value="2"]').click()
    expect(head(page)).to_have_text("stale@2")
    page.locator("#prompt-archive").click()
    expect(head(page)).to_have_text("stale@1")
    expect(page.locator(".rs-point")).to_have_count(1)
    assert app.stores.prompts.versions("stale") == [1]


def test_a_prompt_of_another_program_is_taken_over_and_given_back(page: Page, app: App) -> None:
    page.locator("#prompt-begin-new").click()
    page.locator("#prompt-name").locator("textarea, input").fill("from-openai")
    page.locator("#prompt-import").get_by_role("button").first.click()
    page.locator("#prompt-foreign textarea").fill('[{"role": "user", "content": "Say it: {{question}}"}]')
    page.locator("#prompt-take").click()
    page.wait_for_function("document.querySelector('#prompt-text textarea').value.includes('Say it')")
    save(page, "taken over")
    expect(head(page)).to_have_text("from-openai@1")
    assert app.stores.prompts.load("from-openai@1").messages[0].content == "Say it: {{question}}"
    page.locator("#prompt-template-pane summary", has_text="Export").click()
    with page.expect_download() as download:
        page.locator("a[download='from-openai-1-openai.json']").click()
    assert "Say it: {{question}}" in Path(download.value.path()).read_text()


def test_a_thousand_versions_stay_fluid(open_page: Open, app: App) -> None:
    (made,) = make(app, "many")
    folder = app.workspace.prompts / "many"
    text = (folder / "1.yaml").read_text(encoding="utf-8")
    for number in range(2, 1001):
        told = text.replace("version: 1\n", f"version: {number}\n").replace("no. 1", f"no. {number}")
        (folder / f"{number}.yaml").write_text(told, encoding="utf-8")
    assert app.stores.prompts.load("many@1000").sha256 == made.sha256
    page = prompts_tab(open_page())
    choose(page, "many")
    expect(page.locator(".rs-point")).to_have_count(60)
    expect(page.locator("#prompt-points .rs-count")).to_contain_text("60 of 1,000")
    page.locator(".rs-more").click()
    expect(page.locator(".rs-point")).to_have_count(120)
    page.locator("#prompt-filter").locator("textarea, input").fill("no. 77")
    expect(page.locator(".rs-point")).to_have_count(11)
    expect(page.locator("#prompt-points .rs-count")).to_contain_text("11 of 11 that match, of 1,000")


# Without a browser.

TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30)
VALUES = {
    "number": st.one_of(st.integers(0, 99), st.floats(0.01, 1)),
    "choice": st.sampled_from(["brief", "none"]),
    "text": st.sampled_from(["citer", "a folder/x"]),
    "lines": st.lists(
        st.text("ab\\n\n\t #:", min_size=1, max_size=5).filter(lambda text: text.strip(" ")), min_size=1
    ),
    "json": st.dictionaries(TEXTS, st.one_of(TEXTS, st.integers(), st.lists(TEXTS)), min_size=1),
}


@given(st.data())
def test_a_field_changes_its_setting_and_nothing_else(data: st.DataObject) -> None:
    text = data.draw(
        st.sampled_from(
            [
                "# top\na: 1\nsettings: # why\n  temperature: 0.5\n  stop: [x]\n\n# below\nb: |\n  # no comment\n",
                "a: 1\nsettings: {seed: 3}\nb: 2",
                "{a: 1, b: 2}",
                "a: &x 1\nb: 2",
                "b: 1\na: 2\nsettings:\n  json_schema:\n    t: |\n      x\n\n",
            ]
        )
    )
    import yaml

    before = yaml.safe_load(text)
    field = data.draw(st.sampled_from(FIELDS))
    value = data.draw(st.one_of(st.none(), VALUES[field.kind]))
    after = with_settings(text, {field.name: value})
    told = settings_in(after) or {}
    assert told.get(field.name) == value
    rest = {name: each for name, each in (before.get("settings") or {}).items() if name != field.name}
    assert {name: each for name, each in told.items() if name != field.name} == rest
    assert [yaml.safe_load(after).get(name) for name in "ab"] == [before.get(name) for name in "ab"]
    assert field_value(field, field_text(field, told)) == value
    if "# top" in text:
        assert after.startswith("# top\n")
        assert "# below\nb: |\n  # no comment\n" in after


def test_a_draft_that_cannot_be_read_is_not_written_into() -> None:
    for text in ("a: [", "- a\n", "settings: 3\n", "a: &x 1\nb: *x", "a: 2024-13-45"):
        assert settings_in(text) is None
        with pytest.raises(PromptError, match="must be readable"):
            with_settings(text, {"seed": 1})


def test_every_setting_has_a_field() -> None:
    from prompts import PromptSettings

    assert {field.name for field in FIELDS} == set(PromptSettings.model_fields)


def test_every_prompt_that_ships_can_be_shown_and_drafted() -> None:
    library = PromptLibrary()
    listing = PromptListing(library, Path("nowhere"))
    for entry in listing.entries():
        prompt = listing.load(f"{entry.name}@{entry.newest}")
        assert prompt.label in head_html(prompt, ("production",), ships=True)
        shown_as = template_html(prompt, listing.exports(prompt.label))
        assert all(f"{name}" in shown_as for name in prompt.variables)
        assert parse_draft(as_draft(prompt), prompt.name, 1).sha256 == prompt.sha256
        assert listing.version_page(entry.name, "built-in", 9).versions[0].ships


def test_a_version_that_was_changed_is_listed_with_what_is_wrong(tmp_path: Path) -> None:
    library = PromptLibrary(tmp_path)
    made = library.save(library.load("answer@1").model_copy(update={"name": "spoiled"}), by="ida", message="one")
    path = tmp_path / "spoiled" / f"{made.version}.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("one to four", "five"), encoding="utf-8")
    (version,) = PromptListing(library, tmp_path).version_page("spoiled", "", 9).versions
    assert "has changed since it was saved" in version.error


@given(TEXTS, TEXTS)
def test_the_difference_shows_both_texts(old: str, new: str) -> None:
    from html import unescape

    from prompts.diff import Change, words

    html = changes_html((Change("description", old, new, words(old, new)),), "a@1", "a@2")
    shown_as = unescape(html.split('<div class="rs-content">')[1])
    assert all(piece.text in shown_as for piece in words(old, new))
