import numpy as np
import pytest
import torch
from torch import nn

from modeling.errors import ModelingError
from modeling.explain.features import feature_maps, grad_cam
from modeling.explain.layers import find_layer, last_tokens, to_maps
from tests.support.planted import GREY, SIDE, SQUARE, SquareFinder, square_picture, state


def share_on(place: tuple[slice, slice], heat: np.ndarray) -> float:
    return float(heat[place].sum() / heat.sum())


@pytest.mark.parametrize("layer", ["see", "fire"])
@pytest.mark.parametrize("place", [SQUARE, (slice(15, 21), slice(2, 8))])
def test_most_of_grad_cams_mass_falls_on_the_planted_square_that_the_network_looks_for(place, layer):
    heat = grad_cam(SquareFinder(), square_picture(place), GREY, layer, label=1).heat_HW

    assert heat.shape == (SIDE, SIDE)
    assert heat.max() == 1
    assert heat.min() >= 0
    assert share_on(place, heat) > 0.7
    assert share_on(place, heat[::-1]) < 0.05  # a map upside down, mirrored or transposed would not pass
    assert share_on(place, heat[:, ::-1]) < 0.05
    assert share_on(place, heat.T) < 0.05


def test_grad_cam_of_the_other_label_falls_on_the_rest():
    heat = grad_cam(SquareFinder(), square_picture(), GREY, "fire", label=0).heat_HW

    assert share_on(SQUARE, heat) < 0.05


def test_where_nothing_speaks_for_the_label_the_heat_is_zero():
    black = np.zeros((SIDE, SIDE, 1), np.uint8)

    assert not grad_cam(SquareFinder(), black, GREY, "fire", label=1).heat_HW.any()


def test_a_small_map_is_enlarged_to_the_images_size_and_stays_in_place():
    class Coarse(SquareFinder):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(self.fire(nn.functional.max_pool2d(self.see(images), 4)).mean(dim=(2, 3)))

    found = grad_cam(Coarse(), square_picture(), GREY, "fire", label=1)

    assert (found.cells_hw.shape, found.heat_HW.shape) == ((6, 6), (SIDE, SIDE))
    row, column = np.unravel_index(np.argmax(found.heat_HW), found.heat_HW.shape)
    assert 3 <= row < 9
    assert 14 <= column < 20


def test_an_activation_in_place_does_not_change_what_came_out_of_the_layer_before():
    maps = feature_maps(SquareFinder(), square_picture(), GREY, "see")

    assert maps.maps_FHW.min() < 0  # `fire` sets negative numbers to zero in the same memory


def test_feature_maps_come_strongest_first_with_their_channels():
    network = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, -5.0, 3.0]).view(3, 1, 1, 1))

    found = feature_maps(network, square_picture(), GREY, "0")

    assert found.channels_F.tolist() == [1, 2, 0]
    assert found.maps_FHW[0] == pytest.approx(-5 * found.maps_FHW[2])


def test_an_unknown_layer_is_told_with_near_names():
    with pytest.raises(ModelingError, match="no layer 'fier'; did you mean fire"):
        find_layer(SquareFinder(), "fier")
    with pytest.raises(ModelingError, match="there are see, fire, head"):
        find_layer(SquareFinder(), "zzz")


def test_a_layer_after_the_pooling_has_no_places():
    with pytest.raises(ModelingError, match="layer 'head' gives numbers of shape"):
        feature_maps(SquareFinder(), square_picture(), GREY, "head")


def test_tokens_and_channels_that_come_last_become_maps_of_the_images_shape():
    maps = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    tokens = maps.flatten(2).transpose(1, 2)
    with_class_token = torch.cat((torch.zeros(2, 1, 3, dtype=tokens.dtype), tokens), dim=1)

    for output in (maps, maps.permute(0, 2, 3, 1), tokens, with_class_token):
        assert torch.equal(to_maps(output, (32, 48), "layer"), maps)


def test_grad_cam_reaches_the_tokens_of_a_transformer():
    class Tokens(SquareFinder):
        """Patches as tokens BTC behind a class token, which is their sum, as a transformer mixes them."""

        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Identity()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            patches = self.fire(nn.functional.avg_pool2d(self.see(images), 4)).flatten(2).transpose(1, 2)
            tokens = self.mix(torch.cat((torch.zeros_like(patches[:, :1]), patches), dim=1))
            return self.head(tokens.mean(dim=1))

    heat = grad_cam(Tokens(), square_picture((slice(4, 12), slice(12, 20))), GREY, "mix", label=1).heat_HW

    assert share_on((slice(2, 14), slice(10, 22)), heat) > 0.7


def test_a_vision_transformers_last_tokens_that_reach_the_answer_are_found():
    def block() -> nn.ModuleDict:
        return nn.ModuleDict({"ln_1": nn.LayerNorm(4), "ln_2": nn.LayerNorm(4)})

    layers = nn.ModuleDict({"encoder_layer_0": block(), "encoder_layer_1": block()})
    network = nn.ModuleDict({"encoder": nn.ModuleDict({"layers": layers, "ln": nn.LayerNorm(4)})})

    assert last_tokens(network) == "encoder.layers.encoder_layer_1.ln_1"
    assert last_tokens(SquareFinder()) is None


def test_looking_changes_nothing_in_the_network():
    network = SquareFinder().train()
    network.fire.eval()
    before = state(network)

    grad_cam(network, square_picture(), GREY, "fire", label=1)
    feature_maps(network, square_picture(), GREY, "see")
    with pytest.raises(ModelingError):
        feature_maps(network, square_picture(), GREY, "head")

    assert state(network) == before


def test_the_network_is_asked_in_eval_mode():
    class Noisy(SquareFinder):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(nn.functional.dropout(images, 0.5, self.training))

    network = Noisy().train()

    first, second = (grad_cam(network, square_picture(), GREY, "fire", label=1).heat_HW for _ in range(2))

    assert np.array_equal(first, second)
