"""What a request's kubeConfig says about where to run: nothing in it is executed, and no file it names is opened."""

from collections.abc import Mapping
from typing import Any

from mms.engines.base import EngineRefusedError
from mms.system import safe_yaml


def server(text: str) -> str:
    """The server of the current context (of the only cluster, where none is current). Raises EngineRefusedError."""
    try:
        config = safe_yaml.load(text)
    except safe_yaml.UnsupportedYamlError as reason:
        raise EngineRefusedError(f"The kubeConfig {reason}.") from None
    if not isinstance(config, Mapping):
        raise EngineRefusedError("The kubeConfig is empty or no mapping.")
    clusters = _named(config.get("clusters"), "cluster")
    current = config.get("current-context")
    if current:
        context = _named(config.get("contexts"), "context").get(str(current))
        if context is None:
            raise EngineRefusedError("The kubeConfig has no context with the name of its current-context.")
        cluster = clusters.get(str(context.get("cluster")))
    else:
        cluster = next(iter(clusters.values())) if len(clusters) == 1 else None
    if cluster is None or not isinstance(cluster.get("server"), str):
        raise EngineRefusedError("The kubeConfig does not say which cluster is meant, or that cluster has no server.")
    return cluster["server"]


def _named(items: Any, kind: str) -> dict[str, Mapping[str, Any]]:
    """kubeconfig's lists of {"name": …, kind: {…}} by name; what is malformed is left out."""
    entries = [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []
    return {str(entry.get("name")): entry[kind] for entry in entries if isinstance(entry.get(kind), Mapping)}
