"""The postcards of the demo of a line."""

import io
from pathlib import Path

from PIL import Image

from orchestrator.demo.cards import DISTRICTS, belt_cards, write_training_cards


def test_training_cards_repeat_to_the_byte_in_a_folder_for_each_district(tmp_path: Path):
    assert write_training_cards(tmp_path / "one", seed=3, per_district=2) == 10
    write_training_cards(tmp_path / "two", seed=3, per_district=2)

    names = sorted(str(path.relative_to(tmp_path / "one")) for path in (tmp_path / "one").rglob("*.jpg"))
    assert names == [f"{district}/000{number}.jpg" for district in sorted(DISTRICTS) for number in (0, 1)]
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)


def test_the_belt_brings_cards_of_all_districts_and_some_are_smudged():
    cards = list(belt_cards(seed=0, number=60))

    assert {card.district for card in cards} == set(DISTRICTS)
    assert 0 < sum(card.smudged for card in cards) < 10
    assert len({card.image for card in cards}) == 60
    assert [card.image for card in belt_cards(seed=0, number=3)] == [card.image for card in cards[:3]]
    with Image.open(io.BytesIO(cards[0].image)) as image:
        assert (image.format, image.size) == ("JPEG", (200, 144))
