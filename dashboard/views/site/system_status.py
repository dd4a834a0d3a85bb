"""The system status page, for operators and administrators."""

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
    """Show problems, worst first, with advice; then the checks that passed. The page refreshes every few seconds."""
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
