"""Read the target of a deployment from a kubeConfig, without executing commands or opening files that it names."""

from collections.abc import Mapping
from typing import Any

from mms.engines.base import EngineRefusedError
from netguard import safe_yaml


def find_server(text: str) -> str:
    """Return the server of the current context, or of the only cluster if no context is current.

    Raises EngineRefusedError if there is none.
    """
    try:
        config = safe_yaml.load(text)
    except safe_yaml.UnsupportedYamlError as reason:
        raise EngineRefusedError(f"The kubeConfig {reason}.") from None
    if not isinstance(config, Mapping):
        raise EngineRefusedError("The kubeConfig is empty or isn't a mapping.")
    clusters = _named(config.get("clusters"), "cluster")
    current = config.get("current-context")
    if current:
        context = _named(config.get("contexts"), "context").get(str(current))
        if context is None:
            raise EngineRefusedError("The kubeConfig has no context named like its current-context.")
        cluster = clusters.get(str(context.get("cluster")))
    else:
        cluster = next(iter(clusters.values())) if len(clusters) == 1 else None
    server = cluster.get("server") if cluster else None
    if not isinstance(server, str):
        raise EngineRefusedError("The kubeConfig doesn't select a cluster, or that cluster has no server.")
    return server


def _named(items: Any, kind: str) -> dict[str, Mapping[str, Any]]:
    """Return the entries of a list of {"name": ..., kind: {...}} by name, without malformed ones.

    Raises EngineRefusedError if two have the same name.
    """
    entries = [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []
    found: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        name = str(entry.get("name"))
        if name in found:
            raise EngineRefusedError(f"The kubeConfig has two entries for a {kind} with the same name.")
        if isinstance(entry.get(kind), Mapping):
            found[name] = entry[kind]
    return found
