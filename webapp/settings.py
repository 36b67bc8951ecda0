"""Django's settings, all read from the environment; the README has the table.

The development default is SQLite and a debug server. With DEBUG off, a missing secret key stops the start.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

from common import places
from common.settings import MemorySettings
from webapp.lib import options, sign_in


def env(name: str, default: str = "") -> str:
    """An environment variable without surrounding space; empty counts as unset."""
    return os.environ.get(name, "").strip() or default


def env_list(name: str) -> list[str]:
    """A comma-separated environment variable."""
    return [part.strip() for part in env(name).split(",") if part.strip()]


DEBUG = env("DEBUG", "0").lower() in ("1", "true", "yes")
SECRET_KEY = env("SECRET_KEY", "insecure-development-key" if DEBUG else "")
if not DEBUG and (len(SECRET_KEY) < 32 or SECRET_KEY.startswith("insecure")):
    raise ImproperlyConfigured(
        "SECRET_KEY: set it to a long random string of your own, for example the output of "
        "`python -c 'import secrets; print(secrets.token_urlsafe(50))'`, or set DEBUG=1 for development"
    )
ALLOWED_HOSTS = env_list("ALLOWED_HOSTS") or (["localhost", "127.0.0.1", "[::1]"] if DEBUG else [])
CSRF_TRUSTED_ORIGINS = env_list("CSRF_TRUSTED_ORIGINS")

LIKESTEP_DATA = Path(env("LIKESTEP_DATA", str(places.data())))
# Without a bucket all machines share the data folder; with one each has its own.
LIKESTEP_S3_BUCKET = env("LIKESTEP_S3_BUCKET")
LIKESTEP_S3_SIGNED_SECONDS = int(env("LIKESTEP_S3_SIGNED_SECONDS", "300"))
LIKESTEP_CHECKPOINT_SECONDS = float(env("LIKESTEP_CHECKPOINT_SECONDS", "60"))  # between a round's checkpoints
LIKESTEP_CACHE_GB = float(env("LIKESTEP_CACHE_GB", "20"))  # copies of the bucket's files that a machine may keep
LIKESTEP_MODEL_DIR = Path(env("LIKESTEP_MODEL_DIR", str(places.models() / "demo")))
LIKESTEP_STUDENT_DIR = Path(env("LIKESTEP_STUDENT_DIR", str(places.models() / "demo-student")))


def env_oracles() -> dict[str, str]:
    """Oracles that projects may choose, name → spec: those that need no model, and the server's own."""
    try:
        own = json.loads(env("LIKESTEP_ORACLES", "{}"))
        wrong = [k for k, v in own.items() if not (re.fullmatch(r"[\w-]{1,40}", k) and isinstance(v, str) and v)]
    except (ValueError, AttributeError) as error:
        raise ImproperlyConfigured(f"LIKESTEP_ORACLES: it is not a JSON object of names and specs ({error})") from error
    if wrong:
        raise ImproperlyConfigured(f"LIKESTEP_ORACLES: {wrong[0]!r} is no name of letters, digits, - and _ with a spec")
    return {"scenes": "scenes", "ocr": "ocr", "demo": "demo"} | own


# Specs name folders and addresses that workers read, so the server's owner writes them and a project chooses by name.
LIKESTEP_ORACLES = env_oracles()
# Whether generating and training may use one GPU at the same time.
LIKESTEP_SHARE_GPU = env("LIKESTEP_SHARE_GPU", "0").lower() in ("1", "true", "yes")


def env_memory() -> MemorySettings:
    """What this machine's workers save memory by."""
    try:
        return MemorySettings.from_json(json.loads(env("LIKESTEP_MEMORY", "{}")))
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(
            f"LIKESTEP_MEMORY: {error}; give a JSON object of the options in docs/memory.md"
        ) from error


