"""The environment variables of the site: descriptions, defaults, and parsing.

`dashboard.settings` reads them with these functions. docs/reference/settings.md is generated from them:

    python -m dashboard.environment

A variable `X` can also be given as `X_FILE`, the path of a file that holds the value, as containers do with secrets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from environs import EnvError, FileAwareEnv

MAX_DAYS = 36500
PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "settings.md"
INTRODUCTION = """# Settings

Settings are environment variables. `make up` runs without any of them; an empty value counts as
unset. The site refuses to start with an invalid value and names the variable.

To keep a secret out of the environment, store it in a file and put the path into the variable with
`_FILE` appended: `SECRET_KEY_FILE=/run/secrets/secret_key`. This works for every setting.
"""


@dataclass(frozen=True)
class Variable:
    """A variable. `shown` is the default in the reference, if it isn't a plain value."""

    name: str
    description: str
    default: str | int | bool = ""
    shown: str = ""

    @property
    def default_text(self) -> str:
        """The default as it appears in the reference."""
        text = str(self.default).lower() if isinstance(self.default, bool) else str(self.default)
        return self.shown or (f"`{text}`" if text else "")


@dataclass(frozen=True)
class Text(Variable):
    """A variable whose value is text."""

    default: str = ""


@dataclass(frozen=True)
class Number(Variable):
    """A variable whose value is a whole number."""

    default: int = 0
    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True)
class Boolean(Variable):
    """A variable whose value is true or false."""

    default: bool = False


