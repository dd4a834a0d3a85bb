"""Removal of known secrets from text that another program sent, in every spelling that the text may have.

A server may echo a secret of a request as it is, escaped for JSON, HTML or a URL, or in base64: alone, as
`user:password`, or within a longer value. Escapes may be nested. `Redactor` recognizes all of these, from
MIN_SECRET_CHARS characters on.

Text without a secret costs little: each secret has runs of ASCII letters and digits that no escape changes, and only
text with one of these runs is searched.
"""

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from html.entities import codepoint2name
from typing import Any
from urllib.parse import quote, quote_plus

from netguard import safe_yaml

MASK = "…"
MIN_SECRET_CHARS = 4
# In ids and URLs, which must remain usable: a short secret is likely to be part of a random id.
MIN_ID_SECRET_CHARS = 8
MAX_SPELLED_BYTES = 16 * 1024  # of a secret in its longest spelling; text in parts must overlap by this much
LONG_CHARS = 128  # secrets of this length, such as keys, are recognized by parts, so that cut ones are as well
WINDOW_CHARS = 32  # length of these parts
MAX_WINDOWS = 8
REMEMBERED_BYTES = 64 * 1024
MAX_REMEMBERED = 100
GRAM_CHARS = 8  # see Redactor.may_contain
GRAM_CORE_CHARS = 16
GRAM_STRIDE = GRAM_CORE_CHARS - GRAM_CHARS + 1

_NAMES = {"'": "apos"} | {chr(code): name for code, name in codepoint2name.items()}
_BACKSLASH = r"\\|%(?:25)*5[cC]"  # as it is, or in a URL
_SHORT_ESCAPES = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}
_ALPHANUMERIC = re.compile(r"[A-Za-z0-9]+")
_TOKEN = re.compile(r"[A-Za-z0-9+/_=.~-]+")
_BASE64_RUN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-")
_IN_URL = {"%2B", "%2F"}
_TOKEN_RUN = _BASE64_RUN | frozenset(".~")
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ][\d:.]+(?:Z|[+-]\d\d:?\d\d)?)?")
_PEM_FRAME = re.compile(r"-----(?:BEGIN|END) [A-Z0-9 ]+-----")

Spans = list[tuple[int, int]]


