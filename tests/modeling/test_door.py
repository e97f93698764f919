"""The library's door: what `import modeling` and `import pigeonhole` offer, and what they cost."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import modeling
import pigeonhole

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("package", ["modeling", "pigeonhole"])
def test_importing_the_library_is_light(package):
    code = f"import sys, {package}; print([name for name in ('torch', 'numpy', 'PIL', 'click') if name in sys.modules])"

    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert found.stdout == "[]\n"


def test_both_packages_offer_the_same_documented_functions():
    assert modeling.__all__ == pigeonhole.__all__ == ["classify_files", "load_model", "train"]
    for name in modeling.__all__:
        assert getattr(modeling, name) is getattr(pigeonhole, name)
        assert getattr(modeling, name).__doc__
        assert name in dir(modeling)
        assert name in dir(pigeonhole)


@pytest.mark.parametrize("package", [modeling, pigeonhole])
def test_any_other_name_is_an_error_that_names_it(package):
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'classify'"):
        package.classify  # noqa: B018 looking it up is the test


def test_nothing_inside_comes_in_by_the_door():
    inside = [path for name in ("modeling", "orchestrator", "workers") for path in (ROOT / name).rglob("*.py")]

    assert len(inside) > 200
    assert [str(path.relative_to(ROOT)) for path in inside if _uses_the_door(ast.parse(path.read_text()))] == []


def _uses_the_door(tree: ast.AST) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name in ("modeling", "pigeonhole") for alias in node.names):
            return True
        if isinstance(node, ast.ImportFrom) and node.module in ("modeling", "pigeonhole"):
            names = {alias.name for alias in node.names}
            if node.module == "pigeonhole" or names & set(modeling.__all__):
                return True
    return False
