"""The best labels must be those that sorting all scores would give, ties and all."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling.inference.scores import _best_on_cores, _best_on_device, best_scores, labels_of, scores_of


def sorted_out(logits, temperature, k):
    """The same by the book."""
    scores, order = (logits / temperature).softmax(dim=1).sort(dim=1, descending=True, stable=True)
    return scores[:, :k].numpy(), order[:, :k].numpy()


@pytest.mark.parametrize("shape", [(1, 2), (7, 10), (300, 10), (32, 1000)])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_best_labels_are_those_that_sorting_gives(shape, k):
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 4

    scores, labels = best_scores(logits, 1.3, k)

    expected_scores, expected_labels = sorted_out(logits, 1.3, k)
    assert np.array_equal(labels, expected_labels)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)


@given(
    st.lists(st.lists(st.integers(-3, 3), min_size=6, max_size=6), min_size=1, max_size=5),
    st.integers(1, 8),
    st.sampled_from([_best_on_cores, _best_on_device]),
)
def test_equal_scores_keep_the_order_of_the_labels_wherever_they_are_computed(rows, k, best):
    logits = torch.tensor(rows, dtype=torch.float32)
    k = min(k, logits.shape[1])

    keys = best(logits.numpy() if best is _best_on_cores else logits, 1.0, k)

    assert np.array_equal(labels_of(keys, logits.shape[1]), np.argsort(-logits.numpy(), axis=1, kind="stable")[:, :k])


def test_no_more_labels_are_given_than_there_are():
    scores, labels = best_scores(torch.tensor([[0.0, 1.0]]), 1.0, 5)

    assert labels.tolist() == [[1, 0]]
    assert scores.sum() == pytest.approx(1)


def test_logits_are_left_as_they_were():
    logits = torch.tensor([[3.0, 1.0], [0.0, 2.0]])

    best_scores(logits, 1.0, 2)

    assert logits.tolist() == [[3.0, 1.0], [0.0, 2.0]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [float("nan"), -float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_an_error(value):
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, value, 2.0]])

    with pytest.raises(FloatingPointError, match="not finite"):
        best_scores(logits, 1.0, 1)
    assert not np.isfinite(scores_of(_best_on_device(logits, 1.0, 1))).all()
