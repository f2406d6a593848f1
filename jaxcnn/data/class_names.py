"""What one data set calls glioma_tumor and another Glioma: names of classes that mean the same."""

from collections.abc import Mapping

# By what a class is, how public data sets call it, in lower-case letters and digits alone.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "glioma": ("glioma", "gliomas", "gliomatumor", "gliomatumour"),
    "meningioma": ("meningioma", "meningiomas", "meningiomatumor", "meningiomatumour"),
    "pituitary tumour": ("pituitary", "pituitarytumor", "pituitarytumour", "pituitaryadenoma"),
    "no tumour": ("notumor", "notumour", "no", "none", "normal", "healthy", "negative"),
    "tumour": ("tumor", "tumour", "yes", "positive", "braintumor", "braintumour"),
}
_TUMOURS = ("glioma", "meningioma", "pituitary tumour")
_MEANINGS = {name: meaning for meaning, names in ALIASES.items() for name in names}


def meaning(name: str) -> str:
    """What a class is, by the table of aliases; names that aren't in it mean the same if letters and digits do."""
    plain = "".join(character for character in name.lower() if character.isalnum())
    return _MEANINGS.get(plain, plain or name)


def agree(one: str, other: str) -> bool:
    """Whether an image may have both labels: they mean the same, or one is a tumour and the other says which."""
    first, second = sorted((meaning(one), meaning(other)))
    return first == second or (first in _TUMOURS and second == "tumour")
