"""The images of Training that are held out to choose by: early stopping, the best checkpoint, hyper-parameters."""

import numpy as np
from sklearn.model_selection import train_test_split

from jaxcnn.data.dataset import Split


def hold_out(split: Split, fraction: float, *, seed: int) -> tuple[Split, Split]:
    """Part a split, class by class, into what is left to train on and the share that is held out.

    Raises:
        ValueError: a part would be without one of the classes.
    """
    train, validation = train_test_split(
        np.arange(len(split)), test_size=fraction, random_state=seed, stratify=split.labels
    )
    return split.take(np.sort(train)), split.take(np.sort(validation))
