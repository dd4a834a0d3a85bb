"""Django's settings. `dashboard.environment` describes the environment variables that they come from.

An invalid or missing value raises ImproperlyConfigured with a sentence that names the variable.
"""

import ipaddress
import os
import secrets
import sys
from pathlib import Path
from urllib.parse import quote, urlsplit

import dj_database_url
import platformdirs
from django.core.exceptions import ImproperlyConfigured

from dashboard import environment
from dashboard.access.group_roles import parse_grants
from netguard.addresses import LOOPBACK_HOSTS, local_host, url_host

BASE_DIR = Path(__file__).resolve().parent.parent
# The wheel has templates, static files and examples in this folder. In a checkout they are in BASE_DIR.
_packaged = Path(__file__).resolve().with_name("share")
IS_INSTALLED = _packaged.is_dir()
SHARE_DIR = _packaged if IS_INSTALLED else BASE_DIR
PROJECT_NAME = "model-management-dashboard"
# The commands to run a management command and to start the site, for messages.
COMMAND = PROJECT_NAME if IS_INSTALLED else "manage.py"
START_COMMAND = f"{PROJECT_NAME} up" if IS_INSTALLED else "make up"


# --- data directory ------------------------------------------------------------------------------------------------
_data_dir = platformdirs.user_data_path(PROJECT_NAME) if IS_INSTALLED else BASE_DIR / "var"
DATA_DIR = Path(environment.text("DATA_DIR") or _data_dir).resolve()
RUN_DIR = DATA_DIR / "run"  # sockets, pid files, generated configuration
LOG_DIR = DATA_DIR / "log"
TMP_DIR = DATA_DIR / "tmp"  # on the file system of the data, so that a finished file can be renamed into place
FILES_DIR = DATA_DIR / "files"  # uploads, by SHA-256
MMS_DIR = DATA_DIR / "mms"  # the bundled MMS: OCI store, layers, build logs, services
STATIC_ROOT = DATA_DIR / "static"


def _make_writable(directory: Path) -> None:
    """Create a directory that only the owner can use. Raises ImproperlyConfigured if it isn't writable."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        reason = "" if os.access(directory, os.W_OK | os.X_OK) else "this user has no write permission"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise ImproperlyConfigured(
            f"Can't use DATA_DIR, because of {directory}: {reason}. Choose another one with DATA_DIR=..."
        )


for _directory in (DATA_DIR, RUN_DIR, LOG_DIR, TMP_DIR, FILES_DIR, MMS_DIR, STATIC_ROOT):
    _make_writable(_directory)


def _read(path: Path) -> str:
    """Return the content of a file in DATA_DIR. Raises ImproperlyConfigured if this user can't read it."""
    try:
        return path.read_text()
    except OSError as error:
        reason = error.strerror or error
        raise ImproperlyConfigured(f"Can't read {path}: {reason}. Run this command as the owner of DATA_DIR.") from None


# --- addresses -----------------------------------------------------------------------------------------------------
HOST = environment.text("HOST").strip("[]")
LOCAL_HOST = local_host(HOST)  # at which this machine reaches what listens on HOST
PORT = environment.number("PORT")
GATEWAY_PORT = environment.number("GATEWAY_PORT") if environment.is_set("GATEWAY_PORT") else PORT + 1
if GATEWAY_PORT == PORT or GATEWAY_PORT > 65535:
    raise ImproperlyConfigured(f"GATEWAY_PORT must be a port other than PORT={PORT}, at most 65535.")
_local_url = f"http://{url_host(LOCAL_HOST)}:{PORT}"
SITE_URL = environment.text("SITE_URL", _local_url).rstrip("/")
_site = urlsplit(SITE_URL)
SITE_ORIGIN = f"{_site.scheme}://{_site.netloc}"  # for paths from reverse(), which begin with SITE_PATH
SITE_PATH = _site.path  # "" or the path of a proxy that leads here, such as /mlops; see dashboard.asgi
FORCE_SCRIPT_NAME = SITE_PATH or None
FILES_URL = environment.text("FILES_URL", SITE_URL).rstrip("/")  # base URL for uploads, as the MMS reaches it
FILES_URLS_PATH = DATA_DIR / "files_urls"  # every FILES_URL so far, one per line; each start adds the current one


def _former_files_urls() -> list[str]:
    """Return FORMER_FILES_URLS and those stored in DATA_DIR. Uploads stay registered under an earlier FILES_URL."""
    stored = _read(FILES_URLS_PATH).splitlines() if FILES_URLS_PATH.exists() else []
    former = [url.rstrip("/") for url in environment.words("FORMER_FILES_URLS")] + stored
    return [url for url in dict.fromkeys(former) if url != FILES_URL]


