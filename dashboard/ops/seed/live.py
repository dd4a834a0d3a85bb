"""Live state of the healthy account: recent sync times in the database, and log lines in Redis."""

from random import Random

from django.utils import timezone
from redis import RedisError

from dashboard.ops.seed.accounts import HEALTHY, LISTS, SERVER
from deployments.live import events, redis
from deployments.models import HostingAccount, Image, Manifest, Operation, RegisteredModel, Service
from deployments.models.operation import OPEN, TERMINAL, Kind

LOGS = 25  # number of builds and of services with a log, newest first


def keep_fresh() -> None:
    """Make the healthy account look recently synced. Do nothing if it doesn't exist."""
    account = HostingAccount.objects.filter(name=HEALTHY, base_url=f"http://{SERVER}").first()
    if account is None:
        return
    now = timezone.now()
    HostingAccount.objects.filter(pk=account.pk).update(reached_at=now, **{f"{noun}_seen_at": now for noun in LISTS})
    for rows in (RegisteredModel, Manifest, Image, Service):
        rows._default_manager.filter(account=account, vanished_at=None, mms_id__isnull=False).update(seen_at=now)
    Operation.objects.filter(account=account, state__in=OPEN, checked_at__isnull=False).update(checked_at=now)
    if _redis_answers():
        write_logs(account)


def _redis_answers() -> bool:
    try:
        return bool(redis.connection().ping())
    except (RedisError, OSError):
        return False


def write_logs(account: HostingAccount) -> None:
    """Write the logs of the newest builds and services to Redis, unless they already exist."""
    builds = Operation.objects.filter(account=account, kind=Kind.CREATE_IMAGE).exclude(accepted_at=None)
    for build in builds.select_related("image__manifest")[:LOGS]:
        _write(events.operation_log_key(build), _build_lines(build), is_complete=build.state in TERMINAL)
    for service in Service.objects.filter(account=account, vanished_at=None).exclude(mms_id=None)[:LOGS]:
        _write(events.service_log_key(service), _service_lines(service))


def _write(key: str, lines: list[str], is_complete: bool = False) -> None:
    mark = events.log_mark(key)
    if mark is not None and not mark.position:
        events.append_log(key, lines, sum(len(line) + 1 for line in lines), is_complete=is_complete)


def _build_lines(build: Operation) -> list[str]:
    """Return the log lines of a build. For a failed build, they are those in its error details."""
    if log := next((detail["message"] for detail in build.error_details if detail["target"] == "log"), ""):
        return str(log).splitlines()
    manifest = build.image.manifest if build.image else None
    pins = (manifest.properties.get("pip_requirements", "") if manifest else "").split()
    random = Random(build.pk.int)  # noqa: S311 - invented times
    steps = [
        ("check", f"{manifest.runtime_type if manifest else 'Python'}; models: 1, assets: 2", []),
        ("fetch", "models and assets", [f"model.pkl: {random.randrange(2, 90)}.{random.randrange(10)} MB"]),
        ("requirements", "for Python 3.11 on x86_64-unknown-linux-gnu", [f"{len(pins)} packages: {', '.join(pins)}"]),
        ("packages", "install from the lock", [f"byte-compiled in {random.uniform(1, 4):.2f} s"]),
        ("layers", "scoring runtime, models, driver and assets", []),
        ("image", str(build.image_id), ["the manifest is in the store of this machine"]),
    ]
    shown = steps if build.state in TERMINAL else steps[:4]
    at, lines = 0.01, []
    for number, (name, what, details) in enumerate(shown, start=1):
        title = f"Step {number}/{len(steps)} {name}"
        took = random.uniform(0.05, 9)
        lines.append(f"{at:8.2f} s  {title}: {what}")
        lines += [f"{at + took / 2:8.2f} s    {detail}" for detail in details]
        at += took
        if number < len(shown) or build.state in TERMINAL:
            lines.append(f"{at:8.2f} s  {title}: done in {took:.2f} s")
    return lines


def _service_lines(service: Service) -> list[str]:
    random = Random(service.pk)  # noqa: S311
    number = service.revisions[0]["number"] if service.revisions else 1
    lines = [f"Revision {number} starts with 1 process.", "init() done in 1.84 s", "Listening."]
    lines += [f"run() took {random.uniform(3, 40):.1f} ms" for _ in range(40)]
    return [*lines, service.health_detail] if service.health_detail else lines
