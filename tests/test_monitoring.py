"""The alert rules: each fires where it must, and nowhere else. integration/test_metrics.py: they name real metrics."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.promql import Expression, expand, firing, parse_series

MONITORING = Path(__file__).parents[1] / "monitoring"
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
TESTS = yaml.safe_load((MONITORING / "alerts_test.yml").read_text())
EVERY_S = 30.0


def seconds(duration: str) -> float:
    """`1m30s`."""
    return sum(
        float(number) * {"s": 1, "m": 60, "h": 3600}[unit] for number, unit in re.findall(r"(\d+)([smh])", duration)
    )


@pytest.mark.parametrize("case", TESTS["tests"], ids=lambda case: case["name"].replace(" ", "-"))
def test_alerts_fire_where_they_must_and_nowhere_else(case: dict[str, Any]):
    interval_s = seconds(case["interval"])
    series = {parse_series(each["series"]): expand(each["values"], interval_s) for each in case["input_series"]}

    for expected in case["alert_rule_test"]:
        found = firing(RULES[expected["alertname"]], series, EVERY_S, seconds(expected["eval_time"]))
        assert found == [alert["exp_labels"] for alert in expected.get("exp_alerts", [])], expected["eval_time"]


def test_every_alert_has_a_test_that_it_fires_and_one_that_it_does_not():
    assert {case["name"] for case in TESTS["tests"]} == {
        f"{name} {what}" for name in RULES for what in ("fires", "quiet")
    }


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
    ],
)
def test_promtool_agrees(arguments: tuple[str, ...]):
    done = subprocess.run(["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("text", ["1 +", "rate(x)", "x{a=1}", "x offset 5m", "topk(3, x)", "x[5m", ""])
def test_what_is_no_expression_of_ours_is_an_error(text: str):
    with pytest.raises((ValueError, KeyError)):
        Expression(text)
