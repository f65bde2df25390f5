"""What an operator may set: command line over environment over `izograf.toml` over defaults."""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from izograf.schema.errors import InvalidInput

CONFIG_FILE = "izograf.toml"
MIB = 1 << 20


class ServiceSettings(BaseSettings):
    """Every setting of the service; `IZOGRAF_PORT=9000` in the environment sets `port`.

    Times are seconds, sizes bytes unless the name says otherwise.
    """

    model_config = SettingsConfigDict(
        env_prefix="IZOGRAF_", toml_file=CONFIG_FILE, extra="ignore", frozen=True
    )

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    data_dir: Path = Path("izograf-data")
    database_url: str | None = None

    login: Literal["auto", "always"] = "auto"
    """auto: nobody logs in while the service is bound to this machine alone."""
    allowed_hosts: tuple[str, ...] = ()
    """Names under which browsers may reach the service, besides those of this machine."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses of reverse proxies whose X-Forwarded-For and -Proto are believed."""
    secure_cookies: bool = False
    """Whether browsers reach the service by https; then cookies are sent by https only."""
    session_hours: float = Field(24 * 14, gt=0)

    engine: Literal["local", "fake"] = "local"
    devices: tuple[str, ...] = ("auto",)
    precision: str = "auto"
    backend: str = "auto"
    batch_size: int = Field(16, ge=1, le=256)
    max_model_loads: int = Field(100, ge=0)
    max_memory_bytes: int = Field(0, ge=0)
    preview_seconds: float = Field(0.5, ge=0)

    default_model: str = "scenes"
    max_images_per_job: int = Field(64, ge=1, le=1000)
    max_queued: int = Field(20_000, ge=1)
    max_queued_per_owner: int = Field(1_000, ge=1)
    requests_per_minute: int = Field(6_000, ge=1)
    """Of one client, for everything but static files; jobs have their own limit."""
    jobs_per_minute: int = Field(120, ge=1)
    max_body_bytes: int = Field(1 * MIB, ge=1024)
    max_upload_bytes: int = Field(20 * MIB, ge=1024)
    max_upload_pixels: int = Field(16_000_000, ge=1)
    max_upload_frames: int = Field(1, ge=1)

    grace_seconds: float = Field(20.0, ge=0)
    """How long running jobs may go on when the service is told to stop."""
    keep_jobs_days: float = Field(90, gt=0)
    keep_deleted_days: float = Field(7, ge=0)
    log_format: Literal["console", "json"] = "console"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def login_required(self) -> bool:
        """Whether everybody must log in; otherwise whoever connects is the administrator."""
        return self.login == "always" or not self.loopback

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(**flags: Any) -> ServiceSettings:
    """The settings with the flags that are not None before everything else.

    Raises:
        InvalidInput: a value that cannot be, a file that cannot be read, an unknown name in it.
    """
    _check_names(_read_config(Path(CONFIG_FILE)))
    try:
        return ServiceSettings(
            **{name: value for name, value in flags.items() if value is not None}
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"The setting {name} cannot be used: {first['msg']}.") from None
    except SettingsError as error:
        raise InvalidInput(f"The environment cannot be read: {error}.") from None


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"{path.absolute()} cannot be read: {error}.") from None


def _check_names(given: Mapping[str, Any]) -> None:
    if unknown := sorted(set(given) - set(ServiceSettings.model_fields)):
        raise InvalidInput(
            f"{CONFIG_FILE} has {unknown[0]!r}, which is no setting: "
            f"known are {', '.join(ServiceSettings.model_fields)}."
        )
