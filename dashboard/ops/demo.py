"""Deployment of the iris example for `manage.py demo`, with the same operations that the forms submit.

Each step submits an operation and polls the database until it ends. Every run registers a new version of the model. The
first one creates the service, and later ones update it.
"""

import json
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings

from dashboard.actions.scoring import ScoringResult, ScoringTarget, score
from dashboard.files import store
from deployments.models import Asset, Cluster, HostingAccount, Operation, RegistryInfo, Service
from deployments.operations import submit

EXAMPLE = settings.SHARE_DIR / "examples" / "iris"
NAME = "iris"
REQUESTED_BY = "demo"
STEP_TIMEOUT_SECONDS = 600.0  # the first build downloads scikit-learn
KEY_TIMEOUT_SECONDS = 30.0


class DemoError(Exception):
    """A step failed. The message gives the reason."""


@dataclass(frozen=True)
class Step:
    """A completed step, its result, and the seconds it took."""

    label: str
    result: str
    seconds: float


@dataclass
class Demo:
    """The iris example in one hosting account."""

    account: HostingAccount
    progress: Callable[[Operation], None] = field(default=lambda _: None)

    def run(self) -> Iterator[Step]:
        """Run every step and yield it when it is complete. Raises DemoError and RequestRefusedError."""
        model = yield from self._step("register model", self._register_model)
        manifest = yield from self._step("create manifest", lambda: self._create_manifest(model))
        image = yield from self._step("create image", lambda: self._create_image(manifest))
        known = Service.objects.filter(account=self.account, name=NAME, vanished_at=None).exclude(mms_id=None).first()
        if known:
            yield from self._step("update service", lambda: self._update_service(known, image))
        else:
            yield from self._step("create service", lambda: self._create_service(image))

    def score(self) -> tuple[str, ScoringResult]:
        """Send the example request to the service. Return the request body and the result."""
        service = self._wait_for_key()
        body = json.dumps(json.loads((EXAMPLE / "schema.json").read_text())["example"])
        return body, score(ScoringTarget(service.account.base_url, service.scoring_uri, service.scoring_key), body)

    def _step(self, label: str, request: Callable[[], Operation]) -> Generator[Step, None, Any]:
        started = time.monotonic()
        operation = self._finish(request())
        resource = operation.resource
        yield Step(label, str(resource), time.monotonic() - started)
        return resource

    def _finish(self, operation: Operation) -> Operation:
        until = time.monotonic() + STEP_TIMEOUT_SECONDS
        while operation.is_open:
            if submit.needs_decision(operation):
                raise DemoError(f"{operation}: {operation.error_message}")
            if time.monotonic() > until:
                raise DemoError(
                    f"{operation} is still {operation.get_state_display().lower()} after {STEP_TIMEOUT_SECONDS:.0f} s."
                )
            self.progress(operation)
            time.sleep(0.1)
            operation = Operation.objects.get(pk=operation.pk)
        if operation.state != "succeeded":
            raise DemoError(f"{operation}: {operation.error_message or operation.get_state_display()}")
        return operation

    def _register_model(self) -> Operation:
        model = import_file(EXAMPLE / "model.pkl")
        return submit.register_model(
            self.account,
            REQUESTED_BY,
            name=NAME,
            url=model.url,
            description="Iris species, logistic regression",
            tags=["demo"],
        )

    def _create_manifest(self, model: Any) -> Operation:
        driver, schema = self._asset("score.py", "text/x-python"), self._asset("schema.json", "application/json")
        return submit.create_manifest(
            self.account,
            REQUESTED_BY,
            models=[model],
            assets=[driver, schema],
            driver=driver,
            runtime_type="ScikitPython",
            pip_requirements=(EXAMPLE / "requirements.txt").read_text(),
            description="Iris example",
        )

    def _create_image(self, manifest: Any) -> Operation:
        registry = RegistryInfo.objects.filter(account=self.account).first()
        if registry is None:
            raise DemoError(f"The account {self.account} has no registry for images.")
        return submit.create_image(
            self.account, REQUESTED_BY, manifest=manifest, registry=registry, description="Iris example"
        )

    def _create_service(self, image: Any) -> Operation:
        cluster = Cluster.objects.filter(account=self.account).first()
        if cluster is None:
            raise DemoError(f"The account {self.account} has no cluster for services.")
        return submit.create_service(self.account, REQUESTED_BY, name=NAME, image=image, cluster=cluster)

    def _update_service(self, service: Service, image: Any) -> Operation:
        return submit.update_service(self.account, REQUESTED_BY, service=service, image=image)

    def _asset(self, file_name: str, mime_type: str) -> Asset:
        """Return the asset for a file of the example. If the file is unchanged, reuse the asset of an earlier run."""
        stored = import_file(EXAMPLE / file_name)
        asset, _ = Asset.objects.get_or_create(
            account=self.account,
            name=Path(file_name).stem,
            url=stored.url,
            defaults={"mime_type": mime_type, "created_by": REQUESTED_BY},
        )
        return asset

    def _wait_for_key(self) -> Service:
        """Wait until the scoring URL and the key are synced from the server. Return the service. Raises DemoError."""
        until = time.monotonic() + KEY_TIMEOUT_SECONDS
        while time.monotonic() < until:
            service = Service.objects.get(account=self.account, name=NAME, vanished_at=None)
            if service.scoring_uri and service.scoring_key:
                return service
            time.sleep(0.1)
        raise DemoError(f"The service {NAME} is running, but the server reported no scoring URL or key for it.")


def import_file(path: Path) -> store.StoredFile:
    """Store a copy of the file as an upload. Return the stored file."""
    incoming = store.IncomingFile()
    try:
        incoming.write([path.read_bytes()])
        return incoming.store(path.name)
    finally:
        incoming.discard()
