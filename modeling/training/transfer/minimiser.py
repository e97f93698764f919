"""Deterministic minimisation of smooth convex functions by L-BFGS, and softmax regression with it.

Multinomial logistic regression with a ridge penalty minimises
value(W, b) = sum_n w_n NLL(softmax(W x_n + b), y_n) / sum_n w_n + l2 / 2 |W|^2 + BIAS_L2 / 2 |b|^2

Own code, not scipy or `torch.optim.LBFGS`: heads must repeat to the bit, whatever version of a library is installed.
"""

# Shapes: P variables, of any shape; N images, F features, L labels; weight and bias are one tensor LF1 with the bias
# last.
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from modeling.training.transfer.threads import one_thread

ValueAndGradient = Callable[[Tensor], tuple[float, Tensor]]

_HISTORY = 10
_SUFFICIENT_DECREASE = 1e-4  # of the decrease that the slope predicts (Armijo)
_CURVATURE = 0.9  # of the slope that may remain (weak Wolfe)
_MAX_TRIALS = 30  # of step lengths on one line


@dataclass(frozen=True, slots=True)
class Minimum:
    """The end of the search. `gradient_norm` is the largest absolute value of the gradient there."""

    point_P: Tensor
    value: float
    gradient_norm: float
    num_iterations: int


@dataclass(slots=True)
class _State:
    """A point with the function's value and gradient."""

    point_P: Tensor
    value: float
    gradient_P: Tensor


def minimise(
    function: ValueAndGradient, start_P: Tensor, *, tolerance: float, rounding: float = 1e-13, max_iterations: int = 500
) -> Minimum:
    """Minimise by L-BFGS (Nocedal and Wright 2006, algorithm 7.4) with steps that meet the weak Wolfe conditions.

    tolerance: the search ends when no value of the gradient is larger, or when rounding errors hide any progress.
    rounding: relative rounding error of the function's values: smaller differences are ignored.
    """
    value, gradient_P = function(start_P)
    state = _State(start_P, value, gradient_P)
    pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=_HISTORY)
    iterations = 0
    while float(state.gradient_P.abs().max()) > tolerance and iterations < max_iterations:
        direction_P = -_times_inverse_hessian(state.gradient_P, pairs)
        found = _search_line(function, state, direction_P, rounding)
        if found is None:
            if not pairs:
                break
            pairs.clear()  # restart from here without the history, which was misleading
            continue
        step_P, change_P = found.point_P - state.point_P, found.gradient_P - state.gradient_P
        curvature = float((step_P * change_P).sum())
        if curvature > 0:
            pairs.append((step_P, change_P, curvature))
        state = found
        iterations += 1
    return Minimum(state.point_P, state.value, float(state.gradient_P.abs().max()), iterations)


def _times_inverse_hessian(gradient_P: Tensor, pairs: deque[tuple[Tensor, Tensor, float]]) -> Tensor:
    """The two-loop recursion: the gradient times the approximate inverse Hessian."""
    direction_P = gradient_P.clone()
    shares: list[float] = []
    for step_P, change_P, curvature in reversed(pairs):
        share = float((step_P * direction_P).sum()) / curvature
        shares.append(share)
        direction_P.sub_(change_P, alpha=share)
    if pairs:
        _, change_P, curvature = pairs[-1]
        direction_P.mul_(curvature / float((change_P * change_P).sum()))
    for (step_P, change_P, curvature), share in zip(pairs, reversed(shares), strict=True):
        direction_P.add_(step_P, alpha=share - float((change_P * direction_P).sum()) / curvature)
    return direction_P


def _search_line(function: ValueAndGradient, start: _State, direction_P: Tensor, rounding: float) -> _State | None:
    """A point on the line that meets the weak Wolfe conditions, by doubling and halving.

    None if rounding errors hide any decrease.
    """
    slope = float((start.gradient_P * direction_P).sum())
    noise = rounding * abs(start.value)
    if -slope <= noise:
        return None
    low, high, length = 0.0, float("inf"), 1.0
    for _ in range(_MAX_TRIALS):
        point_P = start.point_P + length * direction_P
        value, gradient_P = function(point_P)
        if not value <= start.value + _SUFFICIENT_DECREASE * length * slope + noise:
            high = length
        elif float((gradient_P * direction_P).sum()) < _CURVATURE * slope:
            low = length
        else:
            return _State(point_P, value, gradient_P)
        length = (low + high) / 2 if high < float("inf") else 2 * low
    return None


BIAS_L2 = 1e-4
"""Penalty of the biases: very small; it gives a class without training images a finite optimum."""

# Multiply-adds of a pass from which float32 and all threads are faster: 43 vs 100 ms at 10,000 x 1,280 x 34.
_LARGE = 1e8
_ROUNDING = {torch.float64: 1e-13, torch.float32: 1e-8}  # float32 errors of N losses average out


class SoftmaxProblem:
    """Softmax regression on images with weights; can be solved for several penalties.

    Matrix products use classes as the first dimension and features in both layouts: 2 to 5 times as fast with few
    classes.
    """

    def __init__(self, features_NF: Tensor, targets_N: Tensor, weight_N: Tensor, num_classes: int) -> None:
        num_images, num_features = features_NF.shape
        self._is_large = num_images * num_features * num_classes > _LARGE
        self.dtype = torch.float32 if self._is_large else torch.float64
        self._features_NF = features_NF.to(self.dtype).contiguous()
        self._features_FN = self._features_NF.T.contiguous()
        self._targets_1N = targets_N.view(1, -1)
        self._share_N = (weight_N / weight_N.sum()).to(torch.float64)
        self.zero_LF1 = torch.zeros(num_classes, num_features + 1, dtype=torch.float64)

    def solve(self, l2: float, start_LF1: Tensor, tolerance: float) -> Minimum:
        """The minimum for this penalty; the search starts at `start_LF1`."""
        with contextlib.nullcontext() if self._is_large else one_thread():
            function = partial(self.value_and_gradient, l2=l2)
            return minimise(function, start_LF1, tolerance=tolerance, rounding=_ROUNDING[self.dtype])

    def value_and_gradient(self, point_LF1: Tensor, l2: float) -> tuple[float, Tensor]:
        """The objective at this point, and its gradient LF1; both float64."""
        weight_LF, bias_L = point_LF1[:, :-1], point_LF1[:, -1]
        logits_LN = (weight_LF.to(self.dtype) @ self._features_FN).to(torch.float64) + bias_L[:, None]
        log_scores_LN = logits_LN.log_softmax(dim=0)
        losses_N = -log_scores_LN.gather(0, self._targets_1N)[0]
        penalty = l2 / 2 * (weight_LF * weight_LF).sum() + BIAS_L2 / 2 * (bias_L * bias_L).sum()
        value = float((losses_N * self._share_N).sum() + penalty)
        residual_LN = log_scores_LN.exp_()
        residual_LN.scatter_add_(0, self._targets_1N, torch.full_like(self._targets_1N, -1, dtype=torch.float64))
        residual_LN *= self._share_N
        gradient_LF1 = torch.empty_like(point_LF1)
        gradient_LF1[:, :-1] = (residual_LN.to(self.dtype) @ self._features_NF).to(torch.float64) + l2 * weight_LF
        gradient_LF1[:, -1] = residual_LN.sum(dim=1) + BIAS_L2 * bias_L
        return value, gradient_LF1
