"""The main job with the iris example, step by step, as the forms of the site do it: what `manage.py demo` runs.

Each step asks for an operation and waits for its end by reading the database, which is all a page does too. Every run
registers a new version of the model; the second one updates the service that the first one made.
"""

import json
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings

from dashboard.actions.scoring import ScoringResult, score
from dashboard.files import store
from deployments.models import Asset, Cluster, HostingAccount, Operation, RegistryInfo, Service
from deployments.operations import submit

EXAMPLE = settings.SHARE_DIR / "examples" / "iris"
NAME = "iris"
BY = "demo"
PATIENCE = 600.0  # seconds for one step; the first build installs scikit-learn


class Failed(Exception):
    """The step did not come to a good end; the text is the reason."""


@dataclass(frozen=True)
class Step:
    """One step that is done: what came of it, and how long it took."""

    what: str
    result: str
    seconds: float


@dataclass
class Demo:
    """The iris example in one hosting account."""

    account: HostingAccount
    progress: Callable[[Operation], None] = field(default=lambda operation: None)

    def run(self) -> Iterator[Step]:
        """Do every step, yielding it when it is done. Raises Failed, and submit.Refused."""
        model = yield from self._step("register model", self._register_model)
        manifest = yield from self._step("create manifest", lambda: self._create_manifest(model))
        image = yield from self._step("create image", lambda: self._create_image(manifest))
        known = Service.objects.filter(account=self.account, name=NAME, vanished_at=None).exclude(mms_id=None).first()
        if known:
            yield from self._step("update service", lambda: self._update_service(known, image))
        else:
            yield from self._step("create service", lambda: self._create_service(image))

    def score(self) -> tuple[str, ScoringResult]:
        """Send the example's request to the service, with its key; returns the body and the answer."""
        service = self._wait_for_key()
        body = json.dumps(json.loads((EXAMPLE / "schema.json").read_text())["example"])
        return body, score(service.scoring_uri, service.scoring_key, body)

    def _step(self, what: str, request: Callable[[], Operation]) -> Generator[Step, None, Any]:
        started = time.monotonic()
        operation = self._finish(request())
        resource = operation.resource
        yield Step(what, str(resource), time.monotonic() - started)
        return resource

    def _finish(self, operation: Operation) -> Operation:
        until = time.monotonic() + PATIENCE
        while operation.is_open:
            if submit.needs_decision(operation):
                raise Failed(f"{operation}: {operation.error_message}")
            if time.monotonic() > until:
                raise Failed(f"{operation} is still {operation.get_state_display().lower()} after {PATIENCE:.0f} s.")
            self.progress(operation)
            time.sleep(0.1)
            operation = Operation.objects.get(pk=operation.pk)
        if operation.state != "succeeded":
            raise Failed(f"{operation}: {operation.error_message or operation.get_state_display()}")
        return operation

    def _register_model(self) -> Operation:
        model = keep(EXAMPLE / "model.pkl")
        return submit.register_model(
            self.account, BY, name=NAME, url=model.url, description="Iris species, logistic regression", tags=["demo"]
        )

    def _create_manifest(self, model: Any) -> Operation:
        driver, schema = self._asset("score.py", "text/x-python"), self._asset("schema.json", "application/json")
        return submit.create_manifest(
            self.account,
            BY,
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
            raise Failed(f"The account {self.account} has no registry for images.")
        return submit.create_image(self.account, BY, manifest=manifest, registry=registry, description="Iris example")

    def _create_service(self, image: Any) -> Operation:
        cluster = Cluster.objects.filter(account=self.account).first()
        if cluster is None:
            raise Failed(f"The account {self.account} has no cluster for services.")
        return submit.create_service(self.account, BY, name=NAME, image=image, cluster=cluster)

    def _update_service(self, service: Service, image: Any) -> Operation:
        return submit.update_service(self.account, BY, service=service, image=image)

    def _asset(self, file_name: str, mime_type: str) -> Asset:
        """The asset made of this file of the example: that of an earlier run, if the file is still the same."""
        kept = keep(EXAMPLE / file_name)
        asset, _ = Asset.objects.get_or_create(
            account=self.account,
            name=Path(file_name).stem,
            url=kept.url,
            defaults={"mime_type": mime_type, "created_by": BY},
        )
        return asset

    def _wait_for_key(self) -> Service:
        """The service once the mirror has read its address and key."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            service = Service.objects.get(account=self.account, name=NAME, vanished_at=None)
            if service.scoring_uri and service.scoring_key:
                return service
            time.sleep(0.1)
        raise Failed(f"The service {NAME} is running, but the server reported no scoring URL or key for it.")


def keep(path: Path) -> store.StoredFile:
    """Put a file where uploads are kept."""
    incoming = store.IncomingFile()
    try:
        incoming.write([path.read_bytes()])
        return incoming.store(path.name)
    finally:
        incoming.discard()
