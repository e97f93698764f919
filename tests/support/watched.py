"""An environment whose Python processes, with all they start, write down what they look up or connect to elsewhere."""

import os
from pathlib import Path

_HOOK = """
import os, sys

def _watch(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"):
        host = arguments[0][0] if isinstance(arguments[0], tuple) else arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host and host != "localhost" and not host.startswith("127.") and host != "::1":
        with open(os.environ["WATCHED_LOG"], "a") as log:
            log.write(f"{event} {host}: {sys.orig_argv!r}\\n")

sys.addaudithook(_watch)
"""


class Watched:
    """A home folder of its own, and the log of what was contacted."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "user"
        self.home.mkdir(parents=True)
        (folder / "hook").mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(_HOOK)
        self._log = folder / "contacted.log"
        self._hook = folder / "hook"

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a user who has set nothing: libraries behave otherwise where CI is set."""
        kept = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("XDG_")}
        path = os.pathsep.join(filter(None, [str(self._hook), os.environ.get("PYTHONPATH")]))
        return kept | {"HOME": str(self.home), "PYTHONPATH": path, "WATCHED_LOG": str(self._log)}

    def contacted(self) -> list[str]:
        """What was looked up or connected to on other machines."""
        return self._log.read_text().splitlines() if self._log.exists() else []

    def left_in_home(self) -> list[str]:
        """What was put into the home folder."""
        return sorted(str(path.relative_to(self.home)) for path in self.home.rglob("*"))
