"""The pages against the repository and the command line: links, paths, command lines; no command is missing."""

import ast
import re
import runpy
import shlex
from pathlib import Path

import click
import pytest

from orchestrator.cli import main
from tests.support.commands import CONTEXT, LEAVES
from tests.support.images import make_class_folders

ROOT = Path(__file__).parents[1]
PAGES = [
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md", "deploy/README.md")
    ),
    *sorted((ROOT / "docs").glob("*.md")),
]

_FENCE = re.compile(r"^```(?:sh|console|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )*pigeonhole [^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_SHELL = ("|", ">", "&&", ";", "&")
_QUOTED = re.compile(r"`([^`\n]+)`")
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FOLDERS = (
    "benchmarks",
    "contract",
    "deploy",
    "docs",
    "examples",
    "modeling",
    "orchestrator",
    "pigeonhole",
    "tests",
    "workers",
)
_PATH = re.compile(rf"(?:{'|'.join(_FOLDERS)})/[\w./-]*")
_FILE = re.compile(r"\w+\.(?:py|lua)")
_PACKAGES = ("benchmarks", "modeling", "orchestrator", "tests", "workers")
_DOTTED = re.compile(rf"\b(?:{'|'.join(_PACKAGES)})(?:\.\w+)+")
_FILE_NAMES = {path.name for folder in _FOLDERS for path in (ROOT / folder).rglob("*.[pl]*")}


def command_lines(text: str) -> list[str]:
    """The calls of `pigeonhole` in a page: in backticks, and in blocks of shell after the prompt, if there is one."""
    lines = [match[1] for match in _INLINE.finditer(text)]
    for block in _FENCE.finditer(text):
        entered = re.findall(r"^\$ (.*)$", block[1], re.MULTILINE) if "$ " in block[1] else block[1].splitlines()
        lines += [line for line in entered if re.match(r"(?:[A-Z_]+=\S+ )*pigeonhole ", line)]
    return lines


def arguments_of(line: str) -> list[str]:
    """The words after `pigeonhole`, up to where the shell takes over or a comment begins."""
    words = shlex.split(line, comments=True)
    words = words[words.index("pigeonhole") + 1 :]
    ends = [index for index, word in enumerate(words) if word in _SHELL or "|" in word]
    return words[: ends[0]] if ends else words


def fault_of(line: str) -> str:
    """Why click would not take that command line; empty where it would. Nothing is run, and no value is looked at."""
    command: click.Command = main
    words = arguments_of(line)
    while isinstance(command, click.Group):
        if not words or words[0].startswith("-") or not words[0].islower():
            return ""  # `pigeonhole models ...` speaks of the group
        inner = command.get_command(CONTEXT, words[0])
        if inner is None:
            return f"no command {words[0]!r}"
        command, words = inner, words[1:]
    options = [option for option in command.params if isinstance(option, click.Option)]
    options.append(click.Option(["-h", "--help"], is_flag=True))
    known = {name: option for option in options for name in (*option.opts, *option.secondary_opts)}
    given = iter(words)
    for word in given:
        name = word.partition("=")[0]
        if name.startswith("-") and name != "-":
            if name not in known:
                return f"no option {name!r}"
            may_stand_alone = known[name].is_flag or known[name]._flag_needs_value  # --gateway [ADDRESS:PORT]
            if not may_stand_alone and "=" not in word and next(given, None) is None:
                return f"no value for {name!r}"
    return ""


def missing_paths(text: str) -> list[str]:
    """Paths and file names of the repository in backticks that do not exist; `contract/` is that of orchestrator."""
    words = [word for quoted in _QUOTED.findall(text) for word in quoted.split()]
    paths = [word for word in words if _PATH.fullmatch(word)]
    lost = [path for path in paths if not any((top / path).exists() for top in (ROOT, ROOT / "orchestrator"))]
    return lost + [word for word in words if _FILE.fullmatch(word) and word not in _FILE_NAMES]


def missing_names(text: str) -> list[str]:
    """Dotted names in backticks that are neither a module nor what a module defines."""
    names = [name for quoted in _QUOTED.findall(text) for name in _DOTTED.findall(quoted)]
    return [name for name in names if not _is_defined(name)]


def _is_defined(dotted: str) -> bool:
    place, parts = ROOT, dotted.split(".")
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    if not parts:
        return True
    module, door = place / f"{parts[0]}.py", place / "__init__.py"
    if len(parts) == 1 and door.exists() and f'"{parts[0]}": ' in door.read_text():
        return True  # a package's door names where it comes from
    return module.exists() and all(
        re.search(rf"^\s*(?:class|def) {name}\b|^{name}\b", module.read_text(), re.M) for name in parts[1:]
    )


def anchors_of(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(page.read_text()))
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    dead = []
    for target in _LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if not path.exists() or (anchor and anchor not in anchors_of(path)):
            dead.append(target)

    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_every_command_line_names_commands_and_options_that_exist(page: Path) -> None:
    faults = {line: fault for line in command_lines(page.read_text()) if (fault := fault_of(line))}

    assert faults == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_every_path_and_module_in_backticks_exists(page: Path) -> None:
    text = page.read_text()

    assert (missing_paths(text), missing_names(text)) == ([], [])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_every_import_of_a_snippet_is_of_something_that_exists(page: Path) -> None:
    trees = [ast.parse(block) for block in _PYTHON.findall(page.read_text())]
    imports = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = [f"{node.module}.{alias.name}" for node in imports for alias in node.names]

    assert [name for name in names if name.startswith(_PACKAGES) and not _is_defined(name)] == []


def test_contributing_names_every_target_of_the_makefile() -> None:
    makefile, page = (ROOT / "Makefile").read_text(), (ROOT / "CONTRIBUTING.md").read_text()
    targets = re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)

    assert [target for target in targets if f"`make {target}`" not in page] == []


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("`contract/jobs/parts.py` and `orchestrator/contract/jobs/parts.py`, `modeling/`", []),
        ("`contract/parts.py`, `parts.py`, and `lost.lua`", ["contract/parts.py", "lost.lua"]),
        ("`modeling.images.decode.decode_image` and `modeling.errors.ModelingError`", []),
        (
            "`python -m benchmarks.lost --num 3` and `modeling.errors.LostError`",
            ["benchmarks.lost", "modeling.errors.LostError"],
        ),
        ("`demo-output/glyphs` and `photos/train`, `job.json`", []),
    ],
)
def test_a_path_or_name_that_does_not_exist_is_found_out(text: str, missing: list[str]) -> None:
    assert missing_paths(text) + missing_names(text) == missing


