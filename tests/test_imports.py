"""The one-way direction of imports, read from the source: modeling <- contract <- {orchestrator, workers}."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("modeling", "orchestrator", "workers")
CONTRACT = "orchestrator.contract"


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package.replace(".", "/")).rglob("*.py"))


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Names of all modules that a file imports; those of `if TYPE_CHECKING:` are never imported."""
    body = ast.parse(path.read_text(), str(path)).body
    return {name for node in _statements(body, top_level_only) for name in _imported(node, path)}


def _statements(body: list[ast.stmt], top_level_only: bool) -> Iterator[ast.AST]:
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if top_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield node
        children = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        yield from _statements(children, top_level_only)


def _imported(node: ast.AST, path: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        package = path.relative_to(ROOT).parts[:-1]
        base = ".".join((*package[: len(package) - node.level + 1], node.module or "")) if node.level else node.module
        yield from (f"{base}.{alias.name}" for alias in node.names)


def offences(
    package: str, forbidden: tuple[str, ...], *, allowed: tuple[str, ...] = (), top: bool = False
) -> list[str]:
    """`file: module` for each import of something forbidden."""
    return [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules(package)
        for name in sorted(imports(path, top_level_only=top))
        if _is_of(name, forbidden) and not _is_of(name, allowed)
    ]


def _is_of(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


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


@pytest.mark.parametrize("package", [*OURS, CONTRACT])
def test_the_rules_are_read_from_real_files(package):
    assert len(modules(package)) > 3
    assert any(_is_of(name, OURS) for path in modules(package) for name in imports(path))
