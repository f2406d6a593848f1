"""Pictures: made from run folders and from images, never from the training code."""

import contextlib
import os
import sys

# A notebook names its own backend to all that it starts, and Matplotlib can't be imported where that isn't installed.
# Pictures in files need none.
if "matplotlib" not in sys.modules and (_backend := os.environ.pop("MPLBACKEND", "")):
    import matplotlib as mpl

    with contextlib.suppress(ValueError):
        mpl.rcParams["backend"] = _backend