SECTIONS: dict[str, tuple[Variable, ...]] = {
    "Addresses": (
        Text("HOST", "address to listen on; `0.0.0.0`: all of IPv4, `::`: all of IPv6", "127.0.0.1"),
        Number("PORT", "port to listen on; the account `local` uses the same port", 8000, minimum=1, maximum=65535),
        Text(
            "SITE_URL",
            "public URL of the site, with the path if a proxy serves it below one; with `https://`, cookies are secure",
            shown="`http://HOST:PORT`",
        ),
        Text("FILES_URL", "base URL from which the MMS fetches uploaded files", shown="`SITE_URL`"),
        Text(
            "FORMER_FILES_URLS",
            "earlier values of `FILES_URL`, comma-separated; uploads registered under them are "
            "fetched from `FILES_URL`",
            shown="recorded in `DATA_DIR`",
        ),
        Number("GATEWAY_PORT", "port of the scoring gateway", shown="`PORT` + 1", minimum=1, maximum=65535),
        Text(
            "GATEWAY_URL",
            "public base of the scoring URLs",
            shown="host of `SITE_URL` with `GATEWAY_PORT`; behind a proxy: `SITE_URL`",
        ),
        Text("MMS_URL", "address of the bundled MMS for the account `local`", shown="`http://127.0.0.1:PORT`"),
        Text("SERVE", "halves of the site that run here", "dashboard,mms"),
        Text("ALLOWED_HOSTS", "host names the site answers to, comma-separated", shown="hosts of the URLs above"),
        Text("CSRF_TRUSTED_ORIGINS", "origins that forms may be submitted from", shown="`SITE_URL`"),
        Text(
            "TRUSTED_PROXIES",
            "addresses or networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are "
            "accepted, comma-separated",
        ),
        Text(
            "PRIVATE_HOSTS",
            "hosts in private networks that servers and registries may refer to (token services, storage, scoring "
            "URLs), for example `auth.internal,10.0.0.5:5000,10.1.0.0/16`",
        ),
    ),
    "Data": (
        Text(
            "DATA_DIR",
            "folder for everything the site writes, temporary files included",
            shown="`var/`; installed: per-user data folder",
        ),
        Text("DATABASE_URL", "for example `postgres://user:password@host/name`", shown="SQLite in `DATA_DIR`"),
        Number("DATABASE_TIMEOUT", "seconds a write waits for a locked SQLite database", 20, shown="20; web: 5"),
        Text("REDIS_URL", "for example `redis://:password@host:6379/0`", shown="the site's own server"),
        Text("SECRET_KEY", "signs sessions and encrypts stored secrets", shown="created in `DATA_DIR`"),
        Text("SECRET_KEY_FALLBACKS", "former keys, accepted for reading only"),
        Number("UPLOAD_MAX_BYTES", "maximum size of an upload to the dashboard", 10 * 1024**3, shown="10 GiB"),
        Number(
            "KEEP_OPERATIONS_DAYS",
            "days to retain finished operations (at least 7) and rows of removed resources",
            365,
            minimum=7,
            maximum=MAX_DAYS,
        ),
        Number("KEEP_AUDIT_DAYS", "days to retain the audit log (at least 30)", 730, minimum=30, maximum=MAX_DAYS),
        Number(
            "KEEP_LOGS_DAYS", "days to retain build logs and logs of deleted services", 90, minimum=1, maximum=MAX_DAYS
        ),
    ),
    "Sign-in": (
        Boolean("PASSWORD_SIGN_IN", "allow sign-in with passwords of this site", True),
        Boolean("REQUIRE_SECOND_FACTOR", "require two-factor authentication for everyone with a password", False),
        Number(
            "SIGN_IN_TRIES",
            "failed attempts per name from one address (or known browser) within `SIGN_IN_MINUTES`",
            5,
            minimum=1,
        ),
        Number(
            "SIGN_IN_TRIES_PER_NAME", "failed attempts per name from all browsers its owner hasn't used", 30, minimum=1
        ),
        Number("SIGN_IN_TRIES_PER_ADDRESS", "failed attempts from one address, all names together", 50, minimum=1),
        Number("SIGN_IN_MINUTES", "minutes for which a failed attempt counts", 5, minimum=1),
        Number("SESSION_IDLE_MINUTES", "minutes until an idle session expires", 120, minimum=1),
        Number("SESSION_HOURS", "hours until any session expires", 12, minimum=1),
        Text("OIDC_ISSUER", "identity provider (OpenID Connect), for example `https://login.example.com/realm`"),
        Text("OIDC_CLIENT_ID", "client ID of this site at the provider"),
        Text("OIDC_CLIENT_SECRET", "client secret of this site at the provider"),
        Text("OIDC_NAME", "name on the button *Sign in with …*", shown="host of the issuer"),
        Text("OIDC_SCOPES", "scopes to request", "openid profile email"),
        Text(
            "OIDC_GROUPS_CLAIM",
            "claim that lists a user's groups; use dots for nested claims: `realm_access.roles`",
            "groups",
        ),
        Text("OIDC_ROLES", "roles by group, for example `ml-team=lab:scientist,ops=*:operator,admins=admin`"),
    ),
    "Processes and limits": (
        Number(
            "WEB_PROCESSES",
            "processes that serve pages and the APIs on one port",
            shown="1; with four cores or more, 2",
            minimum=0,
        ),
        Number("WORKER_THREADS", "concurrent tasks in each worker", 8),
        Number("API_CALLS_PER_MINUTE", "requests per minute for one API token; further ones get status 429", 600),
        Text("SUPERVISOR_SOCKET", "socket of the supervisor that runs the services", shown="in `DATA_DIR`"),
        Boolean("DEBUG", "for development only", False),
        Boolean(
            "RELOAD",
            "for development: read templates and static files for each request, and restart when "
            "Python files change; `make dev` sets it",
            False,
        ),
        Text("LOG_LEVEL", "`DEBUG`, `INFO`, `WARNING` or `ERROR`", "INFO"),
    ),
    "Bundled MMS": (
        Number("MMS_FETCH_MAX_BYTES", "maximum size of a fetched model or asset", 10 * 1024**3, shown="10 GiB"),
        Number("MMS_UNPACK_MAX_BYTES", "maximum unpacked size of an archive", 20 * 1024**3, shown="20 GiB"),
        Boolean(
            "MMS_FETCH_ALLOW_PRIVATE",
            "allow fetching models from private addresses; `FILES_URL/files/` is always allowed",
            False,
        ),
        Text("MMS_REGISTRIES", "registries that images may be pushed to, comma-separated hosts", shown="any"),
        Number("MMS_BUILDS", "concurrent image builds", 2),
        Number("MMS_BUILD_TIMEOUT", "seconds until a build times out", 1800),
        Number(
            "MMS_BUILD_MEMORY",
            "memory of each process of a build, in bytes; `0` sets no limit",
            2 * 1024**3,
            shown="2 GiB",
        ),
        Number(
            "MMS_CACHE_MAX_BYTES",
            "maximum size of the package cache, excluding files shared with layers; the cache is "
            "emptied when it exceeds this",
            10 * 1024**3,
            shown="10 GiB",
        ),
        Text("MMS_BASE_IMAGE", "base of built images; without one, images run on the process engine only"),
        Text(
            "MMS_PIP_CONFIG",
            "pip configuration file (`index-url`, `extra-index-url`, `find-links`, `cert`, `proxy` and others) for the "
            "packages of images; builds read no other configuration of pip or uv, and none of their variables",
            shown="none: the public package index",
        ),
        Number("MMS_SCORING_PROCESSES", "processes per service", 1),
        Boolean("MMS_SCORING_NETWORK", "allow services to use the network", False),
        Number(
            "MMS_SCORING_MEMORY",
            "memory of each service, including its temporary files, in bytes; `0` sets no limit",
            2 * 1024**3,
            shown="2 GiB",
        ),
        Number("MMS_SCORING_TASKS", "processes and threads of each service", 256, minimum=16),
        Number("MMS_SCORING_TMP", "temporary files of each service, in bytes", 1024**3, shown="1 GiB", minimum=4096),
        Number("MMS_SCORING_CPUS", "CPUs that services may use", 0, shown="all but one"),
        Number("MMS_INIT_TIMEOUT", "seconds until a driver's `init()` times out", 120),
        Number("MMS_RUN_TIMEOUT", "seconds until a driver's `run()` times out", 60),
        Number("MMS_BODY_MAX_BYTES", "maximum size of a scoring request", 16 * 1024**2, shown="16 MiB"),
        Number("MMS_QUEUE_LENGTH", "scoring requests queued per process; further ones get status 503", 100),
        Number(
            "GATEWAY_PROCESSES",
            "processes of the scoring gateway, which share its port",
            shown="half of the cores",
            minimum=0,
        ),
        Text(
            "ALLOWED_ORIGINS",
            "origins of browser applications that may call scoring URLs, comma-separated, for example "
            "`https://app.example.com`; `*` allows all",
        ),
        Text(
            "METRICS_TOKEN",
            "bearer token for `GET /scoring/metrics`; without one, only this machine can read it, at "
            "`localhost` or `127.0.0.1`",
        ),
    ),
}
VARIABLES = {variable.name: variable for section in SECTIONS.values() for variable in section}

