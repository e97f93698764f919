"""The linear probe: a head fitted on features, with the penalty that is best on held-out images."""

# Shapes: N images, F features, L labels, V validation images.
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.data.splits import Split
from modeling.errors import DataError
from modeling.training.transfer.features import Features
from modeling.training.transfer.minimiser import Minimum, SoftmaxProblem
from modeling.training.transfer.threads import one_thread

PENALTIES: tuple[float, ...] = tuple(10.0 ** (exponent / 2) for exponent in range(2, -11, -1))
"""For standardised features, strong to weak: 10 to 0.00001. With N images, scikit-learn's C = 1 / (N l2)."""

_PATH_TOLERANCE = 1e-4  # of the gradient, while choosing the penalty
_TOLERANCE = 1e-6  # of the gradient, for the final probe
_TIE = 1e-4  # nats; a stronger penalty is chosen if it is worse by at most this
_PATIENCE = 3  # weaker penalties without a better result after which the search stops
_FEWEST_IMAGES, _FEWEST_OF_CLASS = 50, 2  # validation images needed to choose the penalty on them alone
_NUM_FOLDS = 5
_CONSTANT = 1e-6  # of its mean: a feature with a smaller deviation is ignored

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Step:
    """One penalty of the path with its results. accuracy, nll: on validation images, or over the folds."""

    l2: float
    nll: float
    accuracy: float
    num_iterations: int


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A fitted head for raw features: weight and bias include the standardisation.

    l2: the penalty on standardised features. validation_accuracy, validation_nll: of this head on the validation
    part; NaN if that is empty. path: the tried penalties, strong to weak. num_folds: 0 if the penalty was chosen on
    validation images alone, else the number of folds of training and validation images. gradient_norm,
    num_iterations: of the final search.
    """

    weight_LF: Tensor
    bias_L: Tensor
    l2: float
    validation_accuracy: float
    validation_nll: float
    path: tuple[Step, ...]
    num_folds: int
    num_iterations: int
    gradient_norm: float

    def logits(self, features_NF: Features) -> Tensor:
        """float32 logits NL, equal to those of the network with this head."""
        return torch.from_numpy(features_NF) @ self.weight_LF.T + self.bias_L


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The features, targets and weights of all images."""

    features_NF: Tensor
    targets_N: Tensor
    weight_N: Tensor
    num_classes: int

    def problem(self, rows: Indices) -> tuple[SoftmaxProblem, Tensor, Tensor]:
        """The problem for these images' standardised features; and each feature's mean and inverse deviation."""
        chosen = torch.from_numpy(rows)
        features_NF = self.features_NF[chosen].to(torch.float64)
        deviation_F, mean_F = torch.std_mean(features_NF, dim=0, correction=0)
        is_constant_F = deviation_F <= _CONSTANT * mean_F.abs().clamp(min=1e-12)
        inverse_F = torch.where(is_constant_F, 0.0, 1 / deviation_F)
        features_NF.sub_(mean_F).mul_(inverse_F)
        problem = SoftmaxProblem(features_NF, self.targets_N[chosen], self.weight_N[chosen], self.num_classes)
        return problem, mean_F, inverse_F

    def measure(self, rows: Indices, weight_LF: Tensor, bias_L: Tensor) -> tuple[float, int]:
        """The sum of the negative log likelihoods of these images, and the number of correct ones."""
        chosen = torch.from_numpy(rows)
        targets_N = self.targets_N[chosen]
        with one_thread():  # torch's own threads would spin longer than these small products take
            logits_NL = self.features_NF[chosen].to(torch.float64) @ weight_LF.T + bias_L
            nll = float(torch.nn.functional.cross_entropy(logits_NL, targets_N, reduction="sum"))
        return nll, int((logits_NL.argmax(dim=1) == targets_N).sum())


def fit_probe(
    features_NF: Features,
    targets_N: Indices,
    split: Split,
    num_classes: int,
    *,
    sample_weight_N: NDArray[np.float64] | None = None,
) -> Probe:
    """Multinomial logistic regression on the training rows, with the ridge penalty chosen on validation rows.

    split: rows of `features_NF`; its test part is not used. With few validation images (fewer than 50, or 2 for each
    class) the penalty is chosen by stratified folds of training and validation rows together; the probe is always
    fitted on training rows only, so that validation rows can calibrate it. Deterministic. sample_weight_N: the weight
    of each image in fitting, above 0; None: equal weights.

    Raises:
        DataError: there are no training rows, or features are not finite.
    """
    _check(features_NF, split)
    weight_N = np.ones(len(targets_N)) if sample_weight_N is None else np.asarray(sample_weight_N, dtype=np.float64)
    rows = _Rows(torch.from_numpy(features_NF), torch.from_numpy(targets_N), torch.from_numpy(weight_N), num_classes)
    folds = _folds(targets_N, split, num_classes)
    solvers = [_Solver(rows, train) for train, _ in folds]
    path = _path(rows, solvers, [measured for _, measured in folds])
    l2 = choose_penalty(path)
    solver = solvers[0] if len(folds) == 1 else _Solver(rows, split.train)
    best = solver.finish(l2)
    weight_LF, bias_L = solver.for_raw_features(best.point_P)
    nll, num_right = rows.measure(split.validation, weight_LF, bias_L)
    num_validation = len(split.validation)
    return Probe(
        weight_LF=weight_LF.float(),
        bias_L=bias_L.float(),
        l2=l2,
        validation_accuracy=num_right / num_validation if num_validation else float("nan"),
        validation_nll=nll / num_validation if num_validation else float("nan"),
        path=path,
        num_folds=len(folds) if len(folds) > 1 else 0,
        num_iterations=best.num_iterations,
        gradient_norm=best.gradient_norm,
    )


