"""Runs of a hot folder in the test's own process, with a client and a submitter that answer at once."""

import threading
from concurrent.futures import Future

from orchestrator.contract.lines.answers import Answer
from orchestrator.hot_folder.folders import open_hot_folder
from orchestrator.hot_folder.jobs import Jobs
from orchestrator.hot_folder.pushing import Pusher
from orchestrator.hot_folder.results import Sorting
from orchestrator.hot_folder.run import Runner


class FakeClient:
    """Answers at once, after what the test wants to happen before."""

    def __init__(self):
        self.before = lambda item: None
        self.items = []

    def submit(self, image, item, *, deadline):
        self.before(item)
        self.items.append(item)
        future = Future()
        future.set_result(Answer(item, 1, "1"))
        return future


class FakeSubmit:
    """Raises what it is given, one after another."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.specs = []

    def __call__(self, spec):
        self.specs.append(spec)
        raise self.errors.pop(0)


def make_runner(scans, said, *, client=None, submit=None, settings=None, by_bin=False):
    runner = Runner(open_hot_folder(scans.path), 0.01, 1, lambda done: None, said.append)
    runner.jobs = Jobs(settings, "m", 1, Sorting(), runner.ended, said.append, runner.wake, submit)
    if client is not None:
        runner.pusher = Pusher(client, 60.0, 1, Sorting(by_bin), runner.ended, said.append)
    return runner


def run_to_the_end(runner, *, once=True):
    """Until it stops, or nothing is left in `in/`; one that never ends is stopped."""
    stopper = threading.Timer(60, runner.stop)
    stopper.start()
    runner.run(once=once)
    stopper.cancel()