_environment = FileAwareEnv(strip_whitespace=True)


def is_set(name: str) -> bool:
    """Return True if the variable, or its `_FILE`, has a value. Raises ImproperlyConfigured as `text` does."""
    return bool(text(name, ""))


def text(name: str, default: str | None = None) -> str:
    """Return a variable as text. `default` replaces that of `VARIABLES`, where it depends on other variables.

    Raises ImproperlyConfigured if its `_FILE` can't be read, and KeyError if the variable isn't in `VARIABLES`.
    """
    fallback = str(VARIABLES[name].default) if default is None else default
    try:
        value: str = _environment.str(name, "")
    except ValueError:
        raise ImproperlyConfigured(f"{name}_FILE must be the path of a file that this user may read.") from None
    return value or fallback


def words(name: str, default: str | None = None) -> list[str]:
    """Return a variable, split at commas. Empty parts are dropped."""
    return [part.strip() for part in text(name, default).split(",") if part.strip()]


def number(name: str) -> int:
    """Return a variable as a whole number. Raises ImproperlyConfigured if it isn't one, or isn't within its limits."""
    variable = VARIABLES[name]
    if not isinstance(variable, Number):
        raise TypeError(f"{name} is not a number.")
    raw = text(name, "")
    try:
        value: int = _environment.int(name) if raw else variable.default
    except EnvError:
        raise ImproperlyConfigured(f"{name} must be a whole number, not {raw!r}.") from None
    least, most = variable.minimum, variable.maximum
    if most is not None and not (least or 0) <= value <= most:
        raise ImproperlyConfigured(f"{name} must be between {least or 0} and {most}, not {value}.")
    if least is not None and value < least:
        raise ImproperlyConfigured(f"{name} must be at least {least}, not {value}.")
    return value


def boolean(name: str) -> bool:
    """Return a variable as a bool. Raises ImproperlyConfigured if it is neither true nor false."""
    variable = VARIABLES[name]
    if not isinstance(variable, Boolean):
        raise TypeError(f"{name} is not a boolean.")
    try:
        value: bool = _environment.bool(name) if is_set(name) else variable.default
    except EnvError:
        raise ImproperlyConfigured(f"{name} must be true or false, not {text(name)!r}.") from None
    return value


def reference() -> str:
    """Return the page docs/reference/settings.md."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield INTRODUCTION.rstrip()
    for title, variables in SECTIONS.items():
        yield from ("", f"## {title}", "", "| Variable | Default | Description |", "| --- | --- | --- |")
        for variable in variables:
            shown = f" {variable.default_text} |" if variable.default_text else " |"
            yield f"| `{variable.name}` |{shown} {variable.description} |"


if __name__ == "__main__":
    PAGE.write_text(reference())