FORMER_FILES_URLS = _former_files_urls()
# Base URL of the bundled MMS for the account `local`.
MMS_URL = environment.text("MMS_URL", _local_url).rstrip("/")


def _gateway_of(url: str) -> str:
    """Return the base of scoring URLs on the host of `url`: the gateway's port, if `url` names the web port.

    Any other port, path or scheme belongs to a proxy or a published port, whose mapping isn't known here. The web
    server also serves scoring URLs, so `url` itself is right there.
    """
    parts = urlsplit(url)
    is_web_port = parts.scheme == "http" and not parts.path and parts.netloc.endswith(f":{PORT}")
    return f"http://{parts.netloc.rpartition(':')[0]}:{GATEWAY_PORT}" if is_web_port else url


# Public base URL of the scoring URLs, and the base at which this machine reaches the gateway.
GATEWAY_URL = environment.text("GATEWAY_URL").rstrip("/") or _gateway_of(SITE_URL)
LOCAL_GATEWAY_URL = _gateway_of(MMS_URL)
# The parts that this process serves. The compose file runs the dashboard and the MMS in separate containers.
SERVE = set(environment.words("SERVE"))
if SERVE - {"dashboard", "mms"}:
    raise ImproperlyConfigured("SERVE must be a comma-separated list of: dashboard, mms.")

# With brackets around IPv6 addresses, as in the header Host.
ALLOWED_HOSTS = [url_host(host) for host in environment.words("ALLOWED_HOSTS")] or sorted(
    {"localhost", "127.0.0.1", "[::1]", url_host(LOCAL_HOST)}
    | {url_host(urlsplit(url).hostname or "") for url in (SITE_URL, FILES_URL, GATEWAY_URL, MMS_URL)}
)
CSRF_TRUSTED_ORIGINS = environment.words("CSRF_TRUSTED_ORIGINS") or [SITE_ORIGIN]
SECURE = SITE_URL.startswith("https://")
# Addresses or networks whose headers X-Forwarded-For and X-Forwarded-Proto are trusted.
PRIVATE_HOSTS = environment.words("PRIVATE_HOSTS")  # see netguard.destinations
TRUSTED_PROXIES = environment.words("TRUSTED_PROXIES")
for _proxy in TRUSTED_PROXIES:
    try:
        ipaddress.ip_network(_proxy, strict=False)
    except ValueError:
        raise ImproperlyConfigured(
            f"TRUSTED_PROXIES must be addresses and networks such as 10.0.0.7,10.1.0.0/16, not {_proxy!r}."
        ) from None

# --- secrets -------------------------------------------------------------------------------------------------------


def _secret_key() -> str:
    """Return SECRET_KEY, or the key in DATA_DIR, which the first start creates (mode 0600). See encryption.check."""
    if key := environment.text("SECRET_KEY"):
        return key
    global SECRET_KEY_IS_NEW, SECRET_KEY_IS_MISSING
    path = DATA_DIR / "secret_key"
    key = secrets.token_urlsafe(50)
    if not path.exists() and any((DATA_DIR / name).exists() for name in ("db.sqlite3", "database")):
        SECRET_KEY_IS_MISSING = True
        return key
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path).strip()
    with os.fdopen(descriptor, "w") as file:
        file.write(key)
    SECRET_KEY_IS_NEW = True
    return key


SECRET_KEY_IS_NEW = False  # created by this process
SECRET_KEY_IS_MISSING = False  # the site has data, but its key file is missing, so this process uses a temporary key
SECRET_KEY = _secret_key()
SECRET_KEY_FALLBACKS = environment.words("SECRET_KEY_FALLBACKS")
# Salt of the encrypted fields, so that their keys differ from others derived from SECRET_KEY.
SALT_KEY = "encrypted-fields"

DEBUG = environment.boolean("DEBUG")
# For development (`make dev`): templates and static files are read for each request, and programs restart when Python
# files change. Reachable from this machine only, because it is slower and less strict than a site for other people.
RELOAD = environment.boolean("RELOAD")
if RELOAD and HOST not in LOOPBACK_HOSTS:
    raise ImproperlyConfigured(f"RELOAD=true works on this machine only: HOST must be 127.0.0.1, not {HOST!r}.")
if RELOAD and IS_INSTALLED:
    raise ImproperlyConfigured("RELOAD=true needs a checkout of the code. Start the site with `make dev` there.")

