"""A parser for untrusted YAML, such as kubeconfig and conda files: mappings, lists and plain values only.

The rest of YAML isn't needed there and is dangerous: aliases let a few hundred bytes expand beyond the memory, merge
keys do so while they are parsed, and tags choose which objects are constructed.
"""

from typing import Any, cast

import yaml

MAX_DEPTH = 32  # nested lists and mappings; a kubeconfig has 5
MAX_NODES = 10_000  # values, half a second to parse; a kubeconfig with a hundred clusters has 3000

# Raised by SafeLoader for texts that look like a number or a date but are neither.
_PARSE_ERRORS = (
    yaml.YAMLError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)


class UnsupportedYamlError(Exception):
    """The text is not supported YAML. The message completes a sentence about it: "uses a tag ..."."""


def load(text: str) -> Any:
    """Parse YAML or JSON in time and memory proportional to its length. Raises UnsupportedYamlError."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        where = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise UnsupportedYamlError(f"isn't valid YAML{where}. Correct its syntax, then try again") from None
    except _PARSE_ERRORS:
        raise UnsupportedYamlError("isn't valid YAML. Correct its syntax, then try again") from None
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """SafeLoader without aliases, anchors, tags and deep nesting. The loader in C crashes on deep nesting."""

    def __init__(self, text: str) -> None:
        try:
            super().__init__(text)
        except yaml.YAMLError:  # a control character
            raise UnsupportedYamlError("isn't valid YAML. Remove its control characters, then try again") from None
        self._depth = self._nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = cast(Any, self).peek_event()  # untyped in PyYAML's stubs
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise UnsupportedYamlError("uses a YAML anchor or alias (& or *). Repeat the value instead")
        if getattr(event, "tag", None) is not None:
            raise UnsupportedYamlError("uses a YAML tag (!). Remove the tag")
        if self._depth >= MAX_DEPTH:
            raise UnsupportedYamlError(f"is nested more than {MAX_DEPTH} levels deep. Flatten it")
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise UnsupportedYamlError(f"has more than {MAX_NODES} values. Shorten it")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise UnsupportedYamlError(f"uses a YAML merge key (line {_line(key)}). Write its values out instead")
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise UnsupportedYamlError(f"gives a key twice (line {self._repeated_line(node)}). Remove one of the two")
        return mapping

    def _repeated_line(self, node: Any) -> int:
        """Return the line of the first key of a mapping that equals an earlier one."""
        seen = set()
        for key, _ in node.value:
            value = self.construct_object(key, deep=True)
            if value in seen:
                return _line(key)
            seen.add(value)
        return _line(node)


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1
