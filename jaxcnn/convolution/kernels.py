"""Three classic kernels, of any odd size."""

import numpy as np
from jaxtyping import Float64

from jaxcnn.convolution.definition import half_size


def horizontal_edge_kernel(k: int) -> Float64[np.ndarray, "{k} {k}"]:
    """Rows -kc to kc, each constant (for k = 5: -2, -1, 0, 1, 2): finds horizontal edges.

    The response is positive where the image is brighter above than below.

    Raises:
        ValueError: k is not odd and positive.
    """
    kc = half_size(k)
    return np.repeat(np.arange(-kc, kc + 1.0)[:, None], k, axis=1)


def gaussian_kernel(k: int, sigma: float = 1.0) -> Float64[np.ndarray, "{k} {k}"]:
    """exp(-(i² + j²) / 2 sigma²): blurs. It is scaled so that its largest value, the centre, is 1, not its sum.

    Args:
        sigma: standard deviation in pixels.

    Raises:
        ValueError: k is not odd and positive, or sigma is not positive.
    """
    kc = half_size(k)
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    i, j = np.mgrid[-kc : kc + 1, -kc : kc + 1]
    return np.exp(-(i**2 + j**2) / (2 * sigma**2))


def sharpening_kernel(k: int) -> Float64[np.ndarray, "{k} {k}"]:
    """-1 everywhere and (k - 1)² in the centre: a pixel against its neighbourhood.

    This is the reference project's kernel (4 in the centre for k = 3). Its sum is -2 (k - 1), not 1, which would keep
    the brightness, nor 0, which would show edges alone: a flat region comes out negative, the brighter the darker.

    Raises:
        ValueError: k is not odd and positive.
    """
    kc = half_size(k)
    kernel = np.full((k, k), -1.0)
    kernel[kc, kc] = (k - 1) ** 2
    return kernel
