"""Every setting of the installation: one frozen object, read once from the environment and passed down.

A setting is an environment variable `FEEDBACK_<NAME>`; README lists each one (a test holds it to that).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from storage.enums import Role
from storage.errors import Invalid

PREFIX = "FEEDBACK_"
_SECRET: tuple[tuple[str, ...], ...] = ((), ("database_url",), ("oidc_client_secret",), ("refiner_key",))


class Settings(BaseSettings):
    """The settings of this installation; build it with `load_settings`, which explains what is wrong in one line."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    home: Path = Field(
        Path("data"),
        description="Data folder: the SQLite database, snapshots, model versions, run folders and logs.",
    )
    database_url: str = Field(
        "",
        description="Database address. Empty: SQLite, the file feedback.db in the data folder. "
        "PostgreSQL: postgresql+psycopg://user:password@host/database.",
    )
    base_model: str = Field(
        "starter",
        description="Base model of projects that name none: `starter` (ships with the app), a local folder "
        "or a hub id of a causal language model with a chat template.",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="Where models run: `auto`, `cpu`, `mps`, `cuda` or `cuda:N`.",
    )
    host: str = Field("127.0.0.1", description="Address that the web server listens on; `0.0.0.0` for every interface.")
    port: int = Field(7860, ge=0, le=65535, description="Port that the web server listens on; 0 picks a free one.")
    public_url: str = Field(
        "",
        pattern=r"^(https?://.+)?$",
        description="Address that people type, for links; empty: http://HOST:PORT. "
        "An https address makes the session cookie Secure.",
    )
    session_days: float = Field(14.0, gt=0, le=3650, description="Days after which a signed-in browser signs in again.")
    link_hours: float = Field(72.0, gt=0, le=8760, description="Hours for which a one-time link can be used.")
    oidc_issuer: str = Field(
        "",
        pattern=r"^((https://[^/\s?#]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?)(/[^\s?#]*)?)?$",
        description="OpenID Connect provider through which people sign in, as it calls itself; empty: none. "
        "https, but for one on this machine. Its callback address is PUBLIC_URL/login/oidc/callback.",
    )
    oidc_client_id: str = Field("", description="What the provider calls this application.")
    oidc_client_secret: str = Field("", description="The secret it shares with this application; empty: PKCE alone.")
    oidc_groups_claim: str = Field("groups", min_length=1, description="The claim that holds a person's groups.")
    oidc_role_map: str = Field(
        "",
        description="Which group is which role: `staff=operator,helpers=annotator`; `*` is everybody. "
        "The highest role counts; who is in none may not enter.",
    )
    max_upload_mb: int = Field(200, ge=1, le=102400, description="Largest file, in MB, that the page takes for import.")
    webhook_private: bool = Field(
        False, description="Whether webhooks may lead to this machine and its network (loopback and private addresses)."
    )
    refiner_url: str = Field(
        "",
        pattern=r"^(https?://.+)?$",
        description="OpenAI-compatible endpoint that may refine criticised completions (`refiner=endpoint`), up to and "
        "with its /v1; empty: none. Whoever starts the worker decides where feedback is sent.",
    )
    refiner_key: str = Field("", description="The key of that endpoint; it is neither stored nor logged.")
    checkpoint_days: float = Field(
        7.0,
        ge=0,
        le=3650,
        description="Days for which the checkpoints of a run that failed or was cancelled are kept, so that it can go "
        "on; those of a run that succeeded are removed at once.",
    )
    poll_seconds: float = Field(0.3, gt=0, le=60, description="Seconds between a worker's looks for queued runs.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="How much the log files say: `debug`, `info`, `warning` or `error`."
    )

    @field_validator("home", mode="after")
    @classmethod
    def _absolute_home(cls, home: Path) -> Path:
        # Absolute at once: workers and training processes have folders of their own.
        return home.expanduser().absolute()

    @field_validator("database_url", mode="after")
    @classmethod
    def _known_database(cls, url: str) -> str:
        if not url:
            return url
        try:
            backend = make_url(url).get_backend_name()
        except ArgumentError as error:
            raise ValueError(
                "not a database address; PostgreSQL: postgresql+psycopg://user:password@host/db"
            ) from error
        if backend not in ("sqlite", "postgresql"):
            raise ValueError(f"'{backend}' is not supported; use SQLite or PostgreSQL")
        # The installed driver is psycopg 3; the bare name means psycopg2 to SQLAlchemy.
        return url.replace("postgresql://", "postgresql+psycopg://", 1)

    @field_validator("oidc_role_map", mode="after")
    @classmethod
    def _known_roles(cls, given: str) -> str:
        _roles_of(given)
        return given

    @model_validator(mode="after")
    def _whole_provider(self) -> Settings:
        for name in ("oidc_client_id", "oidc_role_map"):
            if self.oidc_issuer and not getattr(self, name):
                raise ValueError(f"set {PREFIX}{name.upper()} as well: sign-in through a provider needs it")
        return self

    @property
    def oidc_roles(self) -> dict[str, Role]:
        """The role that each of the provider's groups stands for."""
        return _roles_of(self.oidc_role_map)

    @property
    def store_url(self) -> str:
        """The database address in use."""
        if self.database_url:
            return self.database_url
        # Built, not concatenated: a folder's name may hold ? or %.
        return URL.create("sqlite", database=str(self.home / "feedback.db")).render_as_string(hide_password=False)

    @property
    def logs(self) -> Path:
        """Folder of the log files."""
        return self.home / "logs"

    @property
    def url(self) -> str:
        """The address that people type, without a slash at its end."""
        if self.public_url:
            return self.public_url.rstrip("/")
        shown = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104  compared, not bound
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}"

    def as_environment(self) -> dict[str, str]:
        """The environment variables that give a child process these very settings."""
        return {f"{PREFIX}{name.upper()}": str(value) for name, value in self.model_dump().items()}


def _roles_of(given: str) -> dict[str, Role]:
    roles = {}
    for part in filter(None, map(str.strip, given.split(","))):
        group, _, role = (side.strip() for side in part.rpartition("="))
        if not group or role not in list(Role):
            raise ValueError(f"write GROUP=ROLE,GROUP=ROLE with the roles {', '.join(Role)}; not so: '{part[:60]}'")
        roles[group] = Role(role)
    return roles


def load_settings(**overrides: object) -> Settings:
    """Read the settings from the environment; `overrides` that are None count as not given.

    Raises `Invalid` with one line that names the variable, what is wrong with it and what it was.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]  # validated by pydantic just below
    except ValidationError as error:
        first = error.errors()[0]
        name = f"{PREFIX}{'_'.join(str(part) for part in first['loc']).upper() or 'OIDC_ISSUER'}"
        message = first["msg"].removeprefix("Value error, ")
        # What may hold a password or a key is not repeated. Nor is everything, where no one value is wrong.
        got = "" if first["loc"] in _SECRET else f" (got {first['input']!r})"
        raise Invalid(f"{name}: {message[0].lower()}{message[1:]}{got}") from error


def unknown_variables() -> list[str]:
    """Environment variables that look like settings but are none: typing errors, for `doctor`."""
    return sorted(
        key for key in os.environ if key.startswith(PREFIX) and key[len(PREFIX) :].lower() not in Settings.model_fields
    )
