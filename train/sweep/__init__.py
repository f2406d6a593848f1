"""Sweep over options: train many models on the same images, and compare them on validation images."""