@pytest.mark.parametrize("name", ["commands.md", "settings.md"])
def test_generated_pages_are_current(name: str) -> None:
    generator = runpy.run_path(str(ROOT / "docs" / "generate.py"))

    assert (ROOT / "docs" / name).read_text() == generator[f"{name.removesuffix('.md')}_page"](), "run `make docs`"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) < 700


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()

    assert [page.name for page in PAGES if page.parent.name == "docs" and f"({page.name})" not in index] == [
        "README.md"
    ]


def test_every_command_is_told_of() -> None:
    text = "\n".join(page.read_text() for page in PAGES)

    untold = [words for words in LEAVES if not re.search(rf"\bpigeonhole {words}\b", text)]

    assert untold == []


def test_every_picture_of_the_tutorial_is_shown_and_small_enough() -> None:
    shown = set(_LINK.findall((ROOT / "docs" / "tutorial.md").read_text()))
    sizes = {path: path.stat().st_size for path in (ROOT / "docs" / "tutorial").iterdir()}

    assert [path.name for path in sizes if f"tutorial/{path.name}" not in shown] == []
    assert [path.name for path, size in sizes.items() if size > 150_000] == []
    assert sum(sizes.values()) < 800_000


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("pigeonhole trian photos/ --name birds", "no command 'trian'"),
        ("pigeonhole models explian birds", "no command 'explian'"),
        ("pigeonhole train photos/ --nmae birds", "no option '--nmae'"),
        ("PIGEONHOLE_HOME=here pigeonhole train photos/ --name", "no value for '--name'"),
        ("pigeonhole train photos/ --max-error 1% --name=birds | tail -4  # a comment", ""),
        ("pigeonhole classify - --no-recursive --model birds", ""),
        ("pigeonhole models ...", ""),
    ],
)
def test_a_command_line_with_a_fault_is_found_out(line: str, fault: str) -> None:
    assert fault_of(line) == fault


def test_no_figure_is_left_to_be_filled_in():
    assert [path.name for path in PAGES if re.search(r"\{\{|@@", path.read_text())] == []


def test_the_library_page_does_what_it_shows(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "library.md").read_text(), re.MULTILINE | re.DOTALL)
    make_class_folders(tmp_path / "photos", 40)
    monkeypatch.chdir(tmp_path)

    exec(compile("\n".join(blocks), "docs/library.md", "exec"), {})  # noqa: S102 our own page

    said = capsys.readouterr().out
    assert "birds@2 " in said
    assert re.search(r"photos/down/003\.png \('down', 'across'\) \([01]\.\d+, [01]\.\d+\) (accept|review)", said)
    assert "not_an_image: " in said
    assert "missing: there is no file lost.png" in said
    assert (tmp_path / "birds.onnx").stat().st_size > 1000
    assert (tmp_path / "evaluated" / "report.html").is_file()
    assert list((tmp_path / "work" / "tensorboard").iterdir())
