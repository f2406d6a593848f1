"""Convolution and max-pooling that are fast on a CPU; on other devices they are XLA's own, but for one gradient.

That is max-pool's on a GPU (`max_pool`). All can be differentiated forwards and backwards, any number of times.
A model does not know about it: `jaxcnn.models.layers` gives the functions to Flax, and inside
`jaxcnn.cpu.xla_only()` the same models are compiled with XLA's own operations.
"""

from jaxcnn.cpu.convolution import conv_general_dilated
from jaxcnn.cpu.max_pool import max_pool
from jaxcnn.cpu.memory import keep_freed_memory, release_freed_memory
from jaxcnn.cpu.switch import xla_only

__all__ = ["conv_general_dilated", "keep_freed_memory", "max_pool", "release_freed_memory", "xla_only"]
