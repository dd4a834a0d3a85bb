"""Differences between two images, for the preview of an update."""

import re
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any

from deployments.models import Image, Manifest


@dataclass(frozen=True)
class Change:
    """One difference between two images. For long texts, `diff` replaces `before` and `after`."""

    what: str
    before: str
    after: str
    diff: str = ""


def image_changes(old: Image | None, new: Image) -> list[Change]:
    """Return the differences from `old` to `new`. The first is always the image itself."""
    changes = [Change("Image", str(old) if old else "not reported", str(new))]
    before, after = _facts(old.manifest if old else None), _facts(new.manifest)
    changes += [Change(what, before[what], after[what]) for what in before if before[what] != after[what]]
    return [*changes, *_requirement_changes(old.manifest if old else None, new.manifest)]


def _facts(manifest: Manifest | None) -> dict[str, str]:
    if manifest is None:
        return dict.fromkeys(("Models", "Driver", "Assets", "Runtime"), "not reported")
    return {
        "Models": ", ".join(map(str, manifest.models.all())) or ", ".join(map(str, manifest.model_ids)) or "none",
        "Driver": manifest.driver_program or "none",
        "Assets": ", ".join(map(_asset, manifest.asset_list)) or "none",
        "Runtime": manifest.runtime_type,
    }


def _asset(asset: dict[str, Any]) -> str:
    """Return the asset's id. For uploads, add the start of the SHA-256, so that a new file shows as a change."""
    upload = re.search(r"/files/([0-9a-f]{8})[0-9a-f]{56}/", str(asset.get("url", "")))
    return f"{asset.get('id', '?')} ({upload[1]})" if upload else str(asset.get("id", "?"))


def _requirement_changes(old: Manifest | None, new: Manifest | None) -> list[Change]:
    changes = []
    for key, what in (("pip_requirements", "Requirements"), ("conda_env_file", "Conda environment")):
        before, after = _lines(old, key), _lines(new, key)
        if before != after:
            lines = list(unified_diff(before, after, lineterm="", n=1))[2:]
            diff = "\n".join(line for line in lines if not line.startswith("@@"))
            changes.append(Change(what, "", "", diff))
    return changes


def _lines(manifest: Manifest | None, key: str) -> list[str]:
    return str(manifest.properties.get(key) or "").splitlines() if manifest else []
