"""Figures, drawn from run folders and images; nothing here imports the training code."""

import contextlib
import os
import sys

# A notebook sets its own backend for every process that it starts, and Matplotlib can't be imported where that backend
# isn't installed. Figures in files need none.
if "matplotlib" not in sys.modules and (_backend := os.environ.pop("MPLBACKEND", "")):
    import matplotlib as mpl

    with contextlib.suppress(ValueError):
        mpl.rcParams["backend"] = _backend
