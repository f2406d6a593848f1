"""Read a compiled program: the bytes that its kernels move, its collectives, and what computes its convolutions.

The text is XLA's optimized HLO. Each instruction of the entry computation is a kernel, or a call of a library.
"""

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

Computations = Mapping[str, Sequence["Instruction"]]

_BITS = {"pred": 8, "bf16": 16} | {f"{kind}{bits}": bits for kind in "sufc" for bits in (2, 4, 8, 16, 32, 64, 128)}
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,<=]*)\]")
_INSTRUCTION = re.compile(
    r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<shape>.*?) (?P<op>[a-z][a-z0-9\-]*)\((?P<rest>.*)$"
)
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# They move nothing: names for what is there, and the ends of what another instruction has begun.
_FREE = {"parameter", "get-tuple-element", "bitcast", "tuple", "constant", "after-all", "partition-id", "replica-id"}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction of a computation.

    Attributes:
        name: unique in its program.
        shape: of its result, as in the text.
        operands: names of the instructions that it reads.
        attributes: the rest of its line.
    """

    name: str
    shape: str
    op: str
    operands: tuple[str, ...]
    attributes: str

    def called(self, attribute: str) -> str:
        """The name of the computation under this attribute; empty where there is none."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What the kernels move: bytes read and written, each argument once, and their number."""

    bytes: int
    kernels: int


@functools.lru_cache(maxsize=1)
def read_computations(text: str) -> tuple[Computations, str]:
    """The computations of a program by their names, and the name of the first one that runs."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", ""
    for line in text.splitlines():
        if head := re.match(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*)?.*\{$", line):
            current = head[2]
            computations[current] = []
            entry = current if head[1] else entry
        elif current and (found := _INSTRUCTION.match(line)):
            operands, attributes = _split_at_closing(found["rest"])
            names = tuple(re.findall(r"%([\w.\-]+)", operands))
            if found["op"] == "parameter":
                names = (operands,)  # Its number.
            computations[current].append(Instruction(found["name"], found["shape"], found["op"], names, attributes))
    return computations, entry


def _split_at_closing(rest: str) -> tuple[str, str]:
    depth = 1
    for place, sign in enumerate(rest):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return rest[:place], rest[place + 1 :]
    return rest, ""


def size_of(shape: str) -> int:
    """Bytes of an array, or of all in a tuple."""
    return sum(
        math.prod(int(side.strip("<=")) for side in sides.split(",") if side) * _BITS[kind] // 8
        for kind, sides in _ARRAY.findall(shape)
        if kind in _BITS
    )


def type_of(shape: str) -> str:
    """The type of the first array in a shape."""
    return next((kind for kind, _ in _ARRAY.findall(shape) if kind in _BITS), "")


def traffic(text: str) -> Traffic:
    """What the program's kernels move in all; a loop's as often as it runs, where the compiler knows how often."""
    computations, entry = read_computations(text)
    return _traffic(computations, entry)


def _traffic(computations: Computations, name: str) -> Traffic:
    sizes = {instruction.name: size_of(instruction.shape) for instruction in computations[name]}
    moved = kernels = 0
    for instruction in computations[name]:
        if instruction.op in _FREE or instruction.op.endswith("-done"):
            continue
        if instruction.op in ("while", "call", "conditional"):
            inner = [_traffic(computations, body) for body in _bodies(instruction) if body in computations]
            times = _trip_count(instruction)
            moved += times * sum(body.bytes for body in inner)
            kernels += times * sum(body.kernels for body in inner)
            continue
        kernels += 1
        moved += sizes[instruction.name]
        for place, operand in enumerate(instruction.operands):
            if operand not in instruction.operands[:place]:
                moved += round(sizes.get(operand, 0) * _read(computations, instruction, place))
    return Traffic(moved, kernels)


def _bodies(instruction: Instruction) -> list[str]:
    branches = re.search(r"branch_computations=\{(.*?)\}", instruction.attributes)
    several = re.findall(r"%([\w.\-]+)", branches[1]) if branches else []
    return [*filter(None, map(instruction.called, ("body", "to_apply", "true_computation"))), *several]


def _trip_count(instruction: Instruction) -> int:
    found = re.search(r'"known_trip_count":\{"n":"(\d+)"', instruction.attributes)
    return int(found[1]) if found else 1


def _read(computations: Computations, instruction: Instruction, place: int) -> float:
    """The share of one of its arguments that a kernel reads: less than 1 where it cuts slices from it."""
    inner = computations.get(instruction.called("calls"), ()) if instruction.op == "fusion" else ()
    parameter = next((each for each in inner if each.op == "parameter" and each.operands == (str(place),)), None)
    if parameter is None:
        return 1.0
    users: dict[str, list[Instruction]] = {}
    for user in inner:
        for operand in user.operands:
            users.setdefault(operand, []).append(user)

    @functools.cache
    def used(name: str, size: int) -> float:
        if name not in users:  # The fusion's result, which is used whole.
            return 1.0
        return min(1.0, sum(_needed(user, name, size) * used(user.name, _elements(user)) for user in users[name]))

    return used(parameter.name, _elements(parameter))


def _needed(user: Instruction, name: str, size: int) -> float:
    """The factor from what is used of an instruction's result to what it needs of an operand of this size."""
    if user.op in ("slice", "dynamic-slice") and user.operands[0] == name:
        return _elements(user) / size
    return 1.0 if _elements(user) == size else math.inf


