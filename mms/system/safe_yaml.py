"""YAML from strangers, as people write it into a kubeconfig or a conda file: mappings, lists and plain values.

Nobody needs the rest of YAML there, and the rest is dangerous or surprising. Aliases let a few hundred bytes stand
for more than fits into memory, merge keys do so while they are read, and tags choose what is constructed.
"""

from typing import Any

import yaml

MAX_DEPTH = 32  # folds of lists and mappings; a kubeconfig has 5
MAX_NODES = 10_000  # values; half a second to read. A kubeconfig with a hundred clusters has 3000

# What SafeLoader raises for texts that look like a number or a date and are none.
_ODD = (yaml.YAMLError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError)


class UnsupportedYamlError(Exception):
    """The text is not read. The exception's text says why, as the end of a sentence about it."""


def load(text: str) -> Any:
    """Parse YAML (or JSON) in time and memory proportional to its length. Raises UnsupportedYamlError."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except _ODD:
        raise UnsupportedYamlError("is not readable as YAML") from None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """Not the loader in C: that one crashes on deep nesting."""

    def __init__(self, text: str) -> None:
        try:
            super().__init__(text)
        except yaml.YAMLError:  # a control character
            raise UnsupportedYamlError("is not readable as YAML") from None
        self._depth = self._nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise UnsupportedYamlError("uses an anchor or alias of YAML (& or *), which is not read here: write it out")
        if getattr(event, "tag", None) is not None:
            raise UnsupportedYamlError("uses a tag of YAML (!), which is not read here: leave it out")
        if self._depth >= MAX_DEPTH:
            raise UnsupportedYamlError(f"is nested more than {MAX_DEPTH} levels deep")
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise UnsupportedYamlError(f"holds more than {MAX_NODES} values")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node
