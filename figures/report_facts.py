"""What a reader must know about scores: which images they are measured on, and what computed them."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from figures.scored_models import Model
from jaxcnn.runs.folder import SPLITS, Run, read_data, read_environment

_FINGERPRINT = 12  # Number of digits shown.
_NAMES = 3  # Number of models named per group.

Facts = tuple[tuple[str, str], ...]
"""Names and values, as plain text."""


def facts_html(models: Sequence[Model]) -> str:
    """The data and environments of the models as lists; if there are several, with the models they belong to."""
    data, environments = _grouped(models, _data_facts), _grouped(models, _environment_facts)
    warning = (
        '<p class="warning">The models don’t all have the same images and protocol: compare their scores with care.</p>'
        if len(data) > 1
        else ""
    )
    lists = "".join(_lists(groups, len(models)) for groups in (data, environments))
    return f'{warning}<div class="facts">{lists}</div>'


def _grouped(models: Sequence[Model], facts_of: Any) -> dict[Facts, list[str]]:
    """The facts, each with the names of the models that share them."""
    groups: dict[Facts, list[str]] = {}
    for model in models:
        groups.setdefault(facts_of(model.run), []).append(model.name)
    return groups


def _lists(groups: Mapping[Facts, Sequence[str]], models: int) -> str:
    lists = []
    for facts, names in groups.items():
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        named = "" if len(names) == models else ", ".join(names[:_NAMES]) + more
        terms = (("models", named), *facts)
        shown = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in terms if value)
        lists.append(f"<dl>{shown}</dl>")
    return "".join(lists)


def _data_facts(run: Run) -> Facts:
    data = read_data(run)
    return (
        ("data", data["source"]),
        ("protocol", _protocol(data)),
        ("images", ", ".join(f"{sum(data['images'][split].values())} {split}" for split in SPLITS)),
        ("test images", data.get("test_images", "").replace("published", "")),
        ("patients", ", ".join(f"{count} {split}" for split, count in data.get("patients", {}).items())),
        ("fingerprints", ", ".join(f"{split} {data['fingerprints'][split][:_FINGERPRINT]}" for split in SPLITS)),
    )


def _protocol(data: Mapping[str, Any]) -> str:
    protocol, left_out = data["protocol"], data.get("left_out")
    if not left_out:
        return protocol
    return f"{protocol}: {left_out} training images that are near-copies of test images are left out"


def _environment_facts(run: Run) -> Facts:
    environment = read_environment(run)
    versions = {"Python": environment.get("python"), **environment["packages"]}
    device = environment.get("device_kind")
    return (
        ("device", f"{environment.get('device_count')} x {device}" if device else ""),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)),
        ("revision", (environment.get("git_revision") or "")[:_FINGERPRINT]),
    )
