"""Every network answers with logits, linearly in its features, whatever images and labels it is for."""

# Shapes: B images, C channels, H height, W width, F features, L labels.
import copy

import numpy as np
import pytest
import torch
from torch import nn

from modeling.errors import ArchitectureError, ModelingError
from modeling.images.preprocessing import Preprocessing
from modeling.networks.architectures import ARCHITECTURES, default_preprocessing, get_architecture
from modeling.networks.build import blank_network, build_network, normalise, select_device
from modeling.networks.families.speednet import single_view
from modeling.networks.heads import features, head_of, set_head
from modeling.networks.torchvision_table import ROWS

OWN = [name for name, known in ARCHITECTURES.items() if known.family != "torchvision"]
LIGHT = ("googlenet", "mnasnet0_5", "mobilenet_v3_small", "regnet_x_400mf", "resnet18", "squeezenet1_1")
FAMILIES = (
    *LIGHT, "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "inception_v3", "maxvit_t",
    "shufflenet_v2_x0_5", "swin_t", "swin_v2_t", "vgg11", "vgg16_bn", "vit_b_32",
)  # fmt: skip
LABELS = 5


def sized(name: str, side: int | None = None, mode: str | None = None) -> Preprocessing:
    known = get_architecture(name)
    return default_preprocessing(known, side or known.image_size or 28, mode)


def network_of(name: str, preprocessing: Preprocessing) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name, preprocessing, LABELS).eval()


def random_images(preprocessing: Preprocessing, count: int = 2) -> torch.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (count, *preprocessing.shape), dtype=np.uint8)
    return normalise(torch.from_numpy(pixels), preprocessing)


@pytest.mark.parametrize("name", [*OWN, *FAMILIES])
def test_a_blank_network_draws_nothing_whatever_the_memory_holds(name, monkeypatch):
    with torch.device("meta"):
        expected = build_network(name, sized(name), LABELS).state_dict()
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, **more: filled(empty(*args, **more)))
    before = torch.get_rng_state()

    blank = blank_network(name, sized(name), LABELS)

    assert torch.equal(torch.get_rng_state(), before)
    assert {key: value.shape for key, value in blank.state_dict().items()} == {
        key: value.shape for key, value in expected.items()
    }


def filled(tensor: torch.Tensor) -> torch.Tensor:
    """What memory may hold by chance: numbers that no rejection sampling would ever take."""
    return tensor.fill_(1e30) if tensor.is_floating_point() else tensor


@pytest.mark.parametrize("name", [*OWN, "convnext_tiny", "inception_v3", "mobilenet_v3_small", "vit_b_32"])
def test_a_blank_network_answers_as_another_once_it_has_its_weights(name, monkeypatch):
    monkeypatch.setattr(nn.init, "trunc_normal_", lambda tensor, **_: nn.init.normal_(tensor, std=0.01))  # soon done
    preprocessing = sized(name)
    network = network_of(name, preprocessing)

    blank = blank_network(name, preprocessing, LABELS)

    blank.load_state_dict(network.state_dict(), strict=True, assign=True)
    images = random_images(preprocessing, 1)
    with torch.inference_mode():
        assert torch.equal(blank.eval()(images), network(images))


@pytest.mark.parametrize("name", FAMILIES)
def test_head_and_cam_layer_of_each_family_exist_without_a_number_computed(name):
    known = get_architecture(name)

    with torch.device("meta"):
        network = build_network(name, sized(name), LABELS)

    head = head_of(network, name)
    assert (head.weight.shape[0], head.bias.shape) == (LABELS, (LABELS,))
    assert {tensor.device.type for tensor in network.parameters()} == {"meta"}
    assert (known.cam_layer is None) == name.startswith("vit_")
    assert known.cam_layer is None or isinstance(network.get_submodule(known.cam_layer), nn.Module)
    assert not [name for name in network.state_dict() if name.startswith(("aux", "AuxLogits"))]
    values = sum(
        value.numel()
        for key, value in network.state_dict().items()
        if value.is_floating_point() and not key.startswith(known.head + ".")
    )
    assert values == {row.name: row.num_values for row in ROWS}[name]


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("name", [*OWN, *LIGHT])
def test_logits_are_the_head_applied_to_the_features(name, mode):
    preprocessing = sized(name, 64 if name in LIGHT else None, mode)
    network = network_of(name, preprocessing)
    images = random_images(preprocessing)

    with torch.inference_mode(), single_view(network):
        logits, vectors = network(images), features(network, name, images)
        head = head_of(network, name)
        answer = vectors @ head.weight.reshape(LABELS, -1).T + head.bias

    assert logits.shape == (2, LABELS)
    torch.testing.assert_close(answer, logits, rtol=1e-4, atol=1e-4)


