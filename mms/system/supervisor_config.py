"""Values in supervisord's configuration file."""

import re


class ConfigValueError(ValueError):
    """The configuration file can't express the value."""


def escape(value: str) -> str:
    """Return `value` as written in a configuration file of supervisord. Raises ConfigValueError for line breaks.

    "#" and ";" after a space begin a comment, even in quotes. So that space is written as an expansion with a width of
    one and a precision of zero: a blank.
    """
    if re.search(r"[\r\n\0]", value):
        raise ConfigValueError(f"supervisord's configuration can't have line breaks: {value!r}.")
    return re.sub(r"\s(?=[#;])", "%(ENV_PATH)1.0s", value.replace("%", "%%"))
