"""Settings: a flag, then `PIGEONHOLE_*` in the environment, then the settings file, then the default."""

import logging
import os
import socket
import stat
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from modeling.images.formats import MAX_PIXELS, PILLOW_MAX_PIXELS
from orchestrator.contract.access import user_name
from orchestrator.contract.errors import UnavailableError, UsageError
from orchestrator.contract.settings_file import (
    TOML_FILE,
    describe_unread,
    read_settings_file,
    settings_file,
    user_folder,
)
from orchestrator.contract.shared_server import SharedServer, read_shared_server

logger = logging.getLogger(__name__)

Network = IPv4Network | IPv6Network


class Settings(BaseSettings):
    """The settings of every process of one installation."""

    model_config = SettingsConfigDict(
        env_prefix="PIGEONHOLE_",
        env_ignore_empty=True,  # compose files pass `${NAME:-}`: an unset value, not an empty one
        extra="forbid",
        frozen=True,
    )

    home: Path = Field(
        default=Path("~/.pigeonhole"),
        description="Folder of jobs and models, which all machines share, and of their local stacks.",
    )
    home_group: str | None = Field(
        default=None,
        description="Group, by name or number, whose members share a home that is made; default: its owner alone.",
    )
    server_url: SecretStr | None = Field(
        default=None, description="Redis or Valkey: redis://, rediss:// or unix://; default: the one that `up` started."
    )
    lease_s: float = Field(
        default=6.0,
        ge=0.5,
        description="Seconds that a claim counts without renewal; then other workers may claim a dead worker's shards.",
    )
    slice_s: float = Field(
        default=5.0, gt=0, description="Seconds a worker stays with one job before others get their turn."
    )
    stall_s: float = Field(
        default=300.0, gt=0, description="Seconds without a finished batch after which a worker process is replaced."
    )
    training_stall_s: float = Field(
        default=1800.0,
        gt=0,
        description="Seconds without a sign of life after which the process of a training or an evaluation is ended "
        "and started again; phases that are known to be silent have two hours.",
    )
    memory_limit_bytes: int = Field(
        default=0,
        ge=0,
        description="Memory above which a worker process is replaced between two slices; 0: three quarters of a "
        "container's quota, or half of the machine's memory.",
    )
    max_attempts: int = Field(default=20, ge=3, description="Times a shard may kill its worker before it is given up.")
    batch_size: int = Field(
        default=0, ge=0, description="Images in one forward pass; 0: as many as measure fastest for the model."
    )
    decode_threads: int = Field(
        default=0, ge=0, description="Threads that read and decode; 0: as many as measure best for the images."
    )
    max_pixels: int = Field(
        default=MAX_PIXELS,
        ge=1,
        le=PILLOW_MAX_PIXELS,
        description="Larger images are refused before they are decoded; above the default, the limits on work and "
        "memory for one image rise with it.",
    )
    max_file_bytes: int = Field(default=256 << 20, ge=1, description="Larger files are refused before they are read.")
    weights: Path | None = Field(
        default=None,
        description="Folder of files of pre-trained weights that `train` may start from, beside the imported ones.",
    )
    notify: str | None = Field(
        default=None, description="URL that is notified when a job ends; `--notify` of a command counts before it."
    )
    notify_secret_file: Path | None = Field(
        default=None, description="File with the secret that webhooks are signed with; default: one in the home."
    )
    notify_allow: str = Field(
        default="",
        description="Networks with commas, such as 10.0.0.0/8, that webhooks may reach besides public addresses.",
    )

    @field_validator("notify_allow")
    @classmethod
    def _networks(cls, text: str) -> str:
        _parse_networks(text)  # told when a process starts
        return text

    @field_validator("home", "weights", "notify_secret_file")
    @classmethod
    def _absolute(cls, folder: Path | None, info: ValidationInfo) -> Path | None:
        return None if folder is None else _expanded(folder, str(info.field_name))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, file; no dotenv and no secrets folder, to keep the number of places small."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, read_settings_file())

    def is_shared(self) -> bool:
        """Whether a group shares the home: as the setting says, or the mode of a home that was made with it."""
        if self.home_group is not None:
            return True
        shared = stat.S_ISGID | stat.S_IWGRP
        try:
            return self.home.stat().st_mode & shared == shared
        except OSError:
            return False

    @property
    def jobs(self) -> Path:
        """One folder for each job."""
        return self.home / "jobs"

    @property
    def active(self) -> Path:
        """One empty file for each job that has not ended; the sweep compares the ledger with it."""
        return self.home / "active"

    @property
    def webhooks(self) -> Path:
        """One empty file for each job that has ended and whose webhook is not delivered yet."""
        return self.home / "webhooks"

    @property
    def notify_networks(self) -> list[Network]:
        """The networks of `notify_allow`."""
        return _parse_networks(self.notify_allow)

    @property
    def models(self) -> Path:
        """The model store."""
        return self.home / "models"

    @property
    def imported_weights(self) -> Path:
        """The store of pre-trained weights that were imported."""
        return self.home / "weights"

    @property
    def cache(self) -> Path:
        """Results about images that may be needed again; safe to delete."""
        return self.home / "cache"

    @property
    def stack(self) -> Path:
        """Sockets, process ids and logs of this machine's local stack; other machines may share the home."""
        return self.home / "stack" / socket.gethostname()

    def shared_elsewhere(self) -> SharedServer | None:
        """The server that another machine runs for this home; None where no other does."""
        shared = read_shared_server(self.home)
        return shared if shared is not None and shared.host != socket.gethostname() else None

    def find_server_url(self) -> str | None:
        """The configured server, else the one that another machine runs for all, else the local stack's, else None.

        Raises UnavailableError where the local stack is another user's who shares it with nobody.
        """
        if self.server_url is not None:
            return self.server_url.get_secret_value()
        if (shared := self.shared_elsewhere()) is not None:
            return shared.url_in(self.home)
        try:
            return (self.stack / "url").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except PermissionError as err:
            if (shared := read_shared_server(self.home)) is not None:  # another user's of this machine
                return shared.url_in(self.home)
            owner = self.stack_owner()
            raise UnavailableError(
                f"the local stack in {self.stack} serves {owner} alone: ask {owner} to run `pigeonhole up --listen`, "
                "which lets in the users who may read the home, or set PIGEONHOLE_SERVER_URL"
            ) from err

    def stack_owner(self) -> str:
        """The user who alone can start and stop the local stack of this machine; empty where nobody has done it yet."""
        try:
            return user_name(self.stack.stat().st_uid)
        except OSError:
            return ""

    def require_server_url(self) -> str:
        """The server to talk to. Raises UnavailableError if none is configured and no local stack runs."""
        url = self.find_server_url()
        if url is None:
            raise UnavailableError(
                "no server is configured and no local stack runs; "
                "start one with `pigeonhole up`, or set PIGEONHOLE_SERVER_URL"
            )
        return url


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """This process's settings. Warns of a settings file in the present folder, which is not read.

    Raises UsageError if a value in the environment or in the settings file cannot be used.
    """
    if unread := describe_unread():
        logger.warning("%s", unread)
    try:
        settings = Settings()
    except SettingsError as err:
        raise UsageError(f"PIGEONHOLE_* in the environment cannot be read: {err}") from err
    except ValidationError as err:
        raise UsageError(_explain(err)) from err
    if settings.is_shared():
        os.umask(limited_umask(os.umask(0o077), shared=True))  # whatever the command, the group can use what it makes
    return settings


