"""Template backend that shows invisible characters in text from servers and users.

Direction marks can make a file name read backwards ("exe.png" for "gnp.exe"), and zero-width characters make different
names look equal. Pages show each as its code point, such as [U+202E]. Form values and URLs aren't changed, because
users edit or follow them.
"""

import re
from typing import Any

from django.template.backends import django as backend
from django.utils.safestring import SafeString

# Controls except tab and line breaks, soft hyphen, and characters without width or that change the direction.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e007f]"
)
ORDINARY = b"\t\n\r" + bytes(range(0x20, 0x7F))
JOINERS = "\u200c\u200d"  # part of ordinary words in several scripts, and of emoji
# Textareas with their contents, tags with their attributes.
MARKUP = re.compile(r"""<textarea\b.*?</textarea\s*>|<[a-zA-Z/!](?:[^<>"']|"[^"]*"|'[^']*')*>""", re.DOTALL)
READ_ALOUD = re.compile(r"""(?<=\s)(?:title|alt|aria-label|placeholder)="[^"]*\"""")


def visible(text: str) -> str:
    """Return the text with each invisible character as its code point."""
    return INVISIBLE.sub(_code_point, text)


def visible_html(html: str) -> str:
    """Return a page, or a part of one, with the invisible characters of its texts as code points."""
    # Most characters of a page are ASCII: removing those first takes a tenth of the time of searching them all.
    if not INVISIBLE.search(html.encode(errors="replace").translate(None, ORDINARY).decode()):
        return html
    parts, at = [], 0
    for markup in MARKUP.finditer(html):
        parts += [visible(html[at : markup.start()]), _visible_attributes(markup[0])]
        at = markup.end()
    return SafeString("".join([*parts, visible(html[at:])]))


def _visible_attributes(markup: str) -> str:
    if markup.startswith("<textarea"):
        return markup
    return READ_ALOUD.sub(lambda attribute: visible(attribute[0]), markup)


def _code_point(found: re.Match[str]) -> str:
    character, before, after = found[0], found.string[: found.start()][-1:], found.string[found.end() :][:1]
    if character in JOINERS and before > "\x7f" and after > "\x7f":
        return character
    return f"[U+{ord(character):04X}]"


class Template(backend.Template):
    """Template whose output has no invisible characters."""

    def render(self, context: Any = None, request: Any = None) -> SafeString:
        """Return the rendered template."""
        return SafeString(visible_html(super().render(context, request)))


class Templates(backend.DjangoTemplates):
    """Django's template backend with these templates."""

    def get_template(self, template_name: str) -> Template:
        """Return the template. Raises TemplateDoesNotExist."""
        return Template(super().get_template(template_name).template, self)

    def from_string(self, template_code: str) -> Template:
        """Return the template with this code."""
        return Template(super().from_string(template_code).template, self)
