"""How small a change flips the answer: the smallest adversarial perturbation, with noise as the control.

Iterated gradient sign (Kurakin et al. 2017; Madry et al. 2018) on the margin between the answer and the best
other label (Carlini and Wagner 2017), with the bound on every pixel's change found by doubling and bisection.

Own search, not foolbox or torchattacks: results must repeat to the bit from a seed.
"""

# Shapes: B images, C channels, H height, W width, L labels.
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modeling.explain.filters import LUMA
from modeling.explain.layers import WHITE, device_of, in_eval_mode, normalised, scores_of, to_unit
from modeling.images.pixels import interpolated
from modeling.images.preprocessing import Preprocessing

_MULTIPLES = (1.0, 2.0, 4.0, 8.0)  # of the perturbation, tried on the second network until one fools it


@dataclass(frozen=True, slots=True)
class Attack:
    """Settings of the search.

    steps: gradient sign steps for each bound tried. smallest, largest: bounds in grey levels of 255.
    bisections: after doubling found a bound that flips the answer while half of it does not.
    num_noises: random perturbations of the same size, the control. seed: of these perturbations.
    """

    steps: int = 10
    smallest: float = 0.125
    largest: float = 64.0
    bisections: int = 4
    num_noises: int = 10
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Flip:
    """The smallest perturbation found for one image.

    epsilon: largest change of a pixel, in grey levels of 255; None where none up to the largest bound flips.
    label, score: index of the network's answer to the image, and its score in [0, 1].
    flipped, flipped_score: the same for the perturbed image; its own answer where nothing flips.
    unit_HWC, change_HWC: the image in [0, 1], and what is added to it: the sum is in [0, 1], too.
    noise_HWC: noise of the same size (every channel up or down by epsilon at random), the last that was tried.
    num_noise_flips: how many of the `num_noises` random perturbations flip the answer.
    survives_saving: whether the perturbed image rounded to whole grey levels still flips it.
    """

    epsilon: float | None
    label: int
    score: float
    flipped: int
    flipped_score: float
    unit_HWC: NDArray[np.float32]
    change_HWC: NDArray[np.float32]
    noise_HWC: NDArray[np.float32]
    num_noises: int
    num_noise_flips: int
    survives_saving: bool


def smallest_flip(
    network: nn.Module,
    picture_HWC: NDArray[np.uint8],
    preprocessing: Preprocessing,
    attack: Attack,
    temperature: float = 1.0,
) -> Flip:
    """The smallest change of one image found by this attack that flips the network's answer.

    temperature: of the model's calibration; scores are the softmax of logits divided by it.
    It is an upper bound: a stronger attack may need less. Deterministic on the same hardware.
    """
    with in_eval_mode(network):
        unit_1CHW = to_unit([picture_HWC], network)
        scores_L = scores_of(network, unit_1CHW, preprocessing, temperature)[0]
        label = int(scores_L.argmax())
        epsilon, change_1CHW = _search(network, unit_1CHW, preprocessing, label, attack)
        changed_1CHW = unit_1CHW + change_1CHW
        saved_1CHW = (changed_1CHW * WHITE).round() / WHITE
        after_2L = scores_of(network, torch.cat((changed_1CHW, saved_1CHW)), preprocessing, temperature)
        noise_BCHW = _noise(unit_1CHW, attack.largest if epsilon is None else epsilon, attack)
        noisy_BL = scores_of(network, unit_1CHW + noise_BCHW, preprocessing)
    flipped, saved = after_2L.argmax(dim=1).tolist()
    unit_HWC, change_HWC, noise_HWC = (_to_HWC(image) for image in (unit_1CHW, change_1CHW, noise_BCHW[-1:]))
    return Flip(
        epsilon=epsilon,
        label=label,
        score=float(scores_L[label]),
        flipped=flipped,
        flipped_score=float(after_2L[0, flipped]),
        unit_HWC=unit_HWC,
        change_HWC=change_HWC,
        noise_HWC=noise_HWC,
        num_noises=attack.num_noises,
        num_noise_flips=int((noisy_BL.argmax(dim=1) != label).sum()),
        survives_saving=saved != label,
    )


