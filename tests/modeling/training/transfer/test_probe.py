import numpy as np
import pytest
import torch

from modeling.data.splits import Split
from modeling.errors import DataError
from modeling.training.transfer.minimiser import BIAS_L2, SoftmaxProblem, minimise
from modeling.training.transfer.probe import PENALTIES, Step, choose_penalty, fit_probe


def blobs(num_images: int, num_classes: int, num_features: int = 6, noise: float = 1.0, seed: int = 0):
    random = np.random.default_rng(seed)
    targets = np.arange(num_images) % num_classes
    centres = random.normal(size=(num_classes, num_features)) * 2
    features = centres[targets] + noise * random.normal(size=(num_images, num_features)) + 5
    return features.astype(np.float32), targets.astype(np.int64)


def split_of(num_train: int, num_validation: int) -> Split:
    rows = np.arange(num_train + num_validation)
    return Split(rows[:num_train], rows[num_train:], rows[:0])


def loss_with_autograd(features, targets, weight, point, l2):
    point = point.clone().requires_grad_(True)
    logits = features @ point[:, :-1].T + point[:, -1]
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    penalty = l2 / 2 * point[:, :-1].square().sum() + BIAS_L2 / 2 * point[:, -1].square().sum()
    value = (losses * weight).sum() / weight.sum() + penalty
    (gradient,) = torch.autograd.grad(value, point)
    return float(value.detach()), gradient


def test_value_and_gradient_are_those_of_automatic_differentiation():
    features, targets = (torch.from_numpy(array) for array in blobs(30, 3))
    weight = torch.linspace(0.5, 2, 30, dtype=torch.float64)
    problem = SoftmaxProblem(features.double(), targets, weight, 3)
    point = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    value, gradient = problem.value_and_gradient(point, l2=0.3)

    expected_value, expected = loss_with_autograd(features.double(), targets, weight, point, 0.3)
    assert value == pytest.approx(expected_value, rel=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_the_optimum_of_one_feature_is_the_one_worked_out_by_hand():
    # x = +1 for class 1 and -1 for class 0: by symmetry w = (-u, u), and the gradient is zero where
    # l2 u = 1 / (1 + exp(2 u)); for l2 = 1 / (2 (1 + exp(1))) that is u = 1/2, hence 2 l2 u = 1 / (1 + e).
    l2 = 2 / (1 + np.exp(1))
    problem = SoftmaxProblem(
        torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1]), torch.ones(2, dtype=torch.float64), num_classes=2
    )

    found = problem.solve(l2, problem.zero_LF1, tolerance=1e-10)

    torch.testing.assert_close(found.point_P, torch.tensor([[-0.5, 0.0], [0.5, 0.0]], dtype=torch.float64))
    assert found.gradient_norm <= 1e-10


def test_a_badly_scaled_parabola_is_minimised():
    scales = torch.logspace(0, 2, 20, dtype=torch.float64)

    found = minimise(
        lambda point: (float((scales * (point - 1) ** 2).sum() / 2), scales * (point - 1)),
        torch.zeros(20, dtype=torch.float64),
        tolerance=1e-8,
    )

    torch.testing.assert_close(found.point_P, torch.ones(20, dtype=torch.float64), atol=1e-7, rtol=0)
    assert found.gradient_norm <= 1e-8


def test_a_probe_is_the_optimum_on_its_standardised_training_rows():
    features, targets = blobs(160, 3)
    split = split_of(100, 60)

    probe = fit_probe(features, targets, split, 3)

    train = torch.from_numpy(features[:100]).double()
    deviation, mean = torch.std_mean(train, dim=0, correction=0)
    weight = probe.weight_LF.double() * deviation
    bias = probe.bias_L.double() + probe.weight_LF.double() @ mean
    _, gradient = loss_with_autograd(
        (train - mean) / deviation,
        torch.from_numpy(targets[:100]),
        torch.ones(100, dtype=torch.float64),
        torch.cat([weight, bias[:, None]], dim=1),
        probe.l2,
    )
    assert gradient.abs().max() < 2e-6
    assert probe.gradient_norm <= 1e-6
    assert probe.num_folds == 0


def test_validation_figures_are_those_of_the_probes_logits():
    features, targets = blobs(200, 4, noise=3.0)

    probe = fit_probe(features, targets, split_of(120, 80), 4)

    logits, targets = probe.logits(features[120:]), torch.from_numpy(targets[120:])
    assert probe.validation_accuracy == int((logits.argmax(dim=1) == targets).sum()) / 80
    assert probe.validation_nll == pytest.approx(float(torch.nn.functional.cross_entropy(logits, targets)), rel=1e-5)


def test_separable_data_give_finite_weights_and_no_mistake():
    features, targets = blobs(200, 2, noise=0.01)

    probe = fit_probe(features, targets, split_of(120, 80), 2)

    assert probe.validation_accuracy == 1.0
    assert torch.isfinite(probe.weight_LF).all()