# --- Django --------------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "heroicons",
    "dashboard",
    "deployments",
    "encryption",
    "mms",
]
# For pages only. The MMS API and the plain ASGI applications (see asgi.py) don't use middleware.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "dashboard.auth.sessions.SessionUseMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "dashboard.http.cache_headers.NoStoreMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
ROOT_URLCONF = "dashboard.urls"
ASGI_APPLICATION = "dashboard.asgi.application"
_template_options: dict[str, object] = {
    "context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
        "dashboard.access.guards.context",
    ],
}
if RELOAD:  # without Django's template cache
    _template_options["loaders"] = [
        "django.template.loaders.filesystem.Loader",
        "django.template.loaders.app_directories.Loader",
    ]
TEMPLATES = [
    {
        "BACKEND": "dashboard.catalog.visible_text.Templates",
        "NAME": "django",
        "DIRS": [SHARE_DIR / "templates"],
        "APP_DIRS": not RELOAD,
        "OPTIONS": _template_options,
    },
]

# --- database ------------------------------------------------------------------------------------------------------
# Seconds to wait for another writer of the SQLite file. The web process waits less, see asgi.py.
DATABASE_TIMEOUT = environment.number("DATABASE_TIMEOUT")
try:
    _database_url = environment.text("DATABASE_URL") or f"sqlite:///{quote(str(DATA_DIR / 'db.sqlite3'))}"
    DATABASES = {"default": dj_database_url.parse(_database_url)}
except ValueError:  # its text can contain the password
    raise ImproperlyConfigured("DATABASE_URL is invalid. Write it as postgres://user:password@host/name.") from None
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Several processes share one file, which needs all of these. See docs/decisions/0002-sqlite.md.
    DATABASES["default"]["OPTIONS"] = {
        "timeout": DATABASE_TIMEOUT,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;",
    }
    # Connections stay open, because opening one costs more than most queries.
    DATABASES["default"]["CONN_MAX_AGE"] = None
    # Tests with threads and processes need a file. A database in memory has neither WAL nor access by other processes.
    DATABASES["default"]["TEST"] = {"NAME": str(DATA_DIR / "test.sqlite3")}
else:
    # A hanging server counts as down. Time out soon, on new connections (3 s) and on open ones.
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": 3,
        "keepalives_idle": 20,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,  # milliseconds
    } | DATABASES["default"].get("OPTIONS", {})
    DATABASES["default"]["CONN_MAX_AGE"] = 60
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Redis and Celery ----------------------------------------------------------------------------------------------
REDIS_URL = environment.text("REDIS_URL") or f"unix://{quote(str(RUN_DIR / 'redis.sock'))}"
if not REDIS_URL.startswith(("redis://", "rediss://", "unix://")):  # not shown, because it can contain a password
    raise ImproperlyConfigured("REDIS_URL is invalid. Write it as redis://:password@host:6379/0.")
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1)
CELERY_RESULT_BACKEND = None  # results are unused, because outcomes are stored in the database
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_DEFAULT_QUEUE = "celery"
CELERY_TASK_ROUTES = {"mms.*": {"queue": "mms"}}
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # retry forever: Redis can be down for long
CELERY_BROKER_CHANNEL_ERROR_RETRY = True  # keep workers running while Redis rejects writes (disk or memory full)
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False  # a killed worker would leave reply lists in Redis (celery#6089)
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TIMEZONE = "UTC"
# Messages are only hints, and the database stores what is due. So no message stays in the queue for long.
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 3600, "socket_timeout": 30, "socket_connect_timeout": 5}
WEB_PROCESSES = environment.number("WEB_PROCESSES") or (2 if (os.cpu_count() or 1) >= 4 else 1)
WORKER_THREADS = environment.number("WORKER_THREADS")  # concurrent tasks in each worker

# --- authentication ------------------------------------------------------------------------------------------------
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
PASSWORD_RESET_TIMEOUT = 24 * 3600  # seconds that a password link is valid
LOGIN_URL = "sign_in"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "sign_in"
PASSWORD_SIGN_IN = environment.boolean("PASSWORD_SIGN_IN")
REQUIRE_SECOND_FACTOR = environment.boolean("REQUIRE_SECOND_FACTOR")
# Failed attempts allowed within SIGN_IN_MINUTES: per name and address (or known browser), per name from all unknown
# browsers together, and per address for all names together.
SIGN_IN_MINUTES = environment.number("SIGN_IN_MINUTES")
SIGN_IN_TRIES = environment.number("SIGN_IN_TRIES")
SIGN_IN_TRIES_PER_NAME = environment.number("SIGN_IN_TRIES_PER_NAME")
SIGN_IN_TRIES_PER_ADDRESS = environment.number("SIGN_IN_TRIES_PER_ADDRESS")
# The identity provider (OpenID Connect), optional.
OIDC_ISSUER = environment.text("OIDC_ISSUER").rstrip("/")
OIDC_CLIENT_ID = environment.text("OIDC_CLIENT_ID")
OIDC_CLIENT_SECRET = environment.text("OIDC_CLIENT_SECRET")
OIDC_NAME = environment.text("OIDC_NAME") or urlsplit(OIDC_ISSUER).hostname or ""  # on the sign-in button
OIDC_SCOPES = environment.text("OIDC_SCOPES")
OIDC_GROUPS_CLAIM = environment.text("OIDC_GROUPS_CLAIM")
try:
    OIDC_ROLES = parse_grants(environment.text("OIDC_ROLES"))
