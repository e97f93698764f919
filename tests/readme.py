"""Type the commands of README.md as they stand: in a fresh clone, with pip in a clone, and from a wheel alone.

`make test-readme`, or `python -m tests.readme [clone|pip|wheel ...] [--python PROGRAM]`. Each way starts with a folder,
a home and temporary files of its own; in the clone lie photographs, too, where ../shared/data has them. At the end the
commands of docs/install.md that remove everything are typed, and what is left then is an error.

Where this user may make a network namespace (root may), every command but those that install runs without any other
machine in reach, and a single attempt to reach one is an error: the kernel counts them. Exit status 1 after an error.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = ROOT.parent / "shared" / "data" / "cats_dogs"
NUM_TRAINED, NUM_NEW = 120, 30  # photographs of a class
LIMIT_S = 1800.0  # of a command
WAYS = ("clone", "pip", "wheel")
WHEEL = re.compile(r"pip install \.(?= |$)")
INSTALLS = re.compile(r"(?:make install|pip install|python3 -m venv)\b")
KEPT = re.compile(r"(?:PIP|UV|SSL|REQUESTS|CURL|http|https|no)_\w+|LANG|LC_\w+|TERM|USER", re.IGNORECASE)
_BLOCK = re.compile(r"^## ([^\n]+)$|^```(console|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Brings the loopback device up, then stays until its standard input ends: the namespace lives as long.
_HOLDER = """
import fcntl, socket, struct
up = struct.pack("16sH14s", b"lo", 0x1 | 0x40, b"")
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, up)
print("ready", flush=True)
input()
"""
# A command after those before it: their folder and exported variables are read first and kept afterwards.
_STEP = """
[ ! -f "$STATE" ] || { . "$STATE"; cd "$PWD"; }
eval "$1"; status=$?
export -p > "$STATE"
exit $status
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One command or one Python program, and the section that it stands in."""

    section: str
    text: str
    is_python: bool = False

    @property
    def installs(self) -> bool:
        """Whether it asks a package index."""
        return not self.is_python and INSTALLS.match(self.text) is not None


def steps_of(page: str) -> list[Step]:
    """The commands after the prompt in blocks of `console`, and the blocks of Python, in order."""
    section, found = "", []
    for heading, language, block in _BLOCK.findall(page):
        if heading:
            section = heading
        elif language == "python":
            found.append(Step(section, block, is_python=True))
        else:
            found += [Step(section, line) for line in re.findall(r"^\$ (.*)$", block, re.MULTILINE)]
    return found


def typed(steps: list[Step], way: str, wheel: str) -> list[Step]:
    """What a reader types who goes that way: with or without a Makefile, from the folder or from the wheel."""
    end = next(index for index, step in enumerate(steps) if step.section != "Install")
    install, rest = steps[:end], steps[end:]
    pip = next(index for index, step in enumerate(install) if not step.text.startswith(("make ", ". .venv/")))
    chosen = install[:pip] if way == "clone" else install[pip:]
    if way == "wheel":
        chosen = [Step(step.section, WHEEL.sub(f"pip install {wheel}", step.text)) for step in chosen]
    return chosen + rest


class Network:
    """A network namespace with nothing but the loopback device."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.prefix = ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]

    def num_attempts(self) -> int:
        """How often a process in it tried to reach another machine."""
        names, values = (line.split() for line in self._read("snmp").splitlines() if line.startswith("Ip:"))
        other = re.search(r"^Ip6OutNoRoutes\s+(\d+)", self._read("snmp6"), re.MULTILINE)
        return int(values[names.index("OutNoRoutes")]) + (int(other[1]) if other else 0)

    def _read(self, name: str) -> str:
        return Path(f"/proc/{self._pid}/net/{name}").read_text()


