"""Sweeps: many models that differ in some options, on the same images, compared on those held out."""
