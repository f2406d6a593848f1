"""The command line: python -m benchmarks [NAME...]."""

import csv
import dataclasses
import statistics
from pathlib import Path
from typing import Annotated, Literal

import tyro

from benchmarks.contest import Contest, Result, run_contest
from benchmarks.loop import print_loop
from benchmarks.machine import describe_machine
from benchmarks.peers import PEERS, PYTORCH, best_peers
from benchmarks.roofline import print_roofline
from jaxcnn import cli
from jaxcnn.errors import UserError, is_installed
from jaxcnn.runs.files import whole_file

CONTESTS = {
    "simplecnn-training": Contest("simplecnn_training", 32),
    "simplecnn-inference": Contest("simplecnn_inference", 32),
    "simplecnn-one-image": Contest("simplecnn_inference", 1, steps=10),
    "unet-inference": Contest("unet_inference", 8),
    "unet-training": Contest("unet_training", 8),
    "transfer-training": Contest("transfer_training", 32),
    "uncached-transfer-training": Contest("uncached_transfer_training", 32),
    "data-preparation": Contest("data_preparation", 32),
}
SCALING = "scaling"
# Of a piece of work on a device that the caller names: enough for the host to be ahead of it.
_STEPS = 10
_BATCH_SIZE = 256
NUMERICS = "numerics"
ROOFLINE = "roofline"
LOOP = "loop"
SCALED = tuple(
    Contest(name, batch, size)
    for name in ("simplecnn_training", "simplecnn_inference")
    for batch, size in ((1, 128), (8, 128), (32, 128), (128, 128), (8, 64), (8, 256))
)


def benchmarks(
    names: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME ...]", help_behavior_hint="")
    ] = (),
    peers: bool = False,
    rounds: int = 5,
    out: Path | None = None,
    device: Literal["cpu", "cuda"] | None = None,
    batch_size: int | None = None,
) -> None:
    """Measure this project against PyTorch and others: each in a process of its own, in turn, round by round.

    Args:
        names: simplecnn-training, simplecnn-inference, simplecnn-one-image, unet-inference, unet-training,
            transfer-training, uncached-transfer-training, data-preparation (all, if none is given); scaling, over batch
            and image sizes; numerics, the rounding of every layer against float64; roofline, a step's operations and
            bytes, on paper; loop, what training costs the host beside the steps.
        peers: On the CPU, against PyTorch's ways (eager, channels last, compiled, both), ONNX Runtime and OpenVINO,
            each with its best settings. Without it, against PyTorch as most of its users have it.
        rounds: Number of rounds; in each, this project and every peer do the same work once.
        out: CSV file to write, a line a benchmark and peer.
        device: Measure both sides on this device, in TF32 and in bfloat16: ten steps and one synchronisation at a time,
            inputs on the device, both sides with their best settings.
        batch_size: Images of a step on that device; 256 if not given.
    """
    if unknown := set(names) - {*CONTESTS, SCALING, NUMERICS, ROOFLINE, LOOP}:
        known = ", ".join((*CONTESTS, SCALING, NUMERICS, LOOP))
        raise UserError(f"{min(unknown)}: no such benchmark; give {known} or {ROOFLINE}")
    if rounds < 1:
        raise UserError(f"--rounds {rounds}: must be at least 1")
    if batch_size is not None and (device is None or batch_size < 1):
        raise UserError(f"--batch-size {batch_size}: must be at least 1, and goes with --device")
    if peers and device is not None:
        raise UserError("--peers: compares on the CPU as it is; leave out --device")
    if ROOFLINE in names:
        print_roofline()
    if LOOP in names:
        print_loop()
    contests = [CONTESTS[name] for name in names or CONTESTS if name in CONTESTS]
    if SCALING in names:
        contests.extend(SCALED)
    if device is not None:
        contests = [
            dataclasses.replace(
                contest, batch=batch_size or _BATCH_SIZE, device=device, arithmetic=arithmetic, steps=_STEPS
            )
            for contest in contests
            if contest.name != "data_preparation"
            for arithmetic in ("tf32", "bfloat16")
        ]
    if not contests and NUMERICS not in names:
        return
    if not is_installed("torch"):
        raise UserError("torch: not installed; `pip install -c constraints.txt -e '.[convert]'` gets it")
    if NUMERICS in names:
        # Here, since it imports torch.
        from benchmarks.numerics import print_numerics

        print_numerics()
    if not contests:
        return
    if device == "cuda":
        _check_cuda()
    results = _run(contests, rounds, peers=peers)
    if out is not None:
        _write(out, results)
        print(f"\nwritten to {out}")


