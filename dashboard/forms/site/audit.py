"""The filters of the audit log."""

from datetime import datetime, time
from typing import Any

from django import forms
from django.db.models import Q, QuerySet
from django.utils import timezone

from dashboard.audit.models import AuditEntry


class AuditFilterForm(forms.Form):
    """Filters of the audit log, all optional. Entries must match all that are set."""

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

    def find_entries(self) -> QuerySet[AuditEntry]:
        """Return the matching entries, newest first; no entries if a field is invalid."""
        if not self.is_valid():
            return self.entries.none()
        values = self.cleaned_data
        exact = {"actor": "actor", "action": "action", "account": "account_name", "result": "result"}
        entries = self.entries.filter(**{field: values[name] for name, field in exact.items() if values[name]})
        if values["since"]:
            entries = entries.filter(at__gte=_start(values["since"]))
        if values["until"]:
            entries = entries.filter(at__lte=_end(values["until"]))
        for word in values["q"].split():
            entries = entries.filter(Q(target__has_word=word) | Q(actor__has_word=word) | Q(address__istartswith=word))
        return entries


def action_label(action: str) -> str:
    """Return an action as text: `register_model` as "Register model"."""
    return action.replace("_", " ").capitalize()


def _start(day: Any) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


def _end(day: Any) -> datetime:
    """Return the last microsecond of the day. There is no day after the last date, so don't use its start."""
    return timezone.make_aware(datetime.combine(day, time.max))
