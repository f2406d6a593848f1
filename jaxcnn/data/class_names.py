"""Match class names that mean the same, such as glioma_tumor and Glioma."""

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
    """Look up a class in the table of aliases; other names mean the same if their letters and digits are the same."""
    plain = "".join(character for character in name.lower() if character.isalnum())
    return _MEANINGS.get(plain, plain or name)


def agree(one: str, other: str) -> bool:
    """Tell whether an image may have both labels: they mean the same, or one says "tumour" and the other which kind."""
    first, second = sorted((meaning(one), meaning(other)))
    return first == second or (first in _TUMOURS and second == "tumour")
