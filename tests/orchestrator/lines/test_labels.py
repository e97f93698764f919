"""A bin map against the labels of the line's models."""

import pytest

from modeling.errors import ModelNotFoundError
from modeling.registry.store import ModelStore
from orchestrator.contract.errors import UsageError
from orchestrator.contract.lines.settings import LineSettings
from orchestrator.lines.labels import check_map
from tests.support.published_models import publish_model


def line(**changed):
    return LineSettings(**{"name": "x", "model": "digits", "fallback": "f", "review": "r"} | changed)


def test_labels_without_a_bin_and_a_model_without_calibration_are_warnings(tmp_path):
    publish_model(tmp_path / "models", "digits")

    findings = check_map(line(bins={str(digit): ("1",) for digit in range(8)}), ModelStore(tmp_path / "models"))

    findings.require_known()
    assert findings.without_bin == ("8", "9")
    assert findings.warnings() == [
        "2 of 10 labels have no bin, so their items will be answered `no_bin`: '8', '9'",
        "digits@1 has no calibration: it accepts every image, and no item goes to the review bin",
    ]


def test_at_most_a_few_labels_are_named(tmp_path):
    publish_model(tmp_path / "models", "digits")

    first = check_map(line(), ModelStore(tmp_path / "models")).warnings()[0]

    assert first.endswith(": '0', '1', '2', '3', '4' and 5 more")


def test_a_label_that_no_model_has_is_an_error_that_says_the_nearest(tmp_path):
    publish_model(tmp_path / "models", "digits")

    findings = check_map(line(bins={"00": ("1",)}), ModelStore(tmp_path / "models"))

    with pytest.raises(UsageError, match="digits@1 has no label '00'; did you mean '0'"):
        findings.require_known()
    assert "digits@1 has no label '00'; the map keeps it" in findings.warnings()


def test_the_labels_of_the_smaller_model_count_too(tmp_path):
    publish_model(tmp_path / "models", "digits")
    publish_model(tmp_path / "models", "small", seed=1)

    assert check_map(line(degraded="small"), ModelStore(tmp_path / "models")).models == ("digits@1", "small@1")
    with pytest.raises(ModelNotFoundError, match="no model 'smal'; did you mean 'small'"):
        check_map(line(degraded="smal"), ModelStore(tmp_path / "models"))