def _elements(instruction: Instruction) -> int:
    _, sides = next(iter(_ARRAY.findall(instruction.shape)), ("", ""))
    return math.prod(int(side.strip("<=")) for side in sides.split(",") if side)


def collectives(text: str) -> Counter[str]:
    """Bytes of what a device gets from collectives, by type."""
    moved: Counter[str] = Counter()
    for instruction in _collectives(text):
        for kind, sides in _ARRAY.findall(_result(instruction)):
            moved[kind] += size_of(f"{kind}[{sides}]")
    return moved


def count_collectives(text: str) -> Counter[str]:
    """The number of collectives, by operation."""
    return Counter(instruction.op.removesuffix("-start") for instruction in _collectives(text))


def _collectives(text: str) -> list[Instruction]:
    computations, _ = read_computations(text)
    every = (instruction for computation in computations.values() for instruction in computation)
    return [instruction for instruction in every if instruction.op.removesuffix("-start") in _COLLECTIVES]


def _result(instruction: Instruction) -> str:
    """The shape of what a collective gives; that of one that only begins here names what it takes as well."""
    if instruction.op in ("all-gather-start", "collective-permute-start"):
        count = len(instruction.operands)
        return "".join(f"{kind}[{sides}]" for kind, sides in _ARRAY.findall(instruction.shape)[count : 2 * count])
    return instruction.shape


def convolutions(text: str) -> Counter[tuple[str, str]]:
    """The number of convolutions, by what computes them and the type that they read."""
    found: Counter[tuple[str, str]] = Counter()
    for computation in read_computations(text)[0].values():
        types = {instruction.name: type_of(instruction.shape) for instruction in computation}
        for instruction in computation:
            target = re.search(r'custom_call_target="(__cudnn\$conv|__onednn\$conv)', instruction.attributes)
            if instruction.op != "convolution" and not target:
                continue
            by = {"__cudnn$conv": "cuDNN", "__onednn$conv": "oneDNN"}[target[1]] if target else "XLA"
            read = [types.get(operand, "") for operand in instruction.operands[:2]]
            found[by, "*".join(dict.fromkeys(read))] += 1
    return found


def estimated_cycles(text: str) -> int:
    """The sum of the compiler's own estimates for a TPU's instructions, of which it leaves out some; 0 if none."""
    computations, entry = read_computations(text)
    found = (re.search(r'"estimated_cycles":"(\d+)"', each.attributes) for each in computations[entry])
    return sum(int(match[1]) for match in found if match)
