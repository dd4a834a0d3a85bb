"""The form of the test console."""

import json

from django import forms

MAX_BODY_CHARS = 1_000_000  # for single test requests, not for batches


class ConsoleForm(forms.Form):
    """A request body in JSON."""

    body = forms.CharField(
        label="Request body (JSON)",
        max_length=MAX_BODY_CHARS,
        strip=False,
        error_messages={"required": "Enter a request body, such as {}."},
        widget=forms.Textarea(attrs={"rows": 8, "class": "mono", "spellcheck": "false", "autocapitalize": "none"}),
    )

    def clean_body(self) -> str:
        """Return the body unchanged. Raise ValidationError unless it is JSON."""
        text: str = self.cleaned_data["body"]
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            message = f"This isn’t valid JSON. Line {error.lineno}, column {error.colno}: {error.msg}."
            raise forms.ValidationError(message) from None
        except ValueError:  # Python limits the number of digits of an integer
            raise forms.ValidationError("This JSON contains a number that is too long.") from None
        except RecursionError:
            raise forms.ValidationError("This JSON is nested too deeply.") from None
        return text
