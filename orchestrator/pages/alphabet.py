"""What a model's labels stand for on a page: a label of one character is itself, and others have names.

Class folders of letters must be safe where file names ignore case, and punctuation where it is no file name: so the
demo's labels are names, such as `upper_a` and `full_stop`.
"""

import string
import unicodedata

PUNCTUATION = {
    "full_stop": ".",
    "comma": ",",
    "colon": ":",
    "semicolon": ";",
    "exclamation": "!",
    "question": "?",
    "hyphen": "-",
    "apostrophe": "'",
    "left_parenthesis": "(",
    "right_parenthesis": ")",
    "ampersand": "&",
}

CHARACTER_OF = (
    {f"upper_{character.lower()}": character for character in string.ascii_uppercase}
    | {f"lower_{character}": character for character in string.ascii_lowercase}
    | {f"digit_{character}": character for character in string.digits}
    | PUNCTUATION
)
LABEL_OF = {character: label for label, character in CHARACTER_OF.items()}
ALPHABET = "".join(CHARACTER_OF.values())


def label_of(character: str) -> str:
    """The class folder of a character. Raises ValueError if the demo does not read that character."""
    if character not in LABEL_OF:
        raise ValueError(f"the demo does not read {character!r}; it reads {ALPHABET}")
    return LABEL_OF[character]


def text_of(label: str) -> str:
    """What is written for a label: its character, or the label in brackets if it stands for none."""
    return CHARACTER_OF.get(label) or (label if is_character(label) else f"[{label}]")


def is_character(label: str) -> bool:
    """Whether a label stands for one visible character: an accent that follows its letter belongs to it."""
    return label in CHARACTER_OF or (len(unicodedata.normalize("NFC", label)) == 1 and not label.isspace())