@contextmanager
def network() -> Iterator[Network | None]:
    """A namespace of its own, or None where this user may not make one."""
    command = ["unshare", "--net", "--", sys.executable, "-c", _HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        ready = holder.stdout.readline() == b"ready\n"
        yield Network(holder.pid) if ready else None
        if ready:
            holder.communicate(b"\n")


@dataclass(slots=True)
class Reader:
    """Somebody with a folder and a home, who types."""

    folder: Path
    here: Path  # where the commands are typed
    python: Path
    network: Network | None
    faults: list[str] = field(default_factory=list)

    def type(self, step: Step) -> bool:
        """Run it, print how long it took, and the end of its output if it failed."""
        command = ["bash", "-c", _STEP, "bash", self._as_command(step)]
        alone = [] if step.installs or self.network is None else self.network.prefix
        before, started = self.num_attempts(), time.monotonic()
        with (self.folder / "output").open("w+b") as output:
            answer = subprocess.run(
                [*alone, *command], cwd=self.here, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, timeout=LIMIT_S, check=False,
            )  # fmt: skip
        shown = "(the Python program)" if step.is_python else step.text
        print(f"{time.monotonic() - started:7.1f} s  {shown}", flush=True)
        if answer.returncode:
            text = (self.folder / "output").read_text(errors="replace")
            self.faults.append(f"exit status {answer.returncode}: {shown}\n{text[-3000:]}")
        if (tried := self.num_attempts() - before) > 0:
            self.faults.append(f"another machine was tried {tried} times: {shown}")
        return not self.faults

    def num_attempts(self) -> int:
        """How often anything tried to reach another machine."""
        return 0 if self.network is None else self.network.num_attempts()

    def left(self) -> list[str]:
        """What lies in the home and among the temporary files."""
        return sorted(
            str(path.relative_to(self.folder)) for top in ("h", "t") for path in (self.folder / top).rglob("*")
        )

    def _as_command(self, step: Step) -> str:
        if not step.is_python:
            return step.text
        (self.folder / "program.py").write_text(step.text)
        return f"python {self.folder / 'program.py'}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables of somebody who has set nothing but the package index."""
        kept = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
        path = [str(self.python.parent), "/usr/local/bin", "/usr/bin", "/bin"]
        caches = {  # the user's: torch is large
            "PIP_CACHE_DIR": str(Path.home() / ".cache" / "pip"),
            "UV_CACHE_DIR": str(Path.home() / ".cache" / "uv"),
        }
        places = {"HOME": str(self.folder / "h"), "TMPDIR": str(self.folder / "t"), "STATE": str(self.folder / "state")}
        return caches | kept | places | {"PATH": os.pathsep.join(path)}


def make_here(folder: Path, way: str) -> tuple[Path, str]:
    """The folder that the reader starts in, and the name of the wheel in it."""
    here = folder / "pigeonhole"
    if way != "wheel":
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(here)], check=True)
        return here, ""
    build = [sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--out-dir", str(here), str(ROOT)]
    subprocess.run(build, check=True)
    (here / ".gitignore").unlink(missing_ok=True)
    [wheel] = here.glob("*.whl")
    return here, wheel.name


def make_photographs(here: Path) -> None:
    """Labelled photographs, and others to classify, of a reader who has some."""
    for name in ("Cat", "Dog"):
        images = sorted((PHOTOGRAPHS / name).glob("*.jpg"))[: NUM_TRAINED + NUM_NEW]
        for folder, chosen in ((f"photos/{name}", images[:NUM_TRAINED]), ("inbox", images[NUM_TRAINED:])):
            (here / folder).mkdir(parents=True, exist_ok=True)
            for image in chosen:
                shutil.copy(image, here / folder / f"{name}-{image.name}")


def read_aloud(way: str, python: Path) -> list[str]:
    """Go one way from the first command to the last; returns what went wrong."""
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="ph-", dir="/tmp"))
        )  # a socket's path is short
        for name in ("h", "t"):
            (folder / name).mkdir()
        here, wheel = make_here(folder, way)
        reader = Reader(folder, here, python, stack.enter_context(network()))
        print(f"== {way}, {python}" + ("" if reader.network else "; other machines are in reach: not root"), flush=True)
        steps = typed(steps_of((ROOT / "README.md").read_text()), way, wheel)
        if way == "clone" and PHOTOGRAPHS.is_dir():
            make_photographs(here)
        else:
            print("without photographs; the demo's characters stand in for them")
        if way == "clone":
            reader.type(Step("Install", "make install"))  # asks the index; what `make demo` does after it must not
        for step in steps:
            if not reader.type(step):
                break
        remove(reader)
        return reader.faults


def remove(reader: Reader) -> None:
    """Type what docs/install.md says removes everything; what is left in the home or the temporary files is a fault."""
    for step in steps_of((ROOT / "docs" / "install.md").read_text()):
        if step.section == "Remove it":
            reader.type(step)
    if left := reader.left():
        reader.faults.append("left behind: " + ", ".join(left[:20]))


def main() -> int:
    """Go the ways that were named, or all."""
    parser = argparse.ArgumentParser(description="Type the commands of README.md as they stand.")
    parser.add_argument("way", nargs="*", choices=[[], *WAYS], help="clone, pip or wheel; default: all")
    base = Path(sys.base_prefix) / "bin" / "python3"
    parser.add_argument("--python", type=Path, default=base, help=f"python3 of the reader; default: {base}")
    given = parser.parse_args()
    faults = {way: read_aloud(way, given.python.absolute()) for way in given.way or WAYS}
    for way, found in faults.items():
        print(f"{way}: " + ("\n".join(found) if found else "every command succeeded"))
    return int(any(faults.values()))


if __name__ == "__main__":
    sys.exit(main())
