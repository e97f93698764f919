"""Multinomial logistic regression with a ridge penalty: the value to minimise, its gradient, its minimum.

value(W, b) = sum_n w_n NLL(softmax(W x_n + b), y_n) / sum_n w_n + l2 / 2 |W|^2 + BIAS_L2 / 2 |b|^2
"""

# Shapes: N images, F features, L labels; weight and bias are one tensor LF1 with the bias last.
import contextlib

import torch
from torch import Tensor

from modeling.training.transfer.minimiser import Minimum, minimise
from modeling.training.transfer.threads import one_thread

BIAS_L2 = 1e-4
"""Penalty of the biases: next to none, so that a class without a training image still has a finite optimum."""

_LARGE = 1e8  # multiply-adds of a pass from which float32 and all threads pay: 43 ms for 100 ms at 10,000 x 1,280 x 34
_ROUNDING = {torch.float64: 1e-13, torch.float32: 1e-8}  # float32 errors of N losses average out


class SoftmaxProblem:
    """The images, their classes and weights; solved for one penalty after another.

    Products are made classes first from features in both orders: with few classes that is 2 to 5 times as fast.
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
        """The minimum for this penalty, searched for from `start_LF1`."""
        with contextlib.nullcontext() if self._is_large else one_thread():
            return minimise(
                lambda point_LF1: self.value_and_gradient(point_LF1, l2),
                start_LF1,
                tolerance=tolerance,
                rounding=_ROUNDING[self.dtype],
            )

    def value_and_gradient(self, point_LF1: Tensor, l2: float) -> tuple[float, Tensor]:
        """What is minimised at this point, and its gradient LF1; both float64."""
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
