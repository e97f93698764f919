"""Files of weights that are read whole: which architecture they are, strictly, and how many classes they know."""

import pytest
import torch

from modeling.errors import ArchitectureError, ModelFormatError
from modeling.images.preprocessing import Preprocessing
from modeling.networks.build import build_network
from modeling.networks.state_dicts.whole import whole_state

PIXELS = Preprocessing("RGB", 32, 32)


@pytest.fixture(scope="module")
def lenet():
    return build_network("lenet", PIXELS, 5).state_dict()


def saved(tmp_path, state):
    torch.save(state, tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def test_a_whole_network_is_recognised_with_its_classes(tmp_path, lenet):
    found = whole_state(saved(tmp_path, {"state_dict": {f"module.{name}": one for name, one in lenet.items()}}))

    assert (found.architecture, found.num_classes, found.notes) == ("lenet", 5, ())
    assert found.state.keys() == lenet.keys()
    assert all(torch.equal(found.state[name], lenet[name]) for name in lenet)


def test_weights_without_a_last_layer_stay_without_it(tmp_path, lenet):
    body = {name: tensor for name, tensor in lenet.items() if not name.startswith("10.")}

    found = whole_state(saved(tmp_path, body), "lenet")

    assert (found.num_classes, found.state.keys()) == (None, body.keys())


def test_half_precision_becomes_single_and_is_said(tmp_path, lenet):
    found = whole_state(saved(tmp_path, {name: tensor.bfloat16() for name, tensor in lenet.items()}))

    assert {tensor.dtype for tensor in found.state.values() if tensor.is_floating_point()} == {torch.float32}
    assert "in the file they are bfloat16" in found.notes[0]


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (lambda state: state.pop("0.weight"), ArchitectureError, "does not fit lenet: 1 missing: 0.weight"),
        (lambda state: state.update({"0.weight": torch.zeros(1)}), ArchitectureError, "1 of other shapes: 0.weight"),
        (lambda state: state["10.weight"].fill_(torch.nan), ModelFormatError, "its answers are not finite"),
    ],
)
def test_weights_that_are_not_whole_are_refused(tmp_path, lenet, change, error, told):
    state = {name: tensor.clone() for name, tensor in lenet.items()}
    change(state)

    with pytest.raises(error, match=told):
        whole_state(saved(tmp_path, state), "lenet")


def test_another_architecture_than_the_named_one_is_told(tmp_path, lenet):
    with pytest.raises(ArchitectureError, match=r"does not fit speednet: .*they are weights of lenet"):
        whole_state(saved(tmp_path, lenet), "speednet")
