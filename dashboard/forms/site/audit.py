"""What to look for in the audit."""

from datetime import datetime, time
from typing import Any

from django import forms
from django.db.models import Q, QuerySet
from django.utils import timezone

from dashboard.audit.models import AuditEntry


class AuditFilterForm(forms.Form):
    """All fields are optional; `find` gives the entries that fit all that are filled in."""

    q = forms.CharField(
        label="Search", required=False, max_length=200, widget=forms.TextInput(attrs={"type": "search"})
    )
    actor = forms.CharField(label="User", required=False, max_length=150)
    action = forms.ChoiceField(required=False)
    account = forms.ChoiceField(required=False)
    result = forms.ChoiceField(required=False, choices=[("", "Any result"), *AuditEntry.Result.choices])
    since = forms.DateField(label="From", required=False, widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(label="To", required=False, widget=forms.DateInput(attrs={"type": "date"}))

    def __init__(self, entries: QuerySet[AuditEntry], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.entries = entries
        actions = entries.order_by("action").values_list("action", flat=True).distinct()
        accounts = entries.exclude(account_name="").order_by("account_name").values_list("account_name", flat=True)
        self.fields["action"].choices = [("", "Any action"), *((name, action_label(name)) for name in actions)]  # type: ignore[attr-defined]
        self.fields["account"].choices = [  # type: ignore[attr-defined]
            ("", "Any account"),
            *((name, name) for name in accounts.distinct()),
        ]

    def find(self) -> QuerySet[AuditEntry]:
        """The entries that fit, newest first; none where a field makes no sense."""
        if not self.is_valid():
            return self.entries.none()
        asked = self.cleaned_data
        same = {"actor": "actor", "action": "action", "account": "account_name", "result": "result"}
        found = self.entries.filter(**{field: asked[name] for name, field in same.items() if asked[name]})
        if asked["since"]:
            found = found.filter(at__gte=_begin(asked["since"]))
        if asked["until"]:
            found = found.filter(at__lte=_end(asked["until"]))
        for word in asked["q"].split():
            found = found.filter(Q(target__icontains=word) | Q(actor__icontains=word) | Q(address__istartswith=word))
        return found


def action_label(action: str) -> str:
    """`register_model` as people read it."""
    return action.replace("_", " ").capitalize()


def _begin(day: Any) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


def _end(day: Any) -> datetime:
    """Its last microsecond: the day after the last one that there is would be an error."""
    return timezone.make_aware(datetime.combine(day, time.max))