except ValueError as _error:
    raise ImproperlyConfigured(f"OIDC_ROLES: {_error}") from None
if OIDC_ISSUER and not (OIDC_CLIENT_ID and OIDC_CLIENT_SECRET):
    raise ImproperlyConfigured("OIDC_ISSUER requires OIDC_CLIENT_ID and OIDC_CLIENT_SECRET.")
_issuer = urlsplit(OIDC_ISSUER)
if OIDC_ISSUER and _issuer.scheme != "https" and _issuer.hostname not in LOOPBACK_HOSTS:
    raise ImproperlyConfigured("OIDC_ISSUER must begin with https://, because it sends personal data.")
if not PASSWORD_SIGN_IN and not OIDC_ISSUER:
    raise ImproperlyConfigured("PASSWORD_SIGN_IN=false requires OIDC_ISSUER. Without it, nobody could sign in.")

SESSION_ENGINE = "dashboard.auth.sessions"
SESSION_HOURS = environment.number("SESSION_HOURS")  # maximum lifetime of a session
SESSION_IDLE_MINUTES = environment.number("SESSION_IDLE_MINUTES")  # after which an unused session ends
SESSION_COOKIE_AGE = SESSION_HOURS * 3600
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE
# Lax, not Strict, because the redirect from the identity provider must include the session cookie.
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = True  # scripts read the token from the page, not the cookie
# Browsers accept __Host- cookies only over TLS and only from this host, so other subdomains can't set them. They accept
# them only for all paths, which other sites on this host may have.
_prefix = "" if not SECURE else "__Secure-" if SITE_PATH else "__Host-"
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = f"{SITE_PATH}/"
SESSION_COOKIE_NAME = f"{_prefix}sessionid"
CSRF_COOKIE_NAME = f"{_prefix}csrftoken"
KNOWN_BROWSER_COOKIE_NAME = f"{_prefix}known-browser"
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if SECURE else 0  # sent over TLS only
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CONTENT_TYPE_NOSNIFF = True
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "upgrade-insecure-requests": SECURE,
    }
}

# --- localization, static files and logging ------------------------------------------------------------------------
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = f"{SITE_PATH}/static/"
STATICFILES_DIRS = [SHARE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
if RELOAD or "pytest" in sys.modules:  # render pages without running collectstatic first
    STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
WHITENOISE_USE_FINDERS = DEBUG or RELOAD or "pytest" in sys.modules
WHITENOISE_AUTOREFRESH = DEBUG or RELOAD
WHITENOISE_MAX_AGE = 0 if DEBUG or RELOAD else 60  # seconds
FILE_UPLOAD_TEMP_DIR = str(TMP_DIR)
DATA_UPLOAD_MAX_MEMORY_SIZE = 2_621_440
LOG_LEVEL = environment.text("LOG_LEVEL").upper()
if LOG_LEVEL not in {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}:
    raise ImproperlyConfigured(f"LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR, not {LOG_LEVEL!r}.")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "filters": {
        "one_line": {"()": "dashboard.http.db_errors.ShortTracebackFilter"},
        "redis_outage": {"()": "deployments.live.outage.OutageFilter"},
    },
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["one_line", "redis_outage"]},
        "null": {"class": "logging.NullHandler"},
    },
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    # Authlib logs the code verifier of a sign-in at DEBUG.
    "loggers": {
        # The sender gets an error page. Logging each request would let anyone fill the log.
        "django.security.DisallowedHost": {"handlers": ["null"], "propagate": False},
        "django.request": {"level": "ERROR"},
        "authlib": {"level": "INFO"},
        # urllib3 quotes invalid headers and redirects of servers, which may echo secrets.
        "urllib3": {"level": "ERROR"},
    },
}

