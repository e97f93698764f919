"""Two users of one machine on one home: what a group shares, and what is said where rights lack."""

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.contract.home import describe_openness, make_home
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.server import connect
from orchestrator.contract.settings import get_settings
from orchestrator.contract.shared_server import SharedServer, write_shared_server
from tests.support.fakes import Bells, FakeClassifier, FakeModelCache, make_images
from tests.support.invoke import invoke
from tests.support.published_models import publish_model
from tests.support.server import Server
from tests.support.users import UNNAMED, OneProcess, User, needs_root
from workers.classify.slice import classify_slice
from workers.context import WorkerContext
from workers.finalize.finalize import end_job

pytestmark = [
    pytest.mark.integration,
    needs_root,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

GROUP = UNNAMED + 9
DENIED = re.compile(
    rf"^error: Permission denied: .* belongs to user (\d+) \(group {GROUP}, mode \d+\), "
    rf"and this is user {UNNAMED + 3}; ask user \1 for access, or run as a user who has it\n$"
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter and write to, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="ph-", dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


LINE = [f"--bin={digit}={digit}" for digit in range(10)]
LINE += ["--model", "digits@champion", "--fallback", "F", "--review", "R"]


@dataclass(frozen=True)
class Site:
    """A home, what is classified, and where the results go."""

    place: Path
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        return Path(self.environment["PIGEONHOLE_HOME"])

    @property
    def results(self) -> Path:
        return self.place / f"results-of-{self.home.name}"

    def classify(self, user: User, name: str) -> str:
        """Submit a job; returns it."""
        source, output = self.place / "in", self.results / name
        return user.ok("classify", source, "--model", "digits@champion", "-o", output, "--detach").strip()

    def work(self, user: User, job: str) -> None:
        """Do what a worker of this user does for a job, to its end."""

        def work() -> str:
            settings = get_settings()
            make_home(settings)
            ledger, models = Ledger(connect(settings.require_server_url())), FakeModelCache(FakeClassifier())
            context = WorkerContext(settings, ledger, models, "w", "cpu", Bells())
            classify_slice(job, context)
            end_job(job, context)
            outcome = JobFolder.open(settings, job).outcome()
            return "" if outcome is None else outcome.state

        assert user.does(work) == "partial"


@pytest.fixture
def site(place: Path, server: Server) -> Site:
    server.folder.chmod(0o755)
    (server.folder / "s.sock").chmod(0o777)
    make_images(place / "in", [0, 100, 200, 250])
    (place / "in" / "bad.png").write_bytes(b"no image")
    for seed, name in enumerate(("first", "second")):
        publish_model(place / name / "models", "digits", seed)
    return Site(place, {"PIGEONHOLE_HOME": str(place / "home"), "PIGEONHOLE_SERVER_URL": server.url})


def use_everything(site: Site, first: User, second: User) -> str:
    """Each of two users changes what the other has made; returns a job that is cancelled."""
    models = [site.place / name / "models" / "digits" / "1" for name in ("first", "second")]
    for name, users in (("digits", (first, second)), ("other", (second, first))):
        for user, model in zip(users, models, strict=True):
            user.ok("models", "import", model, "--name", name)
    second.ok("models", "alias", "digits@1", "champion")
    first.ok("models", "alias", "digits@2", "champion")
    second.ok("models", "alias", "digits@2", "best")
    second.ok("models", "remove", "digits@1", "--yes")
    first.ok("models", "remove", "other@1", "--yes")

    job = site.classify(first, "out.csv")
    second.ok("cancel", job)
    second.ok("jobs", "resume", job, "--detach")
    site.work(second, job)
    retried = second.ok("jobs", "retry", job, "--detach").strip()
    site.work(first, retried)
    assert retried in first.ok("jobs")
    assert first.ok("results", "verify", site.results / "out.csv") is not None
    second.ok("jobs", "prune", "--older-than", "0.001s")
    assert list((site.home / "jobs").glob("c*")) == []

    for name, maker, other in (("a", first, second), ("b", second, first)):
        maker.ok("lines", "create", name, *LINE)
        other.ok("lines", "set", name, "--deadline", "300ms")
        other.ok("lines", "remove", name, "--yes")
    job = site.classify(second, "again.csv")
    first.ok("jobs", "pause", job)
    first.ok("cancel", job)
    first.ok("jobs", "prune", "--older-than", "1h")
    return job


def test_two_members_of_a_group_change_what_the_other_has_made_and_others_are_told_whose_it_is(
    site: Site, server: Server
):
    alone = replace(site, environment=site.environment | {"PIGEONHOLE_HOME": str(site.place / "own")})
    alone.results.mkdir()
    use_everything(alone, OneProcess(0, (), alone.environment), OneProcess(0, (), alone.environment))
    server.empty()  # it belonged to that home, whose commands have imported what users may not read
    site.results.mkdir()
    os.chown(site.results, UNNAMED + 1, GROUP)
    site.results.chmod(0o2770)
    first = User(UNNAMED + 1, [GROUP], site.environment | {"PIGEONHOLE_HOME_GROUP": str(GROUP)})
    second = User(UNNAMED + 2, [GROUP], site.environment)  # the home says itself that it is shared
    stranger = User(UNNAMED + 3, [], site.environment)

    job = use_everything(site, first, second)

    assert {path.stat().st_gid for path in (site.home, *site.home.rglob("*"))} == {GROUP}
    assert second.does(lambda: describe_openness(get_settings())).startswith(
        f"its group {GROUP} shares it (mode 2770): set home_group if that is meant"
    )
    site.classify(first, "third.csv")
    commands = [
        ("models", "import", site.place / "first" / "models" / "digits" / "1", "--name", "digits"),
        ("models", "alias", "digits@2", "third"),
        ("models", "remove", "other@2", "--yes"),
        ("classify", site.place / "in", "--model", "digits@2", "-o", site.place / "x.csv", "--detach"),
        ("jobs", "resume", job, "--detach"),
        ("jobs", "prune", "--older-than", "0.001s"),
        ("lines", "create", "c", *LINE),
        ("lines", "list"),
        ("jobs",),
    ]
    for mode in (0o2770, 0o2775):
        site.home.chmod(mode)
        for command in commands:
            ran = stranger.run(*command)
            assert (ran.code, DENIED.search(ran.err) is not None) == (1, True), (mode, command, ran.err)
    assert {path.name for path in site.home.joinpath("models").iterdir()} == {"digits", "other"}


def test_a_members_local_stack_is_that_members_alone_unless_it_listens(site: Site):
    local = {"PIGEONHOLE_SERVER_URL": "", "PIGEONHOLE_HOME": str(site.home), "PIGEONHOLE_HOME_GROUP": str(GROUP)}
    first, second = (User(UNNAMED + number, [GROUP], local) for number in (1, 2))
    invoke("up", "--help")  # imports what users may not read

    def start(*, listen: bool) -> None:
        """Leave the files of a stack that runs."""
        settings = get_settings()
        make_home(settings)
        settings.stack.mkdir(0o700, parents=True, exist_ok=True)
        (settings.stack / "url").write_text("unix:///tmp/nowhere")
        if listen:
            write_shared_server(site.home, SharedServer(socket.gethostname(), "h:1", "redis://:word@h:1"), None)

    first.does(lambda: start(listen=False))
    told = [second.run(*command) for command in (("jobs",), ("workers", "list"))]
    refused = second.run("up")
    first.does(lambda: start(listen=True))

    alone = f" serves user {UNNAMED + 1} alone: ask user {UNNAMED + 1} to run `pigeonhole up --listen`"
    assert [(ran.code, alone in ran.err) for ran in told] == [(0, True), (69, True)], told  # `jobs` shows the disk
    assert (refused.code, f"is user {UNNAMED + 1}'s, who alone can start" in refused.err) == (2, True), refused
    assert second.does(lambda: get_settings().find_server_url()) == "redis://:word@h:1"
