"""The URL of a server: checked before a library parses it, shown without its login, and as Celery spells it.

Libraries name parts of a URL that they cannot parse in their errors, and a password with a `#` or a `/` is such a part.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote

from orchestrator.contract.errors import UsageError

SCHEMES = ("redis", "rediss", "unix")
_SSL_OPTIONS = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_OPTIONS = ("db", "username", "password")
_MUST_BE_ENCODED = re.compile(r"[#/?\[\]@\s]")
_ENCODINGS = "# is %23, / is %2F, ? is %3F, @ is %40, : is %3A, [ is %5B, ] is %5D, % is %25, a space is %20"
_HOST = r"(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.-]*)"
_PLACE = re.compile(rf"{_HOST}(:(?P<port>\d*))?(?P<path>/[^?#]*)?(\?(?P<query>[^#]*))?", re.ASCII)
_PATH = re.compile(r"(?P<path>/[^?#]+)(\?(?P<query>[^#]*))?")
_HIDDEN_OPTION = re.compile(r"([?&](?!db=)[^=&#]*=)[^&#]*")


@dataclass(frozen=True)
class ServerUrl:
    """The parts of a URL; `path` names a database, or a socket (percent-encoded)."""

    scheme: str
    user: str
    password: str
    place: str  # host and port
    path: str
    options: dict[str, str]

    @property
    def login(self) -> tuple[tuple[str, str], ...]:
        """User and password by the names of their options; an option counts before the same in front of the host."""
        return ("username", self.user), ("password", self.password)

    @property
    def database(self) -> str:
        """The number of the database; empty where the URL names none."""
        return self.options.get("db") or ("" if self.scheme == "unix" else self.path.strip("/"))


def redact(url: str) -> str:
    """`url` for logs and messages: without anything that may be a user or a password."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    _, at, place = rest.rpartition("@")
    if not at and scheme != "unix" and not _PLACE.fullmatch(place.partition("#")[0]):
        return f"{scheme}{separator}***"
    return scheme + separator + ("***@" if at else "") + _HIDDEN_OPTION.sub(r"\1***", place)


def parse_url(url: str) -> ServerUrl:
    """The parts of `url`.

    Raises UsageError for what is not a URL of a server; the message holds nothing of a user or a password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise _refused(url, "must start with one of redis://, rediss://, unix://")
    is_path = scheme == "unix" and rest.startswith("/")
    login, _, place = ("", "", rest) if is_path else rest.rpartition("@")
    if _MUST_BE_ENCODED.search(login):
        raise _refused(url, f"has characters in its user or password that must be percent-encoded: {_ENCODINGS}")
    found = (_PATH if scheme == "unix" else _PLACE).fullmatch(place)
    if found is None:
        raise _refused(url, _what_is_wrong(scheme, place))
    user, _, password = login.partition(":")
    options = _options(url, scheme, found["query"] or "")
    place = "" if scheme == "unix" else place[: found.end("port") if found["port"] is not None else found.end("host")]
    parsed = ServerUrl(scheme, unquote(user), unquote(password), place, found["path"] or "", options)
    if not re.fullmatch(r"[0-9]{0,9}", parsed.database):
        raise _refused(url, "must name its database by a number, such as redis://host:6379/0")
    if scheme != "unix" and not 0 < int(found["port"] or 6379) < 1 << 16:
        raise _refused(url, "has no port from 1 to 65535")
    return parsed


def celery_url(url: str) -> str:
    """The URL of the same server for Celery's transport, which spells a socket and options differently."""
    parsed = parse_url(url)
    user, password = (parsed.options.get(name, given) for name, given in parsed.login)
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
    if parsed.scheme == "unix":
        database = f"?virtual_host={parsed.database}" if parsed.database else ""
        return f"redis+socket://{login}{parsed.path}{database}"
    tls = {name: value for name, value in parsed.options.items() if name in _SSL_OPTIONS}
    if parsed.scheme == "rediss":
        tls = {"ssl_cert_reqs": "required"} | tls  # Celery's default does not verify certificates
    query = "&".join(f"{name}={quote(value, safe='/')}" for name, value in tls.items())
    return f"{parsed.scheme}://{login}{parsed.place}/{parsed.database or 0}{'?' if query else ''}{query}"


def _options(url: str, scheme: str, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    known = (*_OPTIONS, *(_SSL_OPTIONS if scheme == "rediss" else ()))
    if unknown := [name for name in options if name not in known]:
        raise _refused(url, f"has the unknown option {unknown[0]!r}; there are {', '.join(known)}")
    return options


def _what_is_wrong(scheme: str, place: str) -> str:
    if scheme == "unix":
        return "must name a socket by its absolute path, such as unix:///run/valkey.sock"
    if "#" in place:
        return f"holds a #; in a user or password it must be percent-encoded: {_ENCODINGS}"
    return "has no host and port such as host:6379 before its path; a user and a password end with an @ before the host"


def _refused(url: str, why: str) -> UsageError:
    return UsageError(f"server URL {redact(url)!r} {why}")