class _Matcher:
    """Spellings of one secret. Text contains none unless it contains one of `cores`."""

    def __init__(self, secret: str) -> None:
        self._encoded = sorted({part for form in _forms(secret) for part in _base64_parts(form)})
        is_long = len(secret) >= LONG_CHARS and _TOKEN.fullmatch(secret)
        self._parts, self._is_long = (_windows(secret) if is_long else [secret]), is_long
        self.cores = frozenset(map(_core, [*self._parts, *self._encoded]))

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """Return the expressions for the secret and for its base64. Compiled only when a core was found."""
        return (
            re.compile("|".join(map(_spelled, self._parts))),
            re.compile("|".join(_spelled(part, url_safe=True) for part in self._encoded)),
        )

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the start and end of each occurrence, with all of the base64 or long token around it."""
        plain, encoded = self._patterns
        if self._is_long:
            yield from _all_extended(text, plain, _TOKEN_RUN)
        else:
            yield from (found.span() for found in plain.finditer(text))
        yield from _all_extended(text, encoded, _BASE64_RUN)


def _all_extended(text: str, pattern: re.Pattern[str], run: frozenset[str]) -> Iterator[tuple[int, int]]:
    """Yield all matches, extended. One within the span before it is skipped: long text can consist of matches."""
    reached = 0
    for found in pattern.finditer(text):
        if found.end() > reached:
            span = _extended(text, found.span(), run)
            reached = span[1]
            yield span


def _extended(text: str, span: tuple[int, int], run: frozenset[str]) -> tuple[int, int]:
    """Return the span with all adjoining characters of the set, and the padding of base64."""
    start, end = span
    while start and (step := 1 if text[start - 1] in run else 3 if text[start - 3 : start].upper() in _IN_URL else 0):
        start -= step
    while end < len(text) and (step := 1 if text[end] in run else 3 if text[end : end + 3].upper() in _IN_URL else 0):
        end += step
    padding = re.compile("(?:=|%3[dD]){0,2}").match(text, end)
    return start, padding.end() if padding else end


class Redactor:
    """The secrets that text must not show. Immutable; create one for many texts."""

    def __init__(self, secrets: Iterable[str] = (), least: int = MIN_SECRET_CHARS) -> None:
        """Recognize those of `secrets` that have at least `least` characters."""
        self.secrets = frozenset(part for secret in secrets for part in _parts(secret) if len(part) >= least)
        self._matchers = [_matcher(secret) for secret in sorted(self.secrets, key=len, reverse=True)]
        cores = {core for matcher in self._matchers for core in matcher.cores}
        self._short = sorted((core for core in cores if len(core) < GRAM_CORE_CHARS), key=len)
        long = [core for core in cores if len(core) >= GRAM_CORE_CHARS]
        self._grams = {core[at : at + GRAM_CHARS] for core in long for at in range(len(core) - GRAM_CHARS + 1)}
        self._clean: set[int] = set()  # hashes of large texts without a secret
        self._ids: Redactor | None = self if least >= MIN_ID_SECRET_CHARS else None

    def including(self, secrets: Iterable[str]) -> "Redactor":
        """Return a redactor that also recognizes these secrets."""
        more = frozenset(secrets) - self.secrets - {""}
        return _union(self.secrets, more) if more else self

    @property
    def for_ids(self) -> "Redactor":
        """Return the redactor for ids and URLs, which only recognizes secrets of MIN_ID_SECRET_CHARS characters."""
        if self._ids is None:
            self._ids = Redactor(self.secrets, MIN_ID_SECRET_CHARS)
        return self._ids

    def may_contain(self, text: str) -> bool:
        """Return False if `text` certainly contains no secret.

        For long secrets, `text` is sampled: a run of GRAM_CORE_CHARS covers a whole sample. The time thus doesn't
        depend on the number of secrets.
        """
        if any(core in text for core in self._short):
            return True
        grams, starts = self._grams, range(0, len(text) - GRAM_CHARS + 1, GRAM_STRIDE)
        return bool(grams) and not grams.isdisjoint([text[at : at + GRAM_CHARS] for at in starts])

    def spans(self, text: str) -> Spans:
        """Return the start and end of each secret in `text`, in order and without overlap."""
        if not self.may_contain(text):
            return []
        found = sorted(
            span
            for matcher in self._matchers
            if any(core in text for core in matcher.cores)
            for span in matcher.spans(text)
        )
        merged: Spans = []
        for start, end in found:
            if merged and start < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def text(self, value: str) -> str:
        """Return `value` with each secret replaced by MASK."""
        spans = self.spans(value)
        if not spans:
            return value
        starts, ends = [0, *(end for _, end in spans)], [*(start for start, _ in spans), len(value)]
        return MASK.join(value[start:end] for start, end in zip(starts, ends, strict=True))

    def json(
        self,
        body: bytes,
        *,
        id_names: frozenset[str] = frozenset(),
        is_kept: Callable[[str, str], bool] | None = None,
    ) -> Any:
        """Parse JSON and redact every string in it, names of fields included. Raises ValueError or RecursionError.

        id_names: fields, in lower case, to redact with `for_ids`.
        is_kept: returns True for a field (its name in lower case, "" for the name itself) whose value isn't redacted.
        """
        data = json.loads(body)
        if not self.secrets:
            return data
        return data if self._is_clean(body) else _Walk(self, id_names, is_kept).value(data, "")

    def _is_clean(self, body: bytes) -> bool:
        """Return True if no string of a JSON document contains a secret. Remembers large ones: lists are repeated."""
        if (known := hash(body)) in self._clean:
            return True
        raw = body.decode("latin-1")  # the runs that `may_contain` searches for are ASCII
        # Escapes of ASCII characters, and other encodings than UTF-8, hide these runs.
        if "\\u00" in raw or "\0" in raw or self.may_contain(raw):
            return False
        if len(body) >= REMEMBERED_BYTES:
            self._clean = {known, *self._clean} if len(self._clean) < MAX_REMEMBERED else {known}
        return True


@dataclass(frozen=True)
class _Walk:
    """Redaction of a parsed JSON document."""

    redactor: Redactor
    id_names: frozenset[str]
    is_kept: Callable[[str, str], bool] | None

    def value(self, data: Any, name: str) -> Any:
        """Return `data`, the value of the field `name`, redacted."""
        if isinstance(data, str):
            return self.string(data, name)
        if isinstance(data, dict):
            return {self.string(str(key), ""): self.value(item, str(key).lower()) for key, item in data.items()}
        if isinstance(data, list):
            return [self.value(item, name) for item in data]
        if isinstance(data, int | float) and not isinstance(data, bool) and str(data) in self.redactor.secrets:
            return MASK
        return data

    def string(self, text: str, name: str) -> str:
        """Return the text of the field `name` redacted, and cleaned of what `wire_values.text` removes later."""
        text = text.replace("\0", "")
        if (self.is_kept and self.is_kept(name, text)) or _DATE.fullmatch(text):
            return text
        redactor = self.redactor.for_ids if name in self.id_names else self.redactor
        return redactor.text(text)


def credentials_in_kubeconfig(text: str) -> list[str]:
    """Return the secrets in a kubeconfig: tokens, keys, passwords and certificates, of all users and clusters."""
    try:
        document = safe_yaml.load(text)
    except safe_yaml.UnsupportedYamlError:  # stored by an earlier release
        return re.findall(r"(?:token|password|secret|-data)[\"']?\s*:\s*[\"']?([^\s\"',}]+)", text)
    return list(_credentials(document))


def _credentials(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if isinstance(value, dict | list):
                yield from _credentials(value)
            elif re.search(r"token$|password$|secret$|-data$", str(name), re.IGNORECASE) and value is not None:
                yield str(value)
                yield from _pem_lines(str(value)) if str(name).endswith("-data") else ()
    elif isinstance(node, list):
        for item in node:
            yield from _credentials(item)


def _pem_lines(value: str) -> Iterator[str]:
    """Yield the lines of a certificate or key in base64, as a server that decodes it may show them."""
    try:
        pem = base64.b64decode("".join(value.split()), validate=True).decode()
    except ValueError:
        return
    yield from (line for line in pem.splitlines() if len(line) > 16 and not _PEM_FRAME.fullmatch(line.strip()))


@lru_cache(maxsize=64)
def _union(secrets: frozenset[str], more: frozenset[str]) -> Redactor:
    return Redactor(secrets | more)


def _parts(secret: str) -> Iterator[str]:
    """Yield the secret, without surrounding space, and its lines: logs are redacted by line."""
    secret = secret.replace("\0", "")
    yield secret.strip()
    lines = [line.strip() for line in secret.splitlines()]
    if len(lines) > 1:
        yield from (line for line in lines if len(line) >= MIN_ID_SECRET_CHARS and not _PEM_FRAME.fullmatch(line))


# --- spellings -----------------------------------------------------------------------------------------------------


_matcher = lru_cache(maxsize=4096)(_Matcher)


def _core(text: str) -> str:
    """Return the longest run of ASCII letters and digits, which every spelling contains; "" if there is none."""
    return max(_ALPHANUMERIC.findall(text), key=len, default="")


def _windows(text: str) -> list[str]:
    """Return parts of a long text, evenly spaced."""
    last = len(text) - WINDOW_CHARS
    return sorted({text[at : at + WINDOW_CHARS] for at in range(0, last + 1, max(1, last // (MAX_WINDOWS - 1)))})


def _forms(secret: str) -> set[bytes]:
    """Return the bytes that a server may encode as base64."""
    texts = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], html.escape(secret)}
    texts |= {quote(secret, safe=""), quote_plus(secret)}
    forms = {text.encode("utf-8", "surrogatepass") for text in texts}
    with suppress(UnicodeEncodeError):
        forms.add(secret.encode("latin-1"))  # Basic credentials of HTTP libraries
    return forms


def _base64_parts(data: bytes) -> list[str]:
    """Return the base64 characters that depend only on `data`, at each of the three alignments of what surrounds it."""
    parts = []
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + data).decode()
        first = -(-shift * 8 // 6)
        parts.append(encoded[first : (shift + len(data)) * 8 // 6])
    return [window for part in parts for window in (_windows(part) if len(part) >= LONG_CHARS else [part])]


def _spelled(text: str, *, url_safe: bool = False) -> str:
    """Return a regular expression for the text in every spelling. url_safe: also base64 with "-" and "_"."""
    found, at = [], 0
    while at < len(text):
        count = len(text) - at - len(text[at:].lstrip("\\"))
        if count:
            found.append(f"(?:{_BACKSLASH}|&(?:amp;)*#(?:0*92|[xX]0*5[cC]);){{{count},}}+")
        else:
            found.append(_character(text[at], after_backslash=text[at - 1 : at] == "\\", url_safe=url_safe))
        at += count or 1
    return "".join(found)


def _character(char: str, *, after_backslash: bool, url_safe: bool) -> str:
    """Return an expression for one character. Letters and digits of ASCII aren't escaped by anything.

    after_backslash: the expression before this one matches all backslashes, those of an escape included.
    """
    if char.isascii() and char.isalnum():
        return char
    any_escape, escape = f"(?:{_BACKSLASH})*+", f"(?:{_BACKSLASH})" + ("*+" if after_backslash else "++")
    code, units = ord(char), char.encode("utf-16-be", "surrogatepass")
    raw = char.encode("utf-8", "surrogatepass")
    plain = [re.escape(char), "".join(f"%(?:25)*{_hex(byte, 2)}" for byte in raw)]
    plain += [re.escape({"+": "-", "/": "_"}[char])] if url_safe and char in "+/" else []
    plain += [r"\+"] if char == " " else []
    plain.append(f"&(?:amp;)*#(?:0*{code}|[xX]0*{_hex(code, 1)});")
    plain += [f"&(?:amp;)*{_NAMES[char]};"] if char in _NAMES else []
    escaped = ["".join(f"{escape}x{_hex(byte, 2)}" for byte in raw)]
    escaped.append("".join(f"{escape}u{_hex(units[at] << 8 | units[at + 1], 4)}" for at in range(0, len(units), 2)))
    escaped += [f"{escape}{_SHORT_ESCAPES[char]}"] if char in _SHORT_ESCAPES else []
    escaped += [f"{escape}x{_hex(code, 2)}"] if 0x80 <= code < 0x100 else []
    return f"(?:{any_escape}(?:{'|'.join(plain)})|{'|'.join(escaped)})"


def _hex(number: int, digits: int) -> str:
    """Return an expression for a hexadecimal number in either case."""
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in f"{number:0{digits}x}")