LIKESTEP_MEMORY = env_memory()
METRICS_TOKEN = env("METRICS_TOKEN")
LIKESTEP_API_RATE = int(env("LIKESTEP_API_RATE", "600"))  # requests a token and minute
# Private networks that webhooks may reach all the same, for example 10.0.5.0/24.
LIKESTEP_WEBHOOK_NETWORKS = env_list("LIKESTEP_WEBHOOK_NETWORKS")
# The largest bodies of requests in bytes, see webapp.lib.uploads: of people who have not logged in, of the three kinds of
# files, and of all else.
LIKESTEP_ANONYMOUS_LIMIT = int(env("LIKESTEP_ANONYMOUS_LIMIT", "65536"))
LIKESTEP_PROMPTS_LIMIT = int(env("LIKESTEP_PROMPTS_LIMIT", "2000000"))
LIKESTEP_IMPORT_LIMIT = int(env("LIKESTEP_IMPORT_LIMIT", "50000000"))
LIKESTEP_IMAGES_LIMIT = int(env("LIKESTEP_IMAGES_LIMIT", "100000000"))
LIKESTEP_INPUT_LIMIT = int(env("LIKESTEP_INPUT_LIMIT", "20000000"))
LIKESTEP_BODY_LIMIT = int(env("LIKESTEP_BODY_LIMIT", "3000000"))
DATA_UPLOAD_MAX_MEMORY_SIZE = LIKESTEP_BODY_LIMIT
# Requests that a web process answers at once, each on a thread with a database connection that stays.
LIKESTEP_WEB_THREADS = int(env("LIKESTEP_WEB_THREADS", "8"))
# What one address (behind a proxy the visitor's own) may hold of a web process: connections and requests; and one person:
# live sockets. Downloads of rows each hold a database connection to their end.
LIKESTEP_CONNECTIONS = int(env("LIKESTEP_CONNECTIONS", "250"))
LIKESTEP_ALL_CONNECTIONS = int(env("LIKESTEP_ALL_CONNECTIONS", "800"))
LIKESTEP_SOCKETS = int(env("LIKESTEP_SOCKETS", "20"))
LIKESTEP_STREAMS = int(env("LIKESTEP_STREAMS", "4"))
# A connection on which nothing gets on for so long is closed: headers or bodies that do not come, answers nobody reads.
LIKESTEP_STALL_SECONDS = float(env("LIKESTEP_STALL_SECONDS", "20"))
REDIS_URL = env("REDIS_URL", "redis://127.0.0.1:6379/0")

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "ninja",
    "channels",
    "allauth.account",  # of allauth only what logs people in by OpenID Connect is used; none of its pages is mounted
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "webapp.accounts",
    "webapp.campaigns",
    "webapp.rounds",
    "webapp.labelling",
    "webapp.quality",
    "webapp.raters",
    "webapp.imports",
    "webapp.api",
    "webapp.dashboard",
    "webapp.operations",
    "axes",
]
MIDDLEWARE = [
    "webapp.lib.middleware.request_log",
    "webapp.lib.middleware.answer_headers",
    "webapp.lib.middleware.for_programs",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "webapp.lib.middleware.time_zone",
    "webapp.lib.middleware.storable",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]
ROOT_URLCONF = "webapp.urls"
ASGI_APPLICATION = "webapp.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [places.shipped("templates")],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

