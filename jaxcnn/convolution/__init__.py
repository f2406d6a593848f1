"""Convolution you can trust: `python -m jaxcnn.convolution` compares the fast one with the definition."""

from jaxcnn.convolution.definition import conv2d, manual_conv2d
from jaxcnn.convolution.kernels import gaussian_kernel, horizontal_edge_kernel, sharpening_kernel

__all__ = ["conv2d", "gaussian_kernel", "horizontal_edge_kernel", "manual_conv2d", "sharpening_kernel"]
