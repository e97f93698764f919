"""Which settings file is read: the operator's own, never one of the present folder, which may be anybody's data set."""

import os
import pwd
import stat
import tomllib
from pathlib import Path
from typing import Any

from orchestrator.contract.access import explain_os_error
from orchestrator.contract.errors import NotFoundError, UsageError

TOML_FILE = "pigeonhole.toml"
CONFIG_VARIABLE = "PIGEONHOLE_CONFIG"  # `--config` sets it, for this process and those that it starts

_MOST_BYTES = 1 << 20  # of a settings file


def user_folder() -> Path | None:
    """HOME, else the folder that the system has for this user; None for a user without a name."""
    home = os.environ.get("HOME", "")
    if not os.path.isabs(home):  # noqa: PTH117 unset, empty or relative: that would be the present folder
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return None
    return Path(home)


def settings_file() -> Path | None:
    """The file that is read if it exists; None for a user without a folder."""
    if named := os.environ.get(CONFIG_VARIABLE):
        return Path(named)
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    if os.path.isabs(configured):  # noqa: PTH117 the specification has relative ones ignored
        return Path(configured) / "pigeonhole" / TOML_FILE
    user = user_folder()
    return None if user is None else user / ".config" / "pigeonhole" / TOML_FILE


def read_settings_file() -> dict[str, Any]:
    """The values in the settings file; empty where the user has none.

    Raises NotFoundError if a file that was named does not exist, UsageError if it cannot be read.
    """
    file = settings_file()
    if file is None:
        return {}
    try:
        values = tomllib.loads(content_of(file, "the settings file", "; name one with --config").decode())
    except (FileNotFoundError, NotADirectoryError) as err:
        if not os.environ.get(CONFIG_VARIABLE):
            return {}
        raise NotFoundError(f"there is no settings file {str(file)!r}; see --config and {CONFIG_VARIABLE}") from err
    except OSError as err:
        raise UsageError(f"the settings file cannot be read: {explain_os_error(err) or err}") from err
    except (ValueError, RecursionError) as err:
        raise UsageError(f"the settings file {str(file)!r} is not TOML: {err}") from err
    for name in ("home", "weights", "notify_secret_file"):
        if isinstance(folder := values.get(name), str) and not folder.startswith("~"):
            values[name] = str(file.parent / folder)  # relative to the file: never to the present folder
    return values


def content_of(file: Path, what: str, advice: str = "") -> bytes:
    """The bytes of a regular file of a sensible length, or of /dev/null; a pipe may never end, nor a device.

    Raises OSError, and UsageError, which calls the file `what`.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer does not block
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) and str(file) != os.devnull:
            raise UsageError(f"{what} {str(file)!r} is not a regular file{advice}")
        with open(descriptor, "rb", closefd=False) as opened:
            content = opened.read(_MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > _MOST_BYTES:
        raise UsageError(f"{what} {str(file)!r} has more than {_MOST_BYTES} bytes: it is none")
    return content


def describe_unread() -> str | None:
    """One line on a settings file in the present folder that is not read; None where there is none."""
    try:
        here = Path.cwd() / TOML_FILE
    except OSError:
        return None  # the present folder is gone
    read = settings_file()
    if not os.path.lexists(here) or (read is not None and _same(here, read)):
        return None
    others = [f"{read}"] * (read is not None) + ["the file that --config names"] * (CONFIG_VARIABLE not in os.environ)
    return f"{str(here)!r} is not read: settings are read from {' or '.join(others)}"


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