def limited_umask(umask: int, *, shared: bool = False) -> int:
    """The umask without files that everybody may write to; `shared`: with files that the group may write to."""
    return (umask & ~0o070 if shared else umask) | 0o002


def _parse_networks(text: str) -> list[Network]:
    return [ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip()]


def _expanded(folder: Path, name: str) -> Path:
    """The folder of a setting as an absolute path; `~` is the user's own folder."""
    if folder.is_absolute():
        return folder
    if folder.parts[:1] == ("~",):
        if (user := user_folder()) is None:
            variable = f"PIGEONHOLE_{name.upper()}"
            raise UsageError(f"user {os.getuid()} has neither HOME nor a name; set {variable} to a folder")
        return user.joinpath(*folder.parts[1:])
    try:
        return Path.cwd() / folder.expanduser()
    except RuntimeError as err:
        raise UsageError(f"{name} {str(folder)!r}: there is no user of that name") from err
    except FileNotFoundError as err:
        raise UsageError(f"{name} {str(folder)!r} is relative, and the present folder was deleted") from err


def _explain(err: ValidationError) -> str:
    """What is wrong with a setting; never its value where that may hold a password."""
    first = err.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    file = settings_file() or TOML_FILE
    if first["type"] == "extra_forbidden":
        return f"{file}: there is no setting {name!r}; choose from {', '.join(Settings.model_fields)}"
    given = "" if name in ("server_url", "notify") else f" (given {first['input']!r})"
    return f"setting {name!r}: {first['msg']}{given}; see PIGEONHOLE_{name.upper()} in the environment and {file}"
