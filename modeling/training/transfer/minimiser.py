"""L-BFGS: the minimum of a smooth convex function of very many variables, always found in the same way."""

# Shapes: P variables, in whatever shape.
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

ValueAndGradient = Callable[[Tensor], tuple[float, Tensor]]

_HISTORY = 10
_SUFFICIENT = 1e-4  # of the decrease that the slope promises (Armijo)
_CURVATURE = 0.9  # of the slope that may be left (weak Wolfe)
_MAX_TRIALS = 30  # of step lengths on one line


@dataclass(frozen=True, slots=True)
class Minimum:
    """Where the search ended. `gradient_norm` is the largest of the gradient's values there."""

    point_P: Tensor
    value: float
    gradient_norm: float
    num_iterations: int
    num_evaluations: int


@dataclass(slots=True)
class _State:
    """A point with the function's value and gradient there."""

    point_P: Tensor
    value: float
    gradient_P: Tensor


def minimise(
    function: ValueAndGradient, start_P: Tensor, *, tolerance: float, rounding: float = 1e-13, max_iterations: int = 500
) -> Minimum:
    """Minimise by L-BFGS (Nocedal and Wright 2006, algorithm 7.4) with steps that meet the weak Wolfe conditions.

    tolerance: the search ends where no value of the gradient is larger, or rounding hides any progress.
    rounding: of the function's values, as a share of them: smaller differences mean nothing.
    """
    value, gradient_P = function(start_P)
    state, evaluations = _State(start_P, value, gradient_P), 1
    pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=_HISTORY)
    iterations = 0
    while float(state.gradient_P.abs().max()) > tolerance and iterations < max_iterations:
        direction_P = -_times_inverse_hessian(state.gradient_P, pairs)
        found, trials = _search_line(function, state, direction_P, rounding)
        evaluations += trials
        if found is None:
            if not pairs:
                break
            pairs.clear()  # begin afresh from here: what was learnt misled
            continue
        step_P, change_P = found.point_P - state.point_P, found.gradient_P - state.gradient_P
        curvature = float((step_P * change_P).sum())
        if curvature > 0:
            pairs.append((step_P, change_P, curvature))
        state = found
        iterations += 1
    norm = float(state.gradient_P.abs().max())
    return Minimum(state.point_P, state.value, norm, iterations, evaluations)


def _times_inverse_hessian(gradient_P: Tensor, pairs: deque[tuple[Tensor, Tensor, float]]) -> Tensor:
    """The two-loop recursion: the gradient in units in which the function is about round."""
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


def _search_line(
    function: ValueAndGradient, start: _State, direction_P: Tensor, rounding: float
) -> tuple[_State | None, int]:
    """A point on the line that meets the weak Wolfe conditions, by doubling and halving, and the number of trials.

    None where rounding leaves no decrease.
    """
    slope = float((start.gradient_P * direction_P).sum())
    noise = rounding * abs(start.value)
    if -slope <= noise:
        return None, 0
    low, high, length = 0.0, float("inf"), 1.0
    for trial in range(1, _MAX_TRIALS + 1):
        point_P = start.point_P + length * direction_P
        value, gradient_P = function(point_P)
        if not value <= start.value + _SUFFICIENT * length * slope + noise:
            high = length
        elif float((gradient_P * direction_P).sum()) < _CURVATURE * slope:
            low = length
        else:
            return _State(point_P, value, gradient_P), trial
        length = (low + high) / 2 if high < float("inf") else 2 * low
    return None, _MAX_TRIALS
