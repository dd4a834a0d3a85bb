"""The page that says whether everything works, for the people who can do something about it."""

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard.access.guards import operators
from dashboard.http.request import Request
from dashboard.ops import doctor as checks
from dashboard.ops.doctor import CheckContext, State
from deployments.live import events


@require_safe
@operators
def doctor(request: Request, accounts: frozenset[int] | None) -> HttpResponse:
    """What is not in order, worst first, and what to do; then what is. It fetches itself anew every few seconds."""
    partial = request.htmx.target == "findings"
    if not partial:
        request.stream_position = events.stream_position()
    findings = checks.run_checks(CheckContext(accounts))
    parts = checks.group_by_part(findings).values()
    wrong = [finding for about in parts for finding in about if finding.state != State.OK]
    facts = {
        "wrong": sorted(wrong, key=lambda finding: list(State).index(finding.state)),
        "right": checks.group_by_part(finding for finding in findings if finding.state == State.OK),
        "summary": checks.summary(findings),
        "checked_at": timezone.now(),
        "everything": accounts is None,
    }
    return render(request, "doctor/_findings.html" if partial else "doctor/doctor.html", facts)
