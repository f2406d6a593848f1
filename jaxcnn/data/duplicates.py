"""Find near-duplicates: images that differ in brightness, contrast, size or compression, but hardly in content."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float64, Int, UInt8

from jaxcnn.data.image import to_square

# Images are compared at this size: differences that only compression makes are averaged away.
SIDE = 64
# Between most copies, which lie above 0.99, and neighbouring slices of one patient; see docs/audit.md.
THRESHOLD = 0.98
# Images compared with as many others at a time, which takes some 100 MB.
_BLOCK = 1024

Thumbnails = UInt8[np.ndarray, "n 64 64 1"]
# By image: the place of the first member of its group.
Groups = Int[np.ndarray, " n"]


def image_groups(
    parts: Sequence[UInt8[np.ndarray, "_ height width channel"]], patients: Sequence[str] | None, *, segmented: bool
) -> Groups:
    """Group images that must not be divided: near-duplicates, and images of one patient.

    Segmented slices whose patients are all known are grouped by patient alone: slices from the ends of any two heads
    show next to nothing, and would tie the patients together as copies.

    Returns:
        As `duplicate_groups`.
    """
    if segmented and patients and all(patients):
        return join_patients(np.arange(len(patients)), patients)
    thumbnails = np.concatenate([make_thumbnails(images) for images in parts])
    return join_patients(duplicate_groups(thumbnails), patients)


def make_thumbnails(images: UInt8[np.ndarray, "n height width channel"]) -> Thumbnails:
    """Resize the first channel of images by `to_square`."""
    return np.array([to_square(image[..., 0], SIDE) for image in images], np.uint8).reshape(-1, SIDE, SIDE, 1)


def correlations(
    first: UInt8[np.ndarray, "n 64 64 1"], second: UInt8[np.ndarray, "m 64 64 1"]
) -> Float64[np.ndarray, "n m"]:
    """Correlate every image of `first` with every image of `second` (Pearson's correlation, without a shift).

    It is 1 for the same image under another brightness or contrast. Blank images, for which it isn't defined, correlate
    fully with one another and not at all with others, so that identical images always have exactly 1.
    """
    return _correlate(_centred(first), _centred(second))


def _correlate(a: Float64[np.ndarray, "n pixels"], b: Float64[np.ndarray, "m pixels"]) -> Float64[np.ndarray, "n m"]:
    squares_a, squares_b = (np.einsum("ij,ij->i", x, x) for x in (a, b))
    return a @ b.T / np.sqrt(np.outer(squares_a, squares_b))


def _centred(thumbnails: Thumbnails) -> Float64[np.ndarray, "n 4097"]:
    """The pixels less their mean, times their number, and a last column that is 1 for a blank image.

    These are integers, and sums of their products stay below 2**53: in float64 all of them are exact, in whatever order
    and on however many threads they are added. So the correlations don't depend on the block size or the machine.
    """
    pixels = thumbnails.reshape(len(thumbnails), -1).astype(np.int32)
    centred = pixels.shape[1] * pixels - pixels.sum(axis=1, keepdims=True, dtype=np.int32)
    return np.hstack([centred, ~centred.any(axis=1, keepdims=True)], dtype=np.float64)


def duplicate_groups(thumbnails: Thumbnails, threshold: float = THRESHOLD, *, block: int = _BLOCK) -> Groups:
    """Divide images into groups of near-duplicates.

    Two images belong together if their correlation is above the threshold, or if a chain of such pairs joins them:
    groups are the connected components of that graph.

    Args:
        thumbnails: from `make_thumbnails`.
        threshold: for the correlation.
        block: images compared at a time; bounds the memory, and changes nothing else.

    Returns:
        For each image the place of the first member of its group, which is its own where no duplicate is before it.
    """
    groups = np.arange(len(thumbnails))
    for first, second in similar_pairs(thumbnails, threshold, block):
        if len(first):
            groups = _join(groups, first, second)
    return groups


def similar_pairs(
    thumbnails: Thumbnails, threshold: float, block: int = _BLOCK
) -> Iterator[tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]]:
    """Places of the near-duplicates, each pair once, some at a time."""
    for top in range(0, len(thumbnails), block):
        a = _centred(thumbnails[top : top + block])
        for left in range(top, len(thumbnails), block):
            rows, columns = np.nonzero(_correlate(a, _centred(thumbnails[left : left + block])) > threshold)
            once = top + rows < left + columns
            yield top + rows[once], left + columns[once]


def _join(groups: Groups, first: Int[np.ndarray, " pairs"], second: Int[np.ndarray, " pairs"]) -> Groups:
    """Merge the groups of each pair."""
    # Only here: it takes a while to import, and a data set without duplicates doesn't need it.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = (groups[first], groups[second])
    graph = coo_array((np.ones(len(first)), edges), shape=(len(groups), len(groups)))
    _, component = connected_components(graph, directed=False)
    _, first_members, group_of = np.unique(component[groups], return_index=True, return_inverse=True)
    return first_members[group_of]


def join_patients(groups: Groups, patients: Sequence[str] | None) -> Groups:
    """Merge the groups that hold images of one patient; images of an unknown one ("") stay where they are."""
    if patients is None or not any(patients):
        return groups
    first_of: dict[str, int] = {}
    pairs = [(i, first_of.setdefault(name, i)) for i, name in enumerate(patients) if name]
    places, firsts = np.array(pairs).T
    return _join(groups, firsts, places)


def members(groups: Groups) -> list[Int[np.ndarray, " members"]]:
    """List the members of every group that has more than one, by their places."""
    order = np.argsort(groups, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return [part for part in parts if len(part) > 1]


def closest(
    queries: UInt8[np.ndarray, "n 64 64 1"], candidates: UInt8[np.ndarray, "m 64 64 1"], *, block: int = _BLOCK
) -> tuple[Int[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Find for each query the candidate with the highest correlation (the first of equals), and that correlation."""
    places, best = np.zeros(len(queries), int), np.full(len(queries), -np.inf)
    for top in range(0, len(queries), block):
        for left in range(0, len(candidates), block):
            found = correlations(queries[top : top + block], candidates[left : left + block])
            column, rows = found.argmax(axis=1), np.arange(top, top + len(found))
            better = found.max(axis=1) > best[rows]
            places[rows[better]], best[rows[better]] = left + column[better], found.max(axis=1)[better]
    return places, best