def attack_within(
    network: nn.Module, unit_1CHW: Tensor, preprocessing: Preprocessing, label: int, epsilon: float, steps: int
) -> Tensor | None:
    """A change 1CHW of at most `epsilon` grey levels a pixel after which the answer is not `label`, if one is found.

    unit_1CHW: pixels in [0, 1]; the changed pixels stay in it.
    """
    bound = epsilon / WHITE
    change_1CHW = torch.zeros_like(unit_1CHW)
    for i in range(steps + 1):
        changed_1CHW = (unit_1CHW + change_1CHW).requires_grad_()
        logits_L = network(normalised(changed_1CHW, preprocessing))[0].float()
        if int(logits_L.argmax()) != label:
            return change_1CHW
        if i == steps:
            break
        best_other = torch.cat((logits_L[:label], logits_L[label + 1 :])).max()
        gradient = torch.autograd.grad(best_other - logits_L[label], changed_1CHW)[0]
        step = bound if i == 0 else bound / 4  # the first reaches the bound, as a single step of gradient sign does
        change_1CHW = (change_1CHW + step * gradient.sign()).clamp(-bound, bound)
        change_1CHW = (unit_1CHW + change_1CHW).clamp(0, 1) - unit_1CHW
    return None


def fooled_at(network: nn.Module, preprocessing: Preprocessing, flip: Flip) -> float | None:
    """Which multiple (1, 2, 4 or 8) of another network's perturbation is the first to flip this one's answer.

    None where even the largest does not. Both images start from the other network's input, scaled to this one's
    size, so that they differ in the perturbation alone.
    """
    both = (torch.from_numpy(array).permute(2, 0, 1)[None] for array in (flip.unit_HWC, flip.change_HWC))
    unit_1CHW, change_1CHW = (image_1CHW.to(device_of(network)) for image_1CHW in both)
    changed = [(unit_1CHW + multiple * change_1CHW).clamp(0, 1) for multiple in (0.0, *_MULTIPLES)]
    with in_eval_mode(network):
        own_BCHW = _as_input_of(torch.cat(changed), preprocessing)
        before, *after = scores_of(network, own_BCHW, preprocessing).argmax(dim=1).tolist()
    return next((multiple for multiple, answer in zip(_MULTIPLES, after, strict=True) if answer != before), None)


def _search(
    network: nn.Module, unit_1CHW: Tensor, preprocessing: Preprocessing, label: int, attack: Attack
) -> tuple[float | None, Tensor]:
    """The smallest bound found, in grey levels, and the change within it."""

    def attempt(epsilon: float) -> Tensor | None:
        return attack_within(network, unit_1CHW, preprocessing, label, epsilon, attack.steps)

    low, high = 0.0, attack.smallest
    found = attempt(high)
    while found is None and high < attack.largest:
        low, high = high, min(2 * high, attack.largest)
        found = attempt(high)
    if found is None:
        return None, torch.zeros_like(unit_1CHW)
    for _ in range(attack.bisections):
        middle = (low + high) / 2
        nearer = attempt(middle)
        if nearer is None:
            low = middle
        else:
            high, found = middle, nearer
    return high, found


def _noise(unit_1CHW: Tensor, epsilon: float, attack: Attack) -> Tensor:
    """Random changes BCHW: each channel of each pixel up or down by epsilon, kept within black and white."""
    generator = torch.Generator().manual_seed(attack.seed)
    signs = torch.randint(0, 2, (attack.num_noises, *unit_1CHW.shape[1:]), generator=generator) * 2 - 1
    noisy_BCHW = unit_1CHW + signs.to(unit_1CHW) * (epsilon / WHITE)
    return noisy_BCHW.clamp(0, 1) - unit_1CHW


def _as_input_of(unit_BCHW: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Pixels in [0, 1] in the mode and size of another network."""
    if preprocessing.channels == 3:
        unit_BCHW = unit_BCHW.expand(-1, 3, -1, -1)
    elif unit_BCHW.shape[1] == 3:
        luma_C11 = torch.tensor(LUMA, device=unit_BCHW.device).view(-1, 1, 1)
        unit_BCHW = (unit_BCHW * luma_C11).sum(dim=1, keepdim=True)
    if unit_BCHW.shape[2:] == (preprocessing.height, preprocessing.width):
        return unit_BCHW
    return interpolated(unit_BCHW, preprocessing.height, preprocessing.width)


def _to_HWC(image_1CHW: Tensor) -> NDArray[np.float32]:  # noqa: N802  shape letters
    array: NDArray[np.float32] = image_1CHW[0].detach().permute(1, 2, 0).contiguous().cpu().numpy()
    return array
