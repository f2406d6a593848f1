"""Arrays that are known by their shapes before they are computed, so that programs for them compile in the meantime."""

import dataclasses
from collections.abc import Callable
from typing import Generic, TypeVar

import jax

Tree = TypeVar("Tree")
Other = TypeVar("Other")


@dataclasses.dataclass(frozen=True)
class Deferred(Generic[Tree]):
    """A tree of arrays that is yet to be computed.

    Attributes:
        shapes: the tree, of `jax.ShapeDtypeStruct`.
        compute: the tree itself, anew at each call.
    """

    shapes: Tree
    compute: Callable[[], Tree]

    def then(self, function: Callable[[Tree], Other]) -> "Deferred[Other]":
        """What the function makes of the tree; it is traced for the shapes now, and called after `compute`."""
        return Deferred(jax.eval_shape(function, self.shapes), lambda: function(self.compute()))
