"""The direction of imports, read from the source: every import of every module, also inside functions.

Rooms are the entries of a package folder: its files and its subfolders. Nothing here imports what it reads.
"""

import ast
import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("modeling", "orchestrator", "workers")
CONTRACT = "orchestrator.contract"
# Each imports only what stands to its right.
MODELING_ROOMS = (
    "training", "explain", "exchange", "evaluation", "report", "inference", "data", "networks", "registry", "metrics",
    "images", "durable", "names", "errors",
)  # fmt: skip
ORCHESTRATOR_ROOMS = (
    "cli", "gateway", "hot_folder", "telegrams", "duplicates", "export", "diff", "sheets", "sorting", "jobs", "lines",
    "stack", "demo", "pages", "predict", "drawing", "fleet", "contract",
)  # fmt: skip
CONTRACT_ROOMS = ("jobs", "lines", "webhooks", "ledger")  # its subfolders; many of its files are below all of them
WORKERS_ROOMS = ("lines", "classify", "training", "finalize", "broker")  # its subfolders
MOST_ROOMS, LONGEST_CHAIN = 14, 8  # of modeling


@cache
def modules() -> dict[str, Path]:
    """Every module of ours by name; a package stands for its `__init__.py`."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in OURS
        for path in sorted((ROOT / package).rglob("*.py"))
    }


@cache
def imports(module: str, *, top_level_only: bool = False) -> frozenset[str]:
    """Names of all modules that a module imports; those of `if TYPE_CHECKING:` count unless only the top level does."""
    package = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
    return frozenset(name for node in _statements(parsed(module), top_level_only) for name in _imported(node, package))


@cache
def parsed(module: str) -> list[ast.stmt]:
    """The statements of a module."""
    path = modules()[module]
    return ast.parse(path.read_text(), str(path)).body


def _statements(body: list[ast.stmt], top_level_only: bool) -> Iterator[ast.AST]:
    for node in body:
        if top_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if top_level_only and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield from (node,) if top_level_only else ast.walk(node)
        if top_level_only:
            children = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
            yield from _statements(children, top_level_only)


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*above, node.module] if node.module else above) if node.level else node.module or ""
        yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def our_imports(module: str) -> set[str]:
    """The modules of ours that a module imports, itself left out."""
    return {ours for name in imports(module) if (ours := _module_of(name)) and ours != module}


def _module_of(name: str) -> str:
    """The module of ours that an imported name lies in; empty where there is none."""
    return name if not name or name in modules() else _module_of(name.rpartition(".")[0])


def entry_of(module: str, folder: str) -> str | None:
    """The file or subfolder of package `folder` that a module is or lies in; None outside of it."""
    if module == folder:
        return "__init__"
    return module.removeprefix(f"{folder}.").partition(".")[0] if module.startswith(f"{folder}.") else None


def entries_of(folder: str) -> set[str]:
    """The files and subfolders of a package folder, but for `__init__` and `__main__`."""
    return {entry for module in modules() if (entry := entry_of(module, folder))} - {"__init__", "__main__"}


@cache
def arrows(folder: str) -> dict[tuple[str, str], str]:
    """Which entries of a package folder import which, each with an import that shows it."""
    found = {}
    for module in modules():
        source = entry_of(module, folder)
        for name in our_imports(module) if source else ():
            target = entry_of(name, folder)
            if source and target and source != target:
                found[source, target] = f"{module} imports {name}"
    return found


def offences(
    package: str, forbidden: tuple[str, ...], *, allowed: tuple[str, ...] = (), top: bool = False
) -> list[str]:
    """`module: import` for each import of something forbidden."""
    return [
        f"{module}: {name}"
        for module in modules()
        if _is_of(module, (package,))
        for name in sorted(imports(module, top_level_only=top))
        if _is_of(name, forbidden) and not _is_of(name, allowed)
    ]


def _is_of(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def folders() -> list[str]:
    return sorted(module for module, path in modules().items() if path.name == "__init__.py")


def longest_chain(pairs: set[tuple[str, str]], entry: str) -> int:
    """The entries on the longest way down from one."""
    return 1 + max((longest_chain(pairs, target) for source, target in pairs if source == entry), default=0)


def circle(pairs: set[tuple[str, str]]) -> list[str]:
    """The entries that are left when all that import nothing (any more) are taken away: none, without a circle."""
    left = {entry for pair in pairs for entry in pair}
    while free := {entry for entry in left if not any(source == entry and target in left for source, target in pairs)}:
        left -= free
    return sorted(left)


def test_modeling_knows_no_job_queue_or_command_line():
    assert offences("modeling", ("celery", "kombu", "redis", "click", "orchestrator", "workers")) == []


def test_the_contract_imports_neither_side_nor_torch():
    forbidden = ("orchestrator", "workers", "torch", "torchvision", "click", "rich")

    assert offences(CONTRACT, forbidden, allowed=(CONTRACT,)) == []


def test_the_orchestrator_never_imports_the_workers():
    assert offences("orchestrator", ("workers",)) == []


def test_the_orchestrator_imports_torch_nowhere_at_module_level():
    assert offences("orchestrator", ("torch", "torchvision"), top=True) == []


def test_workers_know_of_the_orchestrator_only_the_contract():
    assert offences("workers", ("orchestrator",), allowed=(CONTRACT,)) == []


def test_a_workers_parent_process_imports_no_torch():
    assert offences("workers", ("torch", "torchvision"), top=True) == []


@pytest.mark.parametrize(
    ("folder", "order"),
    [
        ("modeling", MODELING_ROOMS),
        ("orchestrator", ORCHESTRATOR_ROOMS),
        (CONTRACT, CONTRACT_ROOMS),
        ("workers", WORKERS_ROOMS),
    ],
)
def test_rooms_import_only_what_stands_below_them(folder, order):
    place = {room: number for number, room in enumerate(order)}

    wrong = [why for (a, b), why in arrows(folder).items() if a in place and b in place and place[a] > place[b]]

    assert wrong == []


@pytest.mark.parametrize(("folder", "order"), [("modeling", MODELING_ROOMS), ("orchestrator", ORCHESTRATOR_ROOMS)])
def test_every_file_and_subfolder_has_its_place_in_the_order(folder, order):
    assert entries_of(folder) == set(order)


@pytest.mark.parametrize(("folder", "order"), [(CONTRACT, CONTRACT_ROOMS), ("workers", WORKERS_ROOMS)])
def test_every_subfolder_has_its_place_in_the_order(folder, order):
    subfolders = {entry for entry in entries_of(folder) if f"{folder}.{entry}" in folders()}

    assert subfolders == set(order)


@pytest.mark.parametrize("folder", folders())
def test_no_circles_between_the_files_and_subfolders_of_a_folder(folder):
    found = arrows(folder)
    tied = circle(set(found))

    assert [why for (a, b), why in found.items() if a in tied and b in tied] == []


def test_modeling_has_few_rooms_and_few_floors():
    entries = entries_of("modeling")
    pairs = set(arrows("modeling"))

    assert len(entries) <= MOST_ROOMS
    assert max(longest_chain(pairs, entry) for entry in entries) <= LONGEST_CHAIN


def test_the_architecture_page_has_every_room():
    page = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {f"orchestrator/{entry}" for entry in entries_of("orchestrator")} | entries_of("modeling")
    rooms |= {folder.replace(".", "/") for folder in folders() if folder.startswith("workers.")}

    assert [room for room in rooms if not re.search(rf"^{room}(/|\.py) ", page, re.MULTILINE)] == []


def test_the_architecture_page_names_the_longest_chain_of_modeling():
    found = re.search(r"The longest chain has (\d+): ([a-z, ]+)\.", (ROOT / "docs" / "architecture.md").read_text())
    assert found is not None
    chain, pairs = found[2].split(", "), set(arrows("modeling"))

    assert len(chain) == int(found[1]) == max(longest_chain(pairs, entry) for entry in MODELING_ROOMS)
    assert [pair for pair in itertools.pairwise(chain) if pair not in pairs] == []


def test_init_files_are_empty_but_for_the_doors():
    doors = {
        "modeling", "orchestrator.cli", "orchestrator.cli.jobs", "orchestrator.cli.lines", "orchestrator.cli.models",
            "orchestrator.cli.results", "orchestrator.cli.workers", "orchestrator.lines",
    }  # fmt: skip

    assert [folder for folder in folders() if folder not in doors and modules()[folder].read_text()] == []


@pytest.mark.parametrize("package", [*OURS, CONTRACT])
def test_the_rules_are_read_from_real_files(package):
    inside = [module for module in modules() if _is_of(module, (package,))]

    assert len(inside) > 3
    assert any(_is_of(name, OURS) for module in inside for name in imports(module))


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import a.b", "a.b"),
        ("def f():\n    from a import b", "a.b"),
        ("from . import sibling", "top.package.sibling"),
        ("from ..other import thing", "top.other.thing"),
        ("class C:\n    def f(self):\n        if True:\n            import deep", "deep"),
    ],
)
def test_every_way_to_import_is_read(code, found):
    statements = _statements(ast.parse(code).body, False)

    assert [name for node in statements for name in _imported(node, "top.package")] == [found]


def test_no_test_or_benchmark_imports_a_test():
    paths = [path for folder in ("tests", "benchmarks", "examples") for path in sorted((ROOT / folder).rglob("*.py"))]

    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(), str(path)))
        for name in _imported(node, ".".join(path.relative_to(ROOT).parent.parts))
        if any(part.startswith("test_") or part == "conftest" for part in name.split("."))
    ]

    assert len(paths) > 100
    assert found == []