def test_a_single_view_leaves_the_network_as_it_was_even_within_another():
    network = network_of("glyphnet", sized("glyphnet"))

    with single_view(network):
        with single_view(network):
            pass
        within = network.averages

    assert (within, network.averages) == (False, True)


@pytest.mark.parametrize("name", ["speednet", "glyphnet"])
def test_no_layer_of_the_fast_networks_lacks_a_deterministic_gradient_on_cuda(name):
    network = network_of(name, sized(name))

    assert [layer for layer in network.modules() if isinstance(layer, nn.AdaptiveMaxPool2d)] == []


@pytest.mark.parametrize("name", ["cnn_pyramid", "squeezenet1_1"])
def test_a_head_for_other_labels_can_be_set(name):
    preprocessing = sized(name, 32)
    network = network_of(name, preprocessing)
    images = random_images(preprocessing)
    num_features = head_of(network, name).weight.shape[1]
    weight, bias = torch.randn(3, num_features), torch.randn(3)

    set_head(network, name, weight, bias)

    with torch.inference_mode():
        torch.testing.assert_close(network(images), features(network, name, images) @ weight.T + bias)
    with pytest.raises(ArchitectureError, match=rf"the head of {name} takes {num_features} features"):
        set_head(network, name, weight[:, 1:], bias)


@pytest.mark.parametrize("name", OWN)
def test_our_own_networks_find_their_feature_map(name):
    known, preprocessing = get_architecture(name), sized(name)
    network = network_of(name, preprocessing)
    if known.cam_layer is None:
        assert known.family == "dense"
        return
    caught = []
    network.get_submodule(known.cam_layer).register_forward_hook(lambda _, __, output: caught.append(output.shape))

    network(random_images(preprocessing))

    assert len(caught[0]) == 4
    assert min(caught[0][2:]) > 1


@pytest.mark.parametrize(("name", "side"), [("lenet", 16), ("lenet", 64), ("cnn_pyramid", 8), ("cnn", 4), ("cnn", 224)])
def test_small_networks_take_images_of_other_sizes(name, side):
    preprocessing = Preprocessing("RGB", side, side + 3)

    assert network_of(name, preprocessing)(random_images(preprocessing)).shape == (2, LABELS)


@pytest.mark.parametrize(
    ("name", "side", "told"),
    [
        ("lenet", 12, "a lenet needs images of at least 16 x 16 px, not 12 x 12"),
        ("alexnet", 32, "alexnet needs images of at least 63 x 63 px, not 32 x 32; give image size 224"),
        ("vit_b_16", 100, "vit_b_16 needs square images whose side is a multiple of 16 px, not 100 x 100"),
    ],
)
def test_a_size_that_a_network_cannot_take_is_refused(name, side, told):
    with pytest.raises(ArchitectureError, match=told):
        build_network(name, Preprocessing("RGB", side, side), LABELS)


def test_a_grey_image_is_seen_as_the_same_image_in_colour():
    grey, colour = sized("resnet18", 32, "L"), sized("resnet18", 32, "RGB")
    network = network_of("resnet18", grey)
    in_colour = network_of("resnet18", colour)
    in_colour.load_state_dict(network.state_dict())
    images = random_images(grey)

    torch.testing.assert_close(network(images), in_colour(images.repeat(1, 3, 1, 1)))
    torch.testing.assert_close(copy.deepcopy(network)(images), network(images))


def test_squeezenets_logits_may_be_negative():
    preprocessing = sized("squeezenet1_1", 64)

    with torch.inference_mode():
        logits = network_of("squeezenet1_1", preprocessing)(random_images(preprocessing))

    assert float(logits.min()) < 0


def test_a_state_dict_without_versions_goes_into_mnasnet():
    network = network_of("mnasnet0_5", sized("mnasnet0_5"))

    network.load_state_dict(dict(network.state_dict()))


def test_a_network_of_another_architecture_has_no_such_head():
    with pytest.raises(ArchitectureError, match="this network has no layer 'fc', so it is not resnet18"):
        head_of(network_of("perceptron", sized("perceptron")), "resnet18")


def test_a_device_that_is_not_there_is_told():
    with pytest.raises(ModelingError, match="device 'tpu9' cannot be used here"):
        select_device("tpu9")
