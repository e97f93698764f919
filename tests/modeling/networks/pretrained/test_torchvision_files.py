"""What a table says of the files of torchvision's weights; test_architectures.py compares it with torchvision."""

from modeling.networks.pretrained.torchvision_files import BY_ARCHITECTURE, BY_FILE, FILES
from modeling.networks.torchvision_table import ROWS


def test_every_architecture_with_such_files_has_its_default_first():
    default = {row.name: row.weights[0].removeprefix("IMAGENET1K_") for row in ROWS}

    assert {name: facts.member for name, facts in BY_ARCHITECTURE.items()} == {
        name: member for name, member in default.items() if "SWAG" not in member
    }


def test_a_file_name_holds_the_start_of_its_digest():
    assert BY_FILE["mnasnet1.0_top1_73.512-f206786ef8.pth"].sha256_start == "f206786ef8"
    assert all(len(facts.sha256_start) >= 8 and int(facts.sha256_start, 16) >= 0 for facts in FILES)