_database_url = env("DATABASE_URL", f"sqlite:///{LIKESTEP_DATA / 'likestep.sqlite3'}")
DATABASES = {"default": dj_database_url.parse(_database_url, conn_max_age=600, conn_health_checks=True)}
if DATABASES["default"]["ENGINE"].endswith(".postgresql"):
    DATABASES["default"]["ENGINE"] = "webapp.lib.postgresql"
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # Write locks are taken when a transaction begins: a lock taken half-way cannot wait, only fail.
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 60,  # SQLite is not fair: of fifty people who answer at once, one may wait for most of the others
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
    # In memory, connections would share one cache and fail where a file makes them wait.
    DATABASES["default"]["TEST"] = {"NAME": str(LIKESTEP_DATA / "test.sqlite3")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
# A socket on which nothing happens asks Redis again every 5 s, which is also the client's own time-out: without a longer
# one every quiet page loses its socket.
_channels = {"hosts": [{"address": REDIS_URL, "socket_timeout": 15}]}
CHANNEL_LAYERS = {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": _channels}}

AUTH_USER_MODEL = "accounts.User"
SESSION_ENGINE = "webapp.lib.sessions"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
# A name from an address is locked for a while after so many wrong passwords; others may go on logging in.
AXES_FAILURE_LIMIT = options.LOGIN_FAILURES
AXES_COOLOFF_TIME = options.LOCKED
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_TEMPLATE = "accounts/locked.html"
AXES_DISABLE_ACCESS_LOG = True  # who logs in from where is nobody's business
AXES_VERBOSE = False
# Logging in at another site, see docs/raters.md; None where it is off.
LIKESTEP_OIDC = sign_in.read(os.environ)
SOCIALACCOUNT_PROVIDERS = sign_in.apps(LIKESTEP_OIDC)
SOCIALACCOUNT_ADAPTER = "webapp.raters.oidc.OnlyOurs"
SOCIALACCOUNT_STORE_TOKENS = False
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
PASSWORD_RESET_TIMEOUT = 86_400  # seconds that a link for a new password works
# Mail is sent where a server for it is named.
EMAIL_HOST = env("EMAIL_HOST")
EMAIL_PORT = int(env("EMAIL_PORT", "587"))
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = env("EMAIL_HOST_USER"), env("EMAIL_HOST_PASSWORD")
EMAIL_USE_SSL = env("EMAIL_USE_SSL", "0") == "1"
EMAIL_USE_TLS = not EMAIL_USE_SSL and env("EMAIL_USE_TLS", "1") == "1"
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env("DEFAULT_FROM_EMAIL", "likestep@localhost")
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LOCALE_PATHS = [places.shipped("locale")]
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = Path(env("STATIC_ROOT", str(places.collected())))
STATICFILES_DIRS = [places.shipped("static")]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "webapp.lib.static_files.HashedStaticFiles"
    },
}
if LIKESTEP_S3_BUCKET:
    from webapp.lib.buckets import s3_storage

    _endpoint = env("LIKESTEP_S3_ENDPOINT")
    STORAGES["default"] = s3_storage(LIKESTEP_S3_BUCKET, _endpoint, env("LIKESTEP_S3_REGION"))
    if _public := env("LIKESTEP_S3_PUBLIC_ENDPOINT"):  # where browsers reach it, when that is another address
        STORAGES["public"] = s3_storage(LIKESTEP_S3_BUCKET, _public, env("LIKESTEP_S3_REGION"))
WHITENOISE_USE_FINDERS = DEBUG

SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
if env("HTTPS", "0") == "1":
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    SECURE_HSTS_SECONDS = 31_536_000
    # Whether sub-domains and browsers' preload lists may be bound is not this program's to say.
    SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
    # Asked by machines of the same network, over plain HTTP.
    SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz|metrics)$"]

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "about": {"()": "webapp.lib.logs.About"},
        "routes": {"()": "webapp.lib.logs.Routes"},
    },
    "formatters": {
        "plain": {
            "()": "webapp.lib.logs.OneLine",
            "format": "%(asctime)s %(levelname)s %(name)s %(message)s%(about)s",
        },
        "json": {"()": "webapp.lib.logs.json_formatter"},
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": "json" if env("LOG_FORMAT") == "json" else "plain",
            "filters": ["about", "routes"],
        }
    },
    "loggers": {
        "django.request": {"filters": ["routes"]},
        "django.security.csrf": {"filters": ["routes"]},
        "uvicorn": {"level": "WARNING"},  # it names the addresses of sockets
        "axes": {"level": "WARNING"},  # who logs in from where, and at which address: an invitation's is a secret
    },
    "root": {"handlers": ["console"], "level": env("LOG_LEVEL", "INFO")},
}

if SENTRY_DSN := env("SENTRY_DSN"):
    try:
        import sentry_sdk

        from webapp.lib.logs import crumb_for_sentry, for_sentry
    except ImportError as error:
        raise ImproperlyConfigured("SENTRY_DSN: install requirements-server.txt, or unset it") from error
    sentry_sdk.init(
        dsn=SENTRY_DSN,
        send_default_pii=False,
        max_request_body_size="never",
        include_local_variables=False,  # they hold passwords and what people wrote
        before_send=for_sentry,
        before_breadcrumb=crumb_for_sentry,
    )
