import re

import pytest

from orchestrator.contract.lines.scripts import scripts

DEFINED = re.compile(r"(?m)^local (?:function )?(\w+)")


@pytest.mark.parametrize("name", sorted(scripts()))
def test_a_script_has_nothing_of_what_all_share_that_it_does_not_use(name):
    text = scripts()[name].text

    unused = [word for word in DEFINED.findall(text) if len(re.findall(rf"\b{word}\b", text)) == 1]

    assert unused == []


def test_a_script_has_what_the_functions_that_it_uses_need():
    sweep, look_up = scripts()["sweep"].text, scripts()["look_up"].text

    assert all(f"local function {name}" in sweep for name in ("recover_expired", "finish", "has_worker", "reply"))
    assert "local function finish" not in look_up


def test_comments_do_not_travel():
    assert [name for name, script in scripts().items() if "--" in script.text] == []
