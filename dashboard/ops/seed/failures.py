"""Sample failures, worded like those of the bundled server, its builder and the dashboard."""

from dataclasses import dataclass

from dashboard.ops.seed.catalog import DOMAIN
from deployments.models.operation import Kind

SECONDS_PER_LINE = 1.37


@dataclass(frozen=True)
class Failure:
    """The reason why an operation failed. `log`: the last lines of the build or service log, without timestamps."""

    code: str
    message: str
    log: tuple[str, ...] = ()
    limit: float = 0  # seconds, if the operation exceeded a time limit
    target: str = ""  # of a detail that repeats the message for one part of the request

    @property
    def seconds(self) -> float:
        """The duration until the failure in seconds; 0 if any duration is plausible."""
        return self.limit or (len(self.log) * SECONDS_PER_LINE + 1.5 if self.log else 0)

    def details(self) -> list[dict[str, str]]:
        """Return the error details in the format of the server."""
        parts = [{"code": self.code, "message": self.message, "target": self.target}] if self.target else []
        if self.log and self.code.startswith("Service"):
            return [*parts, *({"code": "Log", "message": line, "target": "service log"} for line in self.log)]
        text = "\n".join(f"{number * SECONDS_PER_LINE + 0.02:8.2f} s  {line}" for number, line in enumerate(self.log))
        return [*parts, {"code": "Log", "message": text, "target": "log"}] if self.log else parts


CHECKED = (
    "Step 1/6 check: ScikitPython; models: 1, assets: 2",
    "Step 1/6 check: done in 0.04 s",
    "Step 2/6 fetch: models and assets",
)
FETCHED = (
    *CHECKED,
    "Step 2/6 fetch: done in 1.12 s",
    "Step 3/6 requirements: for Python 3.11 on x86_64-unknown-linux-gnu",
)
UNSATISFIABLE = (
    "No solution found when resolving dependencies:\nBecause there is no version of pandas==2.9.1 and you require "
    "pandas==2.9.1, we can conclude that your requirements are unsatisfiable."
)
BAD_DRIVER = "The driver 'score' is not valid Python in line 27: expected ':'. Correct it, then build again."
REGISTRY_SAYS = f"registry.{DOMAIN} refused to sign in user 'ci-push': 401 authentication required."
MISSING_FILE = (
    f"Couldn't download https://models.{DOMAIN}/releases/model.pkl: the server responded with 404 Not Found. "
    "Check the URL and that the file exists."
)

BUILDS = (
    Failure(
        "RequirementsFailed",
        f"Step requirements: {UNSATISFIABLE}",
        (
            *FETCHED,
            *(f"  {line}" for line in UNSATISFIABLE.splitlines()),
            "The build failed in step requirements: No solution found when resolving dependencies",
        ),
        target="targetRuntime.properties",
    ),
    Failure(
        "FetchFailed",
        f"Step fetch: model.pkl: {MISSING_FILE}",
        (*CHECKED, f"The build failed in step fetch: model.pkl: {MISSING_FILE}"),
        target="model.pkl",
    ),
    Failure(
        "DriverUnreadable",
        f"Step fetch: {BAD_DRIVER}",
        (*CHECKED, f"The build failed in step fetch: {BAD_DRIVER}"),
        target="score",
    ),
    Failure(
        "RegistryFailed",
        f"Step image: {REGISTRY_SAYS}",
        (
            *FETCHED,
            "Step 3/6 requirements: done in 0.83 s",
            "Step 4/6 packages: install from the lock",
            "Step 4/6 packages: done in 11.20 s",
            "Step 5/6 layers: scoring runtime, models, driver and assets",
            "Step 5/6 layers: done in 2.71 s",
            f"The build failed in step image: {REGISTRY_SAYS}",
        ),
        target="registryInfo",
    ),
    Failure(
        "NoSpace",
        "Step packages: No space left on device: the disk of /srv/mms/store is full; without this build, 212 MB are "
        "free. Free some space there, then build again.",
        (
            *FETCHED,
            "Step 3/6 requirements: done in 0.91 s",
            "Step 4/6 packages: install from the lock",
            "The build failed in step packages: No space left on device",
        ),
    ),
    Failure("BuildTimeout", "The build took longer than 1800 s (MMS_BUILD_TIMEOUT).", limit=1801),
)
INIT_TRACE = (
    "Traceback (most recent call last):",
    '  File "/app/driver/score.py", line 14, in init',
    '    model = joblib.load(os.path.join(MODELS, "model.pkl"))',
    "FileNotFoundError: [Errno 2] No such file or directory: '/app/models/model.pkl'",
    "init() failed: FileNotFoundError: [Errno 2] No such file or directory: '/app/models/model.pkl'",
)
VERSION_TRACE = (
    "InconsistentVersionWarning: Trying to unpickle estimator SVC from version 1.7.2 when using version 1.9.1.",
    "Traceback (most recent call last):",
    '  File "/app/driver/score.py", line 9, in init',
    "    model = joblib.load(path)",
    "ValueError: node array from the pickle has an incompatible dtype",
    "init() failed: ValueError: node array from the pickle has an incompatible dtype",
)
ROLLOUTS = (
    Failure("ServiceCrashed", f"Revision {{number}} crashed. {INIT_TRACE[-1]}", INIT_TRACE),
    Failure("ServiceCrashed", f"Revision {{number}} crashed. {VERSION_TRACE[-1]}", VERSION_TRACE),
    Failure(
        "ServiceNotReady",
        "Revision {number} was not ready after 120 s. It is starting.",
        ("Loading weights of 4.1 GB ...", "Loaded 3 of 8 shards."),
        126,
    ),
    Failure("EngineUnavailable", "Couldn't reach the supervisor at /srv/mms/run/supervisor.sock: timed out"),
)
REASONS: dict[str, tuple[Failure, ...]] = {
    Kind.REGISTER_MODEL: (
        Failure("Forbidden", "This token belongs to another hosting account. Use a token of the account in the URL."),
        Failure("InvalidRequest", "url: must be an absolute http or https URL without spaces."),
    ),
    Kind.CREATE_MANIFEST: (
        Failure("NotFound", "There is no model '5f0c1c1d9a5e4a3f8e55b2f0a1c9d7e4' in this hosting account."),
        Failure(
            "InvalidRequest",
            "targetRuntime.properties.condaEnvFile: must be an absolute http or https URL without spaces.",
        ),
    ),
    Kind.CREATE_IMAGE: BUILDS,
    Kind.CREATE_SERVICE: ROLLOUTS,
    Kind.UPDATE_SERVICE: ROLLOUTS,
    Kind.DELETE_SERVICE: (
        Failure("OperationInProgress", "The service has an operation that has not ended."),
        Failure("EngineUnavailable", "Couldn't reach the supervisor at /srv/mms/run/supervisor.sock: timed out"),
    ),
}
