"""The exponential moving average of a network's weights, which generalises better than the last ones."""

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


class AveragedWeights:
    """`average = decay * average + (1 - decay) * weights`, over weights and buffers (Polyak and Juditsky 1992).

    The decay rises from 0 as (1 + n) / (10 + n) with the number n of updates, so that a short run is not held
    back by its random start.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self.num_updates = 0
        self.state: State = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, progress: float) -> None:
        """Take the present weights into the average; `progress` is the share of the run that is over."""
        decay = min(self._decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        self._take(network, decay)

    def _take(self, network: nn.Module, decay: float) -> None:
        averages, currents = [], []
        for name, current in network.state_dict().items():
            if current.is_floating_point():
                averages.append(self.state[name])
                currents.append(current.detach())
            else:
                self.state[name].copy_(current)
        torch._foreach_lerp_(averages, currents, 1 - decay)


class Lookahead(AveragedWeights):
    """Every few steps the average takes the weights in, and the weights go on from it (Zhang et al. 2019).

    The decay rises with the cube of the progress, as in Jordan 2024: early steps are free, late ones are bound.
    """

    _EVERY = 5

    @torch.no_grad()
    def update(self, network: nn.Module, progress: float) -> None:
        """Take the weights into the average and give them back, every few steps and at the end."""
        self.num_updates += 1
        if self.num_updates % self._EVERY and progress < 1:
            return
        self._take(network, self._decay**self._EVERY * progress**3)
        network.load_state_dict(self.state)
