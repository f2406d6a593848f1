"""Decode the bytes of a file as grey images: one module per format, and one table of all formats."""
