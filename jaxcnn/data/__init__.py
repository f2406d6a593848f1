"""Load images: the built-in phantom, prepared scans, and the input pipeline."""
