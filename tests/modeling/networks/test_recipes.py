import pytest

from modeling.networks.recipes import CNN, GLYPHNET, PHOTOGRAPHS, SPEEDNET, adapt_recipe


def test_enough_images_of_its_size_leave_a_recipe_as_it_is():
    assert adapt_recipe(SPEEDNET, 45_000, 32) == SPEEDNET
    assert adapt_recipe(GLYPHNET, 54_000, 28) == GLYPHNET
    assert adapt_recipe(PHOTOGRAPHS, 4_999, 224) == PHOTOGRAPHS


def test_many_photographs_are_mixed_and_changed_more():
    recipe = adapt_recipe(PHOTOGRAPHS, 5_000, 224)

    assert (recipe.augmentation, recipe.mixing) == ("photo_strong", True)


def test_a_network_for_small_images_crops_photographs():
    assert adapt_recipe(SPEEDNET, 45_000, 64).augmentation == "photo"
    assert adapt_recipe(GLYPHNET, 54_000, 64).augmentation == "elastic"


@pytest.mark.parametrize(("num_images", "batch_size"), [(1, 32), (300, 32), (1_119, 64), (3_000, 128), (45_000, 512)])
def test_few_images_come_in_smaller_batches_with_the_rate_that_sgd_needs_for_them(num_images, batch_size):
    recipe = adapt_recipe(SPEEDNET, num_images, 32)

    assert recipe.batch_size == batch_size
    assert recipe.learning_rate == pytest.approx(SPEEDNET.learning_rate * batch_size / SPEEDNET.batch_size)


def test_adamw_keeps_its_rate():
    assert adapt_recipe(CNN, 100, 28).learning_rate == CNN.learning_rate