def test_the_same_input_gives_the_same_probe_bit_for_bit():
    features, targets = blobs(150, 3)

    first, second = (fit_probe(features, targets, split_of(90, 60), 3) for _ in range(2))

    assert torch.equal(first.weight_LF, second.weight_LF)
    assert torch.equal(first.bias_L, second.bias_L)
    assert first.path == second.path


def test_an_image_that_counts_twice_is_as_good_as_two():
    features, targets = blobs(40, 2, noise=3.0)
    doubled = np.concatenate([np.arange(40), np.arange(0, 40, 2)])
    weight = torch.ones(40, dtype=torch.float64)
    weight[::2] = 2
    inputs, answers = torch.from_numpy(features).double(), torch.from_numpy(targets)
    weighted = SoftmaxProblem(inputs, answers, weight, 2)
    repeated = SoftmaxProblem(inputs[doubled], answers[doubled], torch.ones(60, dtype=torch.float64), 2)

    points = [problem.solve(0.1, problem.zero_LF1, 1e-9).point_P for problem in (weighted, repeated)]

    torch.testing.assert_close(*points, atol=1e-6, rtol=0)


def test_an_image_of_weight_next_to_nothing_is_not_learnt_from():
    features, targets = blobs(160, 2, noise=0.1)
    wrong = targets.copy()
    wrong[:20] = 1 - wrong[:20]
    weight = np.ones(160)
    weight[:20] = 1e-9

    probe = fit_probe(features, wrong, split_of(100, 60), 2, sample_weight_N=weight)

    assert (probe.logits(features[:20]).argmax(dim=1).numpy() == targets[:20]).all()


def test_a_constant_feature_gets_no_weight():
    features, targets = blobs(160, 2)
    features[:, 2] = 7.3

    probe = fit_probe(features, targets, split_of(100, 60), 2)

    assert probe.weight_LF[:, 2].tolist() == [0.0, 0.0]
    assert torch.isfinite(probe.bias_L).all()


def test_features_that_are_not_finite_are_refused_with_their_place():
    features, targets = blobs(160, 2)
    features[17, 3] = np.nan
    features[40, 0] = np.inf

    with pytest.raises(DataError, match=r"features of 2 of 100 images are not finite \(the first in row 17\)"):
        fit_probe(features, targets, split_of(100, 60), 2)


def test_a_probe_needs_training_images():
    features, targets = blobs(10, 2)

    with pytest.raises(DataError, match="no training images"):
        fit_probe(features, targets, split_of(0, 10), 2)


def test_few_validation_images_are_joined_with_the_training_images_in_folds():
    features, targets = blobs(30, 3)

    probe = fit_probe(features, targets, split_of(24, 6), 3)

    assert probe.num_folds == 5
    assert probe.validation_accuracy >= 5 / 6


def test_a_class_without_training_images_keeps_the_probe_finite():
    features, targets = blobs(160, 2)

    probe = fit_probe(features, targets, split_of(100, 60), 3)

    assert torch.isfinite(probe.bias_L).all()
    assert not (probe.logits(features).argmax(dim=1) == 2).any()


def test_two_images_are_enough():
    features, targets = blobs(2, 2)

    probe = fit_probe(features, targets, split_of(2, 0), 2)

    assert np.isnan(probe.validation_accuracy)
    assert probe.logits(features).argmax(dim=1).tolist() == [0, 1]


def test_the_path_ends_when_weaker_penalties_have_stopped_helping():
    features, targets = blobs(400, 2, num_features=40, noise=8.0)

    probe = fit_probe(features, targets, split_of(200, 200), 2)

    steps = [step.l2 for step in probe.path]
    best = steps.index(min(probe.path, key=lambda step: step.nll).l2)
    assert steps == list(PENALTIES[: best + 4])
    assert len(steps) < len(PENALTIES)


def test_of_penalties_that_do_alike_the_strongest_is_chosen():
    path = (Step(1.0, 0.31, 0.9, 5), Step(0.1, 0.20005, 0.9, 5), Step(0.01, 0.2, 0.9, 5), Step(0.001, 0.21, 1.0, 5))

    assert choose_penalty(path) == 0.1


def test_a_large_problem_in_float32_ends_near_the_optimum_of_float64(monkeypatch):
    features, targets = (torch.from_numpy(array) for array in blobs(200, 3, noise=3.0))
    arguments = ((features - 5).double(), targets, torch.ones(200, dtype=torch.float64), 3)
    exact = SoftmaxProblem(*arguments)
    monkeypatch.setattr("modeling.training.transfer.minimiser._LARGE", 1)
    large = SoftmaxProblem(*arguments)

    points = [problem.solve(0.01, problem.zero_LF1, 1e-6).point_P for problem in (exact, large)]

    assert (exact.dtype, large.dtype) == (torch.float64, torch.float32)
    torch.testing.assert_close(*points, atol=1e-3, rtol=0)
