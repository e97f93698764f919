"""The pre-trained weights at hand: imported ones, a folder of files, and torchvision's cache; nothing is downloaded.

Needs torch only for a file in the folder that torchvision does not name, once: what is found out is remembered.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from modeling.durable import STRICT, decode_json, replace_durably, validated
from modeling.errors import ModelFormatError, ModelingError
from modeling.names import path_to_text
from modeling.networks.architectures import ARCHITECTURES
from modeling.networks.pretrained.store import WeightsRecord, WeightsStore, is_reserved
from modeling.networks.pretrained.torchvision_files import BY_FILE, WeightsFacts
from modeling.networks.state_dicts.plain_files import SUFFIXES, file_sha256, open_plain, read_plain
from modeling.registry.card import CARD_FILE

Origin = Literal["imported", "folder", "torchvision"]
_IMAGENET_CLASSES = 1000
_MEMO = "weights-2.json"  # another number where more is found out about files than before
_MAX_MEMO_BYTES = 16 << 20
_MOST_BYTES = 8 << 30  # of a file: the largest known network has 2.5 GB, a checkpoint a few times that

OnRead = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class WeightsAtHand:
    """Weights that a training can start from.

    name: for --from-weights. sha256: of the file. num_classes: outputs of their last layer; None: they have none.
    source: where they come from, for people. stored_sha256: of the bytes that the store would keep of them, whatever
    the format of the file; None for a file that torchvision names, which is not converted.
    """

    name: str
    architecture: str
    path: Path
    sha256: str
    num_classes: int | None
    origin: Origin
    source: str
    stored_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class UnusableWeights:
    """A file among the weights at hand that cannot be used, and why."""

    name: str
    path: Path
    origin: Origin
    why: str


Found = WeightsAtHand | UnusableWeights


@dataclass(frozen=True, slots=True)
class WeightsPlaces:
    """Where weights lie.

    imported: the store's root. folder: of the operator's files; None: there is none. torchvision: its cache.
    memo: folder of what was found out about files; safe to delete.
    """

    imported: Path
    folder: Path | None
    torchvision: Path
    memo: Path


def torchvision_cache() -> Path:
    """The folder of the files that torchvision downloaded; as torch.hub has it, without torch."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    with suppress(RuntimeError):  # a user without a home
        return Path(os.environ.get("TORCH_HOME") or default).expanduser() / "hub" / "checkpoints"
    return Path("/nonexistent")


def find_weights(places: WeightsPlaces, on_read: OnRead = lambda path: None, *, only: str | None = None) -> list[Found]:
    """All weights at hand: imported ones, then those of the folder, then torchvision's; each name once.

    on_read: is called before a file is read whole, which takes seconds for a large one. only: those of that name.

    Raises:
        ModelFormatError: the operator's folder cannot be listed.
    """
    memo = _Memo(places.memo / _MEMO, on_read)
    found: dict[str, Found] = {}
    for weights in (*_imported(places.imported), *_files_at_hand(places, memo, only)):
        if only in (None, weights.name):
            found.setdefault(weights.name, weights)
    memo.save()
    return list(found.values())


def usable(found: list[Found]) -> list[WeightsAtHand]:
    """Those that a training can start from."""
    return [weights for weights in found if isinstance(weights, WeightsAtHand)]


def _imported(root: Path) -> Iterator[Found]:
    store = WeightsStore(root)
    for name, record in store.records():
        path = store.file(name)
        if isinstance(record, ModelFormatError):
            yield UnusableWeights(name, path, "imported", str(record))
        elif record.architecture not in ARCHITECTURES:
            why = f"this release knows no architecture {record.architecture!r}"
            yield UnusableWeights(name, path, "imported", why)
        else:
            yield imported_weights(name, record, path)


def imported_weights(name: str, record: WeightsRecord, path: Path) -> WeightsAtHand:
    """Weights of the store, as trainings find them."""
    source = f"imported {record.imported} from {record.source}"
    sha256 = record.sha256
    return WeightsAtHand(name, record.architecture, path, sha256, record.num_classes, "imported", source, sha256)