def _check_cuda() -> None:
    """Check that both sides can use a GPU, without taking memory of it.

    Raises:
        UserError: one of them can't.
    """
    import torch

    if not torch.cuda.is_available():
        raise UserError(f"--device cuda: PyTorch {torch.__version__} finds no CUDA device; use a machine that has one")
    if not any(is_installed(f"jax_cuda{version}_plugin") for version in (12, 13)):
        raise UserError("--device cuda: JAX has no CUDA here; `pip install -c constraints.txt 'jax[cuda13]'` gets it")


def _run(contests: list[Contest], rounds: int, *, peers: bool) -> list[Result]:
    print(f"{'':64} ms a step, median     times      spread  start, s    again, s     peak MB")
    print(
        f"{'work':26} {'type':8} batch size {'peer':23}     ours     peer as fast   of rounds   ours  peer  ours  peer"
        "  ours  peer"
    )
    results = []
    for contest in contests:
        names = best_peers(contest.name) if peers else [PYTORCH]
        left_out = {name: PEERS[name].missing for name in names if PEERS[name].missing}
        found = run_contest(contest, [name for name in names if name not in left_out], rounds)
        best = min(found, key=lambda result: result.theirs.median)
        for result in found:
            print(_line(result), "best" if peers and result is best else "", flush=True)
        for name, reason in left_out.items():
            print(f"{'':46} {name:23} left out: {reason}", flush=True)
        results += found
    return results


def _line(result: Result) -> str:
    contest, ours, theirs, ratios = result.contest, result.ours, result.theirs, result.ratios
    return (
        f"{contest.name.replace('_', '-'):26} {contest.arithmetic:8} {contest.batch:5} {contest.size:4}"
        f" {contest.peer:23} {ours.median * 1000:8.2f} {theirs.median * 1000:8.2f} {statistics.median(ratios):7.2f}"
        f" {min(ratios):5.2f}-{max(ratios):5.2f}"
        f" {ours.start:5.1f} {theirs.start:5.1f} {ours.restart:5.1f} {theirs.restart:5.1f}"
        f" {ours.megabytes:5.0f} {theirs.megabytes:5.0f}"
    )


def _write(out: Path, results: list[Result]) -> None:
    machine = describe_machine()
    rows = [_row(result) | machine for result in results]
    try:
        with whole_file(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise UserError(f"{out}: can't be written: {error.strerror}; choose another --out") from error


def _row(result: Result) -> dict[str, str]:
    ratios = result.ratios
    return {
        "work": result.contest.name.replace("_", "-"),
        "batch": str(result.contest.batch),
        "size": str(result.contest.size),
        "device": result.ours.device,
        "arithmetic": result.contest.arithmetic,
        "steps": str(result.contest.steps),
        "peer": result.contest.peer,
        "rounds": str(len(ratios)),
        "ratio_median": f"{statistics.median(ratios):.3f}",
        "ratio_min": f"{min(ratios):.3f}",
        "ratio_max": f"{max(ratios):.3f}",
        "ours_seconds": f"{result.ours.median:.4f}",
        "peer_seconds": f"{result.theirs.median:.4f}",
        "ours_start_seconds": f"{result.ours.start:.1f}",
        "peer_start_seconds": f"{result.theirs.start:.1f}",
        "ours_restart_seconds": f"{result.ours.restart:.1f}",
        "peer_restart_seconds": f"{result.theirs.restart:.1f}",
        "ours_peak_mb": f"{result.ours.megabytes:.0f}",
        "peer_peak_mb": f"{result.theirs.megabytes:.0f}",
    }


def main(program: str = "python -m benchmarks") -> None:
    """Entry point."""
    cli.run(program, benchmarks, "Measure this project against PyTorch and others, on this machine.")


if __name__ == "__main__":
    main()