def choose_penalty(path: tuple[Step, ...]) -> float:
    """The strongest penalty whose negative log likelihood is within `_TIE` of the lowest."""
    lowest = min(step.nll for step in path)
    return max(step.l2 for step in path if step.nll <= lowest + _TIE)


def _check(features_NF: Features, split: Split) -> None:
    if len(split.train) == 0:
        raise DataError("there are no training images to fit a probe on; give more images, or a larger training part")
    for part in (split.train, split.validation):
        bad_N = ~np.isfinite(features_NF[part]).all(axis=1)
        if bad_N.any():
            raise DataError(
                f"the features of {int(bad_N.sum())} of {len(part)} images are not finite (the first in row "
                f"{int(part[bad_N.argmax()])}); the backbone's weights are damaged, or not for this architecture"
            )


def _folds(targets_N: Indices, split: Split, num_classes: int) -> list[tuple[Indices, Indices]]:
    """Rows to fit on and rows to evaluate on: training and validation, or folds of both if validation is small."""
    enough = max(_FEWEST_IMAGES, _FEWEST_OF_CLASS * num_classes)
    together = np.sort(np.concatenate([split.train, split.validation]))
    if len(split.validation) >= enough or len(together) < 2:
        return [(split.train, split.validation)]
    fold_N = np.empty(len(together), dtype=np.int64)
    by_class = np.argsort(targets_N[together], kind="stable")
    fold_N[by_class] = np.arange(len(together)) % min(_NUM_FOLDS, len(together))  # stratified by class
    return [(together[fold_N != fold], together[fold_N == fold]) for fold in range(int(fold_N.max()) + 1)]


def _path(rows: _Rows, solvers: list["_Solver"], measured: list[Indices]) -> tuple[Step, ...]:
    """Solve for weaker and weaker penalties, each starting at the previous solution, until results stop improving."""
    num_measured = max(1, sum(len(part) for part in measured))
    path: list[Step] = []
    for l2 in PENALTIES:
        nll, num_right, num_iterations = 0.0, 0, 0
        for solver, part in zip(solvers, measured, strict=True):
            found = solver.solve_next(l2)
            part_nll, part_right = rows.measure(part, *solver.for_raw_features(found.point_P))
            nll, num_right = nll + part_nll, num_right + part_right
            num_iterations += found.num_iterations
        path.append(Step(l2, nll / num_measured, num_right / num_measured, num_iterations))
        since = len(path) - 1 - int(np.argmin([step.nll for step in path]))
        if since >= _PATIENCE:
            break
    return tuple(path)


class _Solver:
    """Solves for some rows and several penalties, strong to weak, each starting at the previous solution."""

    def __init__(self, rows: _Rows, train: Indices) -> None:
        self._problem, self._mean_F, self._inverse_F = rows.problem(train)
        self._point_LF1 = self._problem.zero_LF1
        self._points: dict[float, Tensor] = {}

    def solve_next(self, l2: float, tolerance: float = _PATH_TOLERANCE) -> Minimum:
        """The minimum for the next penalty, accurate enough for choosing."""
        found = self._problem.solve(l2, self._point_LF1, tolerance)
        self._point_LF1 = self._points[l2] = found.point_P
        return found

    def finish(self, l2: float) -> Minimum:
        """The minimum for one penalty of the path, to the final tolerance."""
        for stronger in PENALTIES[: PENALTIES.index(l2) + 1]:
            if stronger not in self._points:
                self.solve_next(stronger)
        self._point_LF1 = self._points[l2]
        return self.solve_next(l2, _TOLERANCE)

    def for_raw_features(self, point_LF1: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias for raw features, from W (x - mean) / deviation + b."""
        weight_LF = point_LF1[:, :-1] * self._inverse_F
        return weight_LF, point_LF1[:, -1] - weight_LF @ self._mean_F
