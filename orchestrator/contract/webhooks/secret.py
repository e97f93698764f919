"""The secret that webhooks are signed with: a file of the home, made at the first use, or the one that a setting names.

It is never in a flag, a log, a manifest or a job's folder.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from pathlib import Path

from modeling.durable import link_once, private_mode, temporary_beside, write_durable
from orchestrator.contract.access import explain_os_error
from orchestrator.contract.errors import UsageError
from orchestrator.contract.home import make_home
from orchestrator.contract.settings import Settings
from orchestrator.contract.settings_file import content_of

_FILE = "notify.secret"
_PREFIX = "whsec_"
_BYTES = range(24, 65)  # as standardwebhooks.com has it
_MOST_SECRETS = 4


def secret_file(settings: Settings) -> Path:
    """The file with the secret."""
    return settings.notify_secret_file or settings.home / _FILE


def read_secrets(settings: Settings) -> list[bytes]:
    """The secrets, the newest first: while one is replaced, receivers may know the old one or the new one.

    The file in the home is made if there is none. Raises UsageError where the file cannot be used.
    """
    path = secret_file(settings)
    if settings.notify_secret_file is None and not path.exists():
        _make(settings, path)
    try:
        lines = content_of(path, "the secret of webhooks").split()
    except OSError as err:
        raise UsageError(f"the secret of webhooks cannot be read: {explain_os_error(err) or err}") from err
    if not 0 < len(lines) <= _MOST_SECRETS:
        raise UsageError(f"{path} holds {len(lines)} secrets of webhooks, not 1 to {_MOST_SECRETS}, one a line")
    return [_decode(line, path) for line in lines]


def sign(secret: bytes, delivery: str, seconds: int, body: bytes) -> str:
    """The signature of one delivery: HMAC-SHA256 over its id, its time in seconds since 1970, and the body."""
    signed = f"{delivery}.{seconds}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def _make(settings: Settings, path: Path) -> None:
    make_home(settings)
    line = _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode() + "\n"
    with temporary_beside(path, mode=private_mode(path.parent)) as temporary:
        write_durable(temporary, line.encode())
        link_once(temporary, path)  # another process may have been faster


def _decode(line: bytes, path: Path) -> bytes:
    try:
        secret = base64.b64decode(line.removeprefix(_PREFIX.encode()), validate=True)
    except binascii.Error:
        secret = b""
    if len(secret) not in _BYTES:
        raise UsageError(f"{path} holds no secret of webhooks: {_PREFIX} and the base64 of 24 to 64 random bytes")
    return secret