# --- retention (docs/operate/retention.md lists what grows, and its bounds) -----------------------------------------
# At least 7 days, because the operation at the MMS also makes repeated requests idempotent.
KEEP_OPERATIONS_DAYS = environment.number("KEEP_OPERATIONS_DAYS")
KEEP_AUDIT_DAYS = environment.number("KEEP_AUDIT_DAYS")
KEEP_LOGS_DAYS = environment.number("KEEP_LOGS_DAYS")

# --- limits of the dashboard ---------------------------------------------------------------------------------------
API_CALLS_PER_MINUTE = environment.number("API_CALLS_PER_MINUTE")  # per token
UPLOAD_MAX_BYTES = environment.number("UPLOAD_MAX_BYTES")

# --- the bundled MMS -----------------------------------------------------------------------------------------------
MMS_FETCH_MAX_BYTES = environment.number("MMS_FETCH_MAX_BYTES")
MMS_UNPACK_MAX_BYTES = environment.number("MMS_UNPACK_MAX_BYTES")
MMS_REGISTRIES = environment.words("MMS_REGISTRIES")  # hosts that images may be pushed to; empty for any
MMS_FETCH_ALLOW_PRIVATE = environment.boolean("MMS_FETCH_ALLOW_PRIVATE")  # FILES_URL's own origin is always allowed
MMS_BUILD_TIMEOUT = environment.number("MMS_BUILD_TIMEOUT")  # seconds
MMS_BUILD_MEMORY = environment.number("MMS_BUILD_MEMORY")  # bytes of data per process; 0 for no limit
MMS_BUILDS = environment.number("MMS_BUILDS")  # concurrent image builds
MMS_CACHE_MAX_BYTES = environment.number("MMS_CACHE_MAX_BYTES")  # of downloaded packages; emptied when exceeded
MMS_BASE_IMAGE = environment.text("MMS_BASE_IMAGE")  # e.g. registry.example/python:3.11-slim; none by default
_pip_config = environment.text("MMS_PIP_CONFIG")
if _pip_config and not os.access(_pip_config, os.R_OK):
    raise ImproperlyConfigured(f"MMS_PIP_CONFIG must be the path of a file that this user can read: {_pip_config!r}.")
# The only configuration of packages that builds read; "" for none.
MMS_PIP_CONFIG = str(Path(_pip_config).resolve()) if _pip_config else ""
MMS_SCORING_PROCESSES = environment.number("MMS_SCORING_PROCESSES")  # per service
MMS_INIT_TIMEOUT = environment.number("MMS_INIT_TIMEOUT")  # seconds
MMS_RUN_TIMEOUT = environment.number("MMS_RUN_TIMEOUT")  # seconds
MMS_BODY_MAX_BYTES = environment.number("MMS_BODY_MAX_BYTES")
MMS_QUEUE_LENGTH = environment.number("MMS_QUEUE_LENGTH")  # waiting requests per scoring process; more get status 503
MMS_SCORING_NETWORK = environment.boolean("MMS_SCORING_NETWORK")  # whether services can use the network
MMS_SCORING_MEMORY = environment.number("MMS_SCORING_MEMORY")  # bytes per service; 0 for no limit
MMS_SCORING_TASKS = environment.number("MMS_SCORING_TASKS")  # processes and threads per service
MMS_SCORING_TMP = environment.number("MMS_SCORING_TMP")  # bytes of temporary files per service
MMS_SCORING_CPUS = environment.number("MMS_SCORING_CPUS")  # 0 for all but one
MMS_AUDIT_RECORDER = "dashboard.audit.mms.record_mms_entry"  # stores audit entries of the bundled MMS
# Token for GET /scoring/metrics. Without one, only this machine can read it.
METRICS_TOKEN = environment.text("METRICS_TOKEN")
GATEWAY_METRICS_DIR = MMS_DIR / "metrics"  # counters of every process that serves scoring URLs
GATEWAY_PROCESSES = environment.number("GATEWAY_PROCESSES") or max(1, (os.cpu_count() or 1) // 2)


def _allowed_origins() -> list[str]:
    origins = environment.words("ALLOWED_ORIGINS")
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and (parts.scheme not in {"http", "https"} or origin != f"{parts.scheme}://{parts.netloc}"):
            raise ImproperlyConfigured(
                f"ALLOWED_ORIGINS must be origins such as https://app.example.com, or *, not {origin!r}."
            )
    return origins


ALLOWED_ORIGINS = _allowed_origins()  # of browser applications that may call scoring URLs
SUPERVISOR_SOCKET = environment.text("SUPERVISOR_SOCKET") or str(RUN_DIR / "supervisor.sock")
