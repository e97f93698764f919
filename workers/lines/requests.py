"""A request that this worker holds, from the server to its answer; and the line that it belongs to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from modeling.images.pixels import Pixels
from orchestrator.contract.lines.answers import Verdict
from orchestrator.contract.lines.requests import Held
from orchestrator.contract.lines.settings import Line
from orchestrator.contract.lines.stats import WorkerCounts
from orchestrator.contract.lines.store import LineStore
from workers.lines.model import LineModel
from workers.lines.timings import Timing

_LEASE_MS = (100, 2_000)


@dataclass(slots=True, eq=False)
class OpenLine:
    """A line as this worker serves it. What changes is replaced whole, so that each batch sees one state.

    url: of its server. model, degraded: None until they are loaded. decode: of this line's images. answer: a round trip
    that sends answers. used_s: seconds of the device that the line has used, counted for fair shares. trouble,
    model_trouble: why the line is not served as it should be, or not by the model that it should have. loading: what
    takes seconds before another model is ready.
    """

    line: Line
    store: LineStore
    url: str
    model: LineModel | None = None
    degraded: LineModel | None = None
    counts: WorkerCounts = field(default_factory=WorkerCounts)
    decode: Timing = field(default_factory=Timing)
    answer: Timing = field(default_factory=Timing)
    used_s: float = 0.0
    trouble: str | None = None
    model_trouble: str | None = None
    loading: str | None = None
    closed: bool = False

    @property
    def name(self) -> str:
        return self.line.name

    @property
    def lease_ms(self) -> int:
        """Well below the deadline, so that another worker has time for what a dead one held."""
        least, most = _LEASE_MS
        return max(least, min(most, self.line.settings.deadline_ms // 4))

    @property
    def state(self) -> str:
        if self.model is None:
            return "opening"
        return "paused" if self.line.paused else "open"

    def model_for(self, held: Held) -> LineModel:
        """The model that must answer a request."""
        model = self.degraded if held.degraded and self.degraded is not None else self.model
        assert model is not None, "requests are taken for open lines only"
        return model


@dataclass(slots=True, eq=False)
class Request:
    """A request in this worker. Times in seconds of this process's monotonic clock.

    model: that the pixels were decoded for. alone: it was held by a worker that died; nothing else is tried with it.
    waited_ms: before this worker took it. gone: another worker has it now, or it was answered.
    """

    held: Held
    line: OpenLine
    deadline_s: float
    taken_s: float
    waited_ms: float
    alone: bool = False
    gone: bool = False
    leased_until_s: float = 0.0
    image: bytes = b""
    model: LineModel | None = None
    pixels: Pixels | None = None
    decode_begun_s: float = 0.0
    decoded_s: float = 0.0
    stage_ms: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.held.key


@dataclass(frozen=True, slots=True)
class Done:
    """The answer to a request, to be sent: in time `verdict`, else `late`; `rest`: see `GivenAnswer`."""

    request: Request
    verdict: Verdict
    late: Verdict
    rest: str


Answerer = Callable[[Sequence[Done]], None]
"""Takes answers to send them soon."""
