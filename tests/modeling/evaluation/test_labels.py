"""Labels of two models, of which one may be older than the rule of class names."""

import pytest

from modeling.errors import ModelingError
from modeling.evaluation.labels import labels_of_one


def test_labels_that_differ_by_what_class_names_leave_out_are_known_to_both():
    assert labels_of_one(("ash ", "birch"), ("ash", "cedar")) == (("birch",), ("cedar",))


def test_models_without_a_common_label_are_named():
    with pytest.raises(ModelingError, match="no label in common: A knows ash, B knows cedar"):
        labels_of_one(("ash",), ("cedar",))
