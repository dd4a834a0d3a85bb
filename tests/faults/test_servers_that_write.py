"""Writing to a faulty server with every verb: nothing is lost, and nothing happens twice."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import redis
from django.test import Client
from django.utils import timezone
from django.utils.html import escape

from deployments.accounts import idempotency
from deployments.accounts.availability import client_for
from deployments.client import transport
from deployments.live.transitions import transition
from deployments.mirror import refresh
from deployments.models import HostingAccount, Operation
from deployments.models.operation import Kind, State
from deployments.operations import dispatch, run, submit
from deployments.operations.matching import request_of
from deployments.timing import LEASE_SECONDS
from tests.doubles import mms as faults
from tests.doubles.mms import MMS, PlainDialect, Reply
from tests.faults.verbs import VERBS, Verb, furnished, shows
from tests.site import wait_until
from tests.support.lifecycle import account_at, later, present, turn
from tests.support.workshop import sign_in_superuser

pytestmark = pytest.mark.django_db(transaction=True)

# Servers of the table. The API reference allows all three.
SERVERS = {
    "to the letter": lambda: MMS(dialect=PlainDialect()),  # an image names no manifest
    "images name their manifest": lambda: MMS(),
    "idempotent": lambda: MMS(extensions=True),
}
WAITS = {State.NOT_STARTED, State.SUCCEEDED}  # accepted, or done immediately


@dataclass(frozen=True)
class Case:
    """Response of the server to a request, and the expected reaction of the dashboard.

    first: the allowed states of the operation after the first turn. cause: text that the reason contains.
    refused: the server refused the request, so it isn't retried. slow: the case runs into time limits, which the test
    shortens.
    """

    fault: faults.Fault | None
    first: set[State]
    cause: str = ""
    refused: bool = False
    slow: bool = False
    except_for: dict[str, set[State]] = field(default_factory=dict)


def busy_until_a_date(connection: faults.Connection, effect: object) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(minutes=2), usegmt=True)
    connection.reply(Reply(429, headers={"Retry-After": date}))


ELSEWHERE = MMS()


def redirect(code: int) -> faults.Fault:
    return lambda connection, effect: connection.reply(Reply(code, headers={"Location": f"{ELSEWHERE.url}/api/x"}))


def nonsense(reply: Reply) -> Reply:
    return Reply(reply.status, [{"id": 7.5, "name": [], "version": {}}, None], {"x-ms-request-id": "a/b c"})


def more(reply: Reply) -> Reply:
    extra = {"zone": {"of": ["nobody", 7]}, "": None, "Ünknown": True}
    return Reply(reply.status, reply.body | extra if reply.body else None, reply.headers | {"X-Zone": "7"})


def anonymous(reply: Reply) -> Reply:
    return Reply(reply.status, reply.body, {"x-ms-request-id": ""})


UNCERTAIN, QUEUED, FAILED = {State.UNCERTAIN}, {State.QUEUED}, {State.FAILED}
DELETED = {"delete_service": {State.SUCCEEDED}}  # of a response to a deletion only the status is read
SYNCHRONOUS = {verb: {State.SUCCEEDED} for verb in ("register_model", "create_manifest", "delete_service")}

CASES: dict[str, Case] = {
    "the answer is lost after the effect": Case(faults.lose_answer, UNCERTAIN, "no usable response"),
    "reset before the effect": Case(faults.drop, UNCERTAIN, "no usable response"),
    "cut within the answer": Case(faults.truncate, UNCERTAIN, "no usable response"),
    "invalid JSON after the effect": Case(faults.garbage, UNCERTAIN, "isn't JSON|doesn't include", except_for=DELETED),
    "wrong types after the effect": Case(
        faults.answer(nonsense), UNCERTAIN, "isn't valid|returned no operation", except_for=DELETED
    ),
    "no operation is named": Case(faults.answer(anonymous), UNCERTAIN, "returned no operation", except_for=SYNCHRONOUS),
    "unknown fields": Case(faults.answer(more), WAITS),
    "400": Case(faults.status(400, {"error": {"message": "A bad word."}}), FAILED, "A bad word", refused=True),
    "401": Case(faults.status(401), QUEUED, "rejected this account's token .status 401."),
    "403": Case(faults.status(403), FAILED, "status 403", refused=True),
    "404": Case(
        faults.status(404), FAILED, "status 404", refused=True, except_for={"delete_service": {State.UNCERTAIN}}
    ),
    "409": Case(faults.status(409), FAILED, "status 409", refused=True),
    "429, in seconds": Case(faults.status(429, None, Retry_After="120"), QUEUED, "busy .status 429."),
    "429, as a date": Case(busy_until_a_date, QUEUED, "busy .status 429."),
    "500 before the effect": Case(faults.status(500), UNCERTAIN, "failed .status 500."),
    "500 after the effect": Case(faults.after_effect(faults.status(500)), UNCERTAIN, "failed .status 500."),
    "502, a page of HTML": Case(faults.html(502), UNCERTAIN, "failed .status 502."),
    "502 after the effect": Case(faults.after_effect(faults.html(502)), UNCERTAIN, "failed .status 502."),
    "503": Case(faults.status(503), UNCERTAIN, "failed .status 503."),
    "503 with Retry-After": Case(faults.status(503, None, Retry_After="120"), QUEUED, "busy .status 503."),
    "redirected elsewhere": Case(redirect(307), FAILED, "redirects to another address", refused=True),
    "redirected for good": Case(redirect(301), FAILED, "redirects to another address", refused=True),
    "done, and told to look elsewhere": Case(
        faults.after_effect(redirect(303)), UNCERTAIN, "redirects to another address"
    ),
    "cut within the headers": Case(faults.cut_headers, UNCERTAIN | WAITS),
    "ten bytes a second": Case(faults.after_effect(faults.drip), UNCERTAIN, "not complete after", slow=True),
    "ten bytes a second, in the headers": Case(faults.drip_headers, UNCERTAIN, "not complete after", slow=True),
    "it hangs before the effect": Case(faults.hang_until_disconnect, UNCERTAIN, "took too long", slow=True),
    "it hangs after the effect": Case(
        faults.after_effect(faults.hang_until_disconnect), UNCERTAIN, "took too long", slow=True
    ),
    "it acts after the client stopped waiting": Case(faults.late(0.3), UNCERTAIN, "took too long", slow=True),
    "killed before sending": Case(None, UNCERTAIN, "worker that sent this stopped"),
    "killed between sending and recording": Case(None, UNCERTAIN, "worker that sent this stopped"),
}


@pytest.fixture(scope="module", autouse=True)
def elsewhere() -> Iterator[MMS]:
    with ELSEWHERE:
        yield ELSEWHERE
    assert not ELSEWHERE.requests, "neither a request nor a token followed a redirect"


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if case.slow else []) for name, case in CASES.items()]
)
def test_nothing_is_lost_and_nothing_happens_twice(
    name: str, server: str, live_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, browser = CASES[name], sign_in_superuser()
    with SERVERS[server]() as mms:
        account = furnished(account_at(mms.url), mms)
        for verb in VERBS if mms.extensions else ():
            idempotency.record(account, verb.name, declared=True)  # as after an earlier response
        settles, sent = {}, {}
        for verb in VERBS:
            with monkeypatch.context() as limits:
                if case.slow:
                    # Only one of the two limits ends the call. The deadline also covers connecting, which takes longer
                    # on a busy machine; a request that wasn't sent before it is queued again, not uncertain.
                    drips = case.cause == "not complete after"
                    limits.setattr(transport, "READ_TIMEOUT_SECONDS", 30 if drips else 0.15)
                    limits.setattr(transport, "DEADLINE_SECONDS", 1.5 if drips else 30)
                operation = sent[verb] = send(verb.ask(account), case, verb, mms)
            assert operation.state in case.except_for.get(verb.name, case.first), verb
            if operation.state in UNCERTAIN | QUEUED | FAILED:
                assert_it_says_why(operation, case)
            if "Retry-After" in name or name.startswith("429"):
                assert_it_waits(operation)
            settles[verb] = findable(verb, server, mms.effects[verb.effect])
        assert_pages_say_it(sent.values(), browser)
        settle(sent.values(), mms)
        assert not mms.repeated
        for verb, operation in sent.items():
            operation.refresh_from_db()
            assert_the_end_is_true(operation, case, verb, mms, settles[verb])


def send(operation: Operation, case: Case, verb: Verb, mms: MMS) -> Operation:
    """Run the first turn of a worker. In the two cases without a fault, the worker dies."""
    if case.fault:
        mms.plan(verb.method, verb.path, case.fault)
        operation = turn(operation)
        wait_until(lambda: mms.idle, 5, "the server to finish the request", every=0.01)
        return operation
    now = timezone.now()
    transition(operation, State.SENDING, sent_at=now, attempts=1, claimed_until=now + timedelta(seconds=LEASE_SECONDS))
    if case is CASES["killed between sending and recording"]:
        with client_for(operation.account) as client:
            run.SEND[operation.kind](client, request_of(operation), str(operation.pk))
    dispatch.sweep()
    assert Operation.objects.get(pk=operation.pk).state == State.SENDING, "its worker may still be running"
    later(operation, 91)
    dispatch.sweep()
    return Operation.objects.get(pk=operation.pk)


def assert_it_says_why(operation: Operation, case: Case) -> None:
    assert re.search(case.cause, operation.error_message)
    assert operation.error_message.endswith("."), "the reason must be a sentence"


def assert_pages_say_it(asked: Iterable[Operation], browser: Client) -> None:
    """Assert that the list shows every reason, and each detail page its own."""
    *_, last = asked
    listed = browser.get(f"/accounts/{last.account.name}/operations/")
    page = browser.get(f"/accounts/{last.account.name}/operations/{last.pk}/")
    assert (listed.status_code, page.status_code) == (200, 200)
    assert all(escape(operation.error_message) in listed.content.decode() for operation in asked)
    assert escape(last.error_message) in page.content.decode()


def assert_it_waits(operation: Operation) -> None:
    account = HostingAccount.objects.get()
    assert 100 < (present(account.not_before) - timezone.now()).total_seconds() < 121
    later(operation, 60)
    refresh.request_refresh(account)
    assert not dispatch.tick(), "no operation may be tried"
    assert not refresh.refresh_due(), "a user's request doesn't override the pause of the server"


def settle(asked: Iterable[Operation], mms: MMS) -> None:
    """Run turns for half an hour, while the server works and a refused token is replaced."""
    for n in range(45):
        rows = Operation.objects.in_bulk([operation.pk for operation in asked])
        going_on = [row for row in rows.values() if row.is_open and not submit.needs_decision(row)]
        if not going_on:
            return
        mms.end()
        HostingAccount.objects.get().replace_token(MMS.token)
        if n % 5 == 0:
            refresh.refresh(going_on[0].account_id, refresh.LISTS)
        for operation in going_on:
            turn(later(operation, 40))


def findable(verb: Verb, server: str, happened: int) -> bool:
    """Return True if a lost request is resolved automatically. Otherwise a user decides."""
    match verb.name:
        case Kind.CREATE_IMAGE:
            return server == "idempotent" or (happened > 0 and server != "to the letter")
        case Kind.UPDATE_SERVICE:
            return server == "idempotent" or happened > 0
    return True


def assert_the_end_is_true(operation: Operation, case: Case, verb: Verb, mms: MMS, settles: bool) -> None:
    effects = mms.effects[verb.effect]
    if case.refused and verb.name not in case.except_for:
        assert (operation.state, effects) == (State.FAILED, 0)
    elif settles or case.first & (WAITS | QUEUED) == case.first:
        assert (operation.state, effects) == (State.SUCCEEDED, 1)
        assert shows(operation, mms)
    else:
        assert submit.needs_decision(operation)
        assert "Send it again (if it did" in operation.error_message
        assert "or mark it as failed (if it did" in operation.error_message


def test_the_table_has_as_many_cases_as_the_documentation_says() -> None:
    assert len(CASES) * len(VERBS) * len(SERVERS) == 558
