"""What answers under a name of the protocol: a line, or the line of a model, which is opened when it is asked for."""

import threading
import time
from dataclasses import dataclass

from modeling.errors import ModelingError, ModelNameError, ModelNotFoundError
from modeling.registry.store import ModelVersion
from orchestrator.contract.errors import NotFoundError
from orchestrator.contract.lines.limits import LONGEST_DEADLINE_MS
from orchestrator.contract.lines.model_lines import DEADLINE_S, USE_AGAIN_S, ModelLines, model_line_name
from orchestrator.contract.lines.settings import Line
from orchestrator.gateway.context import GatewayContext
from orchestrator.gateway.inference.outputs import OUTPUTS, OUTPUTS_OF_LINES, Labels
from orchestrator.gateway.problems import ProblemError
from orchestrator.lines.client import LineClient

FIND_AGAIN_S = 1.0
_MOST_FOUND = 1_000  # names are what clients send
_MOST_LABELS = 100
_DEFAULT_PRIORITY = 2


@dataclass(frozen=True, slots=True)
class InferenceTarget:
    """A line, or a model. name, version: as it is called; a line has no version. line: that answers.

    reference: of the model; None: an operator's line. model: the version that the reference, or the line, means now;
    None: a line whose model is not there.
    """

    name: str
    version: str
    line: str
    reference: str | None
    model: ModelVersion | None

    @property
    def outputs(self) -> dict[str, str]:
        """The names of its outputs, with their datatypes."""
        return OUTPUTS_OF_LINES if self.reference is None else OUTPUTS

    def deadline_s(self, timeout_us: int, priority: int) -> float | None:
        """Of a request, in seconds; None: as the line has it.

        A model has no deadline of its own. Requests are taken by their deadlines, so a lower priority is a later one.
        """
        longest_s = LONGEST_DEADLINE_MS / 1000
        if timeout_us:
            return max(0.001, min(timeout_us / 1e6, longest_s))
        if self.reference is None:
            return None
        return min(DEADLINE_S / _DEFAULT_PRIORITY * (priority or _DEFAULT_PRIORITY), longest_s)


class Targets:
    """Finds targets, and remembers them for a second. Safe to share between threads; what asks the disk blocks."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._found: dict[tuple[str, str], tuple[float, InferenceTarget]] = {}
        self._labels: dict[str, Labels] = {}
        self._used: dict[str, float] = {}

    def known(self, name: str, version: str) -> InferenceTarget | None:
        """The target if it was found just now. Where it was not, one caller finds it again; others have the old one."""
        at, target = self._found.get((name, version), (0.0, None))
        if target is None or time.monotonic() - at < FIND_AGAIN_S:
            return target
        self._found[name, version] = (time.monotonic(), target)
        return None

    def found_last(self, name: str, version: str) -> InferenceTarget | None:
        """The target as it was found last, however long ago; None where it was not there then."""
        return self._found.get((name, version), (0.0, None))[1]

    def find(self, name: str, version: str = "") -> InferenceTarget:
        """Raises ProblemError where there is neither a line nor a model of that name, or no such version."""
        try:
            target = self._find(name, version)
        except Exception:
            self._found.pop((name, version), None)
            raise
        with self._lock:
            if len(self._found) >= _MOST_FOUND:
                self._found.clear()
            self._found[name, version] = (time.monotonic(), target)
        return target

    def _find(self, name: str, version: str) -> InferenceTarget:
        lines = self._context.lines.all()
        if not version and name in lines and not lines[name].settings.of_model:
            return InferenceTarget(name, "", name, None, self._model_of(lines[name]))
        reference = f"{name}@{version}" if version else name
        try:
            if version and "@" in name:
                raise ModelNotFoundError(f"{name!r} names a version, so there is no version {version!r} of it")
            model = self._context.models.resolve(reference)
        except (ModelNotFoundError, ModelNameError) as err:
            there = sorted(other for other, line in lines.items() if not line.settings.of_model)
            more = f"; there are lines: {', '.join(there[:20])}" if there and not version else ""
            raise ProblemError(404, "not_found", f"{err}{more}") from err
        return InferenceTarget(name, version, model_line_name(reference), reference, model)

    def _model_of(self, line: Line) -> ModelVersion | None:
        try:
            return self._context.models.resolve(line.settings.model)
        except ModelingError:
            return None

    def is_used(self, target: InferenceTarget) -> bool:
        """Whether its line is open and needs not be told of this use. Blocks not."""
        reference = target.reference
        return reference is None or time.monotonic() - self._used.get(reference, float("-inf")) < USE_AGAIN_S

    def use(self, target: InferenceTarget) -> None:
        """Let workers open the line of a model, or keep it open. Raises UnavailableError."""
        reference = target.reference
        if reference is None or self.is_used(target):
            return
        ModelLines(self._context.registry(), self._context.server()[1]).use(reference)
        self._context.lines.all(0.0)
        with self._lock:
            if len(self._used) >= _MOST_FOUND:
                self._used.clear()
            self._used[reference] = time.monotonic()

    def opened(self, target: InferenceTarget) -> LineClient | None:
        """The client of a target's line, if the line is open and used. Blocks not."""
        return self._context.lines.opened(target.line) if self.is_used(target) else None

    def opened_before(self, target: InferenceTarget) -> LineClient | None:
        """The client of a target's line, if the line was open a moment ago, whether it is used or not. Blocks not."""
        return self._context.lines.opened(target.line)

    def line_of(self, target: InferenceTarget) -> Line:
        """A target's line, which is opened. Raises UnavailableError, NotFoundError."""
        self.use(target)
        try:
            return self._context.lines.get(target.line)
        except NotFoundError:  # it has gone since it was told of a use, as with an emptied server
            if target.reference is None:
                raise
        self._used.pop(target.reference, None)
        self.use(target)
        return self._context.lines.get(target.line)

    def open(self, target: InferenceTarget) -> LineClient:
        """The client of a target's line, which is opened. Raises as `line_of` does."""
        self.line_of(target)
        return self._context.lines.open(target.line)

    def known_labels(self, reference: str) -> Labels | None:
        """The labels of a version, if they were read before."""
        return self._labels.get(reference)

    def labels(self, version: ModelVersion | str) -> Labels:
        """The labels of a version, `name@2`. Raises ModelingError where it is gone."""
        reference = version if isinstance(version, str) else version.ref
        if reference not in self._labels:
            labels = Labels(self._context.models.find(reference).card().labels)
            with self._lock:
                if len(self._labels) >= _MOST_LABELS:
                    self._labels.clear()
                self._labels[reference] = labels
        return self._labels[reference]
