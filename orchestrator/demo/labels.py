"""The characters the demo reads, and the class folder of each: safe where file names ignore case."""

import string

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


def character_of(label: str) -> str:
    """The character of a class folder. Raises ValueError if it is no class of the demo."""
    if label not in CHARACTER_OF:
        raise ValueError(f"no character has the label {label!r}; labels look like upper_a, digit_0, full_stop")
    return CHARACTER_OF[label]
