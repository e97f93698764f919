import pytest

from orchestrator.pages.text import disambiguate_word


@pytest.mark.parametrize(
    ("candidates", "word"),
    [
        (["N", "lI", "G"], "NIG"),
        (["lI1", "6"], "16"),
        (["2", "S5"], "25"),
        (["a", "Il", "1l"], "all"),
        (["4", "O0", "."], "40."),
        (["I", "n"], "In"),  # a capital may start a word
        (["N", "l", "G"], "NlG"),  # the classifier does not offer an I
        (["O"], "O"),
    ],
)
def test_shapes_alike_are_settled_by_their_neighbours(candidates, word):
    assert "".join(disambiguate_word(candidates)) == word
