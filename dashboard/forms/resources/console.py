"""The test console: one request body."""

import json

from django import forms

BODY_MAX = 1_000_000  # characters; the page is for trying out, not for batches


class ConsoleForm(forms.Form):
    body = forms.CharField(
        label="Request body (JSON)",
        max_length=BODY_MAX,
        strip=False,
        error_messages={"required": "Enter a request body, such as {}."},
        widget=forms.Textarea(attrs={"rows": 8, "class": "mono", "spellcheck": "false", "autocapitalize": "none"}),
    )

    def clean_body(self) -> str:
        text: str = self.cleaned_data["body"]
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            message = f"This isn’t valid JSON. Line {error.lineno}, column {error.colno}: {error.msg}."
            raise forms.ValidationError(message) from None
        except ValueError:  # whoever wrote it, nobody reads a number of thousands of digits
            raise forms.ValidationError("This JSON contains a number that is too long.") from None
        except RecursionError:
            raise forms.ValidationError("This JSON is nested too deeply.") from None
        return text