def _files_at_hand(places: WeightsPlaces, memo: "_Memo", only: str | None) -> Iterator[Found]:
    """The files of the operator's folder, and those of torchvision's cache that have one of its names."""
    own = _files(places.folder) if places.folder is not None else []
    for path in (*own, *_cached(places.torchvision)):
        origin: Origin = "folder" if path in own else "torchvision"
        name = path_to_text(path.stem)
        if only not in (None, name):
            continue
        try:
            _check_file_name(path)
            facts = memo.facts_of(path, BY_FILE.get(path.name))
        except ModelingError as err:
            yield UnusableWeights(name, path, origin, str(err))
        else:
            source = "the weights folder" if origin == "folder" else "torchvision's cache"
            sha256, stored_sha256 = facts.sha256, facts.stored_sha256
            yield WeightsAtHand(
                name, facts.architecture, path, sha256, facts.num_classes, origin, source, stored_sha256
            )


def _check_file_name(path: Path) -> None:
    if path_to_text(str(path)) != str(path):
        raise ModelFormatError("its name is not UTF-8; rename it")
    if is_reserved(path.stem):
        raise ModelFormatError("its name stands for torchvision's weights; rename it")


def _files(folder: Path) -> list[Path]:
    """The files of weights in the operator's folder; none where it is the folder of a model."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as err:
        raise ModelFormatError(
            f"the weights folder {folder} cannot be listed ({err.strerror}); correct the setting `weights`"
        ) from err
    if CARD_FILE in names:
        raise ModelFormatError(f"the weights folder {folder} is a model; name it with --from-weights {folder}")
    return [folder / name for name in names if Path(name).suffix in SUFFIXES and not name.startswith(".")]


def _cached(folder: Path) -> list[Path]:
    names = sorted(os.listdir(folder)) if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK) else []
    return [folder / name for name in names if name in BY_FILE]


@dataclass(frozen=True, slots=True)
class _FileFacts:
    """What was found out about a file that had this size and time; why: it cannot be used."""

    size: int
    mtime_ns: int
    sha256: str
    architecture: str
    num_classes: int | None
    stored_sha256: str | None
    why: str

    __pydantic_config__ = STRICT


class _Memo:
    """What was found out about files, so that each is read once; a memo that cannot be written costs only time."""

    def __init__(self, path: Path, on_read: OnRead) -> None:
        self._path = path
        self._on_read = on_read
        self._known = self._load()
        self._found: dict[str, _FileFacts] = {}

    def _load(self) -> dict[str, _FileFacts]:
        with suppress(ModelingError):
            return validated(dict[str, _FileFacts], decode_json(read_plain(self._path, _MAX_MEMO_BYTES), ""), "")
        return {}

    def save(self) -> None:
        if self._found.items() <= self._known.items():
            return
        value = {path: asdict(facts) for path, facts in (self._known | self._found).items()}
        with suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)  # not the home: that is made with its own mode
            replace_durably(self._path, (json.dumps(value, indent=2) + "\n").encode(), mode=None)

    def facts_of(self, path: Path, named: WeightsFacts | None) -> _FileFacts:
        """The facts of a file; named: what torchvision says of a file of that name.

        Raises:
            ModelFormatError: it cannot be read, or is not what its name says.
            ModelingError: it holds no weights of a known architecture.
        """
        with open_plain(path) as file:
            state = os.fstat(file.fileno())
        key = path_to_text(str(path))
        if state.st_size > _MOST_BYTES:
            raise ModelFormatError(f"{path} has {state.st_size / 1e9:.0f} GB, more than any network that is known here")
        known = self._known.get(key)
        if known is None or (known.size, known.mtime_ns) != (state.st_size, state.st_mtime_ns):
            self._on_read(path)
            known = _read_facts(path, state, named)
        self._found[key] = known
        if known.why:
            raise ModelingError(known.why)
        return known


def _read_facts(path: Path, state: os.stat_result, named: WeightsFacts | None) -> _FileFacts:
    sha256 = file_sha256(path)
    architecture, num_classes, stored_sha256, why = "", None, None, ""
    if named is not None and sha256.startswith(named.sha256_start):
        architecture, num_classes = named.architecture, _IMAGENET_CLASSES
    elif named is not None:
        why = f"{path} is damaged: its sha256 begins with {sha256[:8]}, its name says {named.sha256_start}"
    else:
        from modeling.networks.state_dicts.whole import whole_state  # torch

        try:
            whole = whole_state(path)
            architecture, num_classes, stored_sha256 = whole.architecture, whole.num_classes, whole.sha256
        except ModelingError as err:
            why = str(err)
    return _FileFacts(state.st_size, state.st_mtime_ns, sha256, architecture, num_classes, stored_sha256, why)
