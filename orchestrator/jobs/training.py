"""The options of a training as a job keeps them: the network chosen, the weights found, every name resolved."""

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from modeling.errors import ArchitectureError, ModelingError
from modeling.names import path_to_text
from modeling.networks.default_network import (
    SMALL_SIDE,
    DataFacts,
    NetworkChoice,
    choose_network,
    takes_weights,
)
from modeling.networks.pretrained.at_hand import (
    Found,
    OnRead,
    UnusableWeights,
    WeightsAtHand,
    WeightsPlaces,
    find_weights,
    torchvision_cache,
    usable,
)
from modeling.networks.pretrained.store import is_reserved
from modeling.networks.quality import DEFAULT_QUALITY, Quality
from modeling.networks.weights import check_weights
from modeling.registry.store import ModelStore
from modeling.training.request import ChosenNetwork, TrainOptions, WeightsPin
from orchestrator.contract.errors import UsageError
from orchestrator.contract.settings import Settings
from orchestrator.jobs.inputs import (
    DEFAULT_ARCHITECTURE,
    architecture_of_weights,
    choose_data,
    choose_weights,
    is_file_of_weights,
    names_a_model,
    open_to_train,
)
from orchestrator.jobs.specs import TrainSpec

if TYPE_CHECKING:
    from modeling.data.dataset import Dataset

# What the choice of a network sets, unless the operator does.
_CHOSEN_OPTIONS = ("architecture", "weights", "weights_pin", "epochs", "image_size", "chosen")

_NAMING_OPTIONS = {"architecture": "--arch", "weights": "--from-weights"}  # with which an operator names a network


@dataclass(frozen=True)
class ResolvedTraining:
    """The options, the images and labels that they were found for, and the weights that the job takes along.

    choice: None where the operator named a network or weights.
    """

    options: TrainOptions
    num_images: int
    labels: tuple[str, ...]
    notes: tuple[str, ...]  # what became of corrected labels
    weights: WeightsAtHand | None
    choice: NetworkChoice | None


def weights_at_hand(settings: Settings, on_read: OnRead = lambda path: None, *, only: str | None = None) -> list[Found]:
    """The weights at hand, or those of one name; those of a model published here cannot be used.

    on_read: is called before a file is read whole, which takes seconds for a large one.
    """
    places = WeightsPlaces(settings.imported_weights, settings.weights, torchvision_cache(), settings.cache)
    found = find_weights(places, on_read, only=only)
    if all(weights.origin == "torchvision" for weights in found):  # they are what torchvision's digest says
        return found
    published = published_weights(settings)
    return [_unless_published(weights, published) for weights in found]


def published_weights(settings: Settings) -> dict[str, str]:
    """The models trained and published here, by the digest of their weights.

    Left out: models that were imported from a file of weights, which has seen none of this home's images, and those
    that cannot be read.
    """
    found: dict[str, str] = {}
    for version in ModelStore(settings.models).list():
        with suppress(ModelingError, OSError):
            card = version.card()
            if "imported" not in card.training:
                found[card.weights_sha256] = version.ref
    return found


def _unless_published(weights: Found, published: dict[str, str]) -> Found:
    if isinstance(weights, UnusableWeights):
        return weights
    ref = published.get(weights.sha256) or published.get(weights.stored_sha256 or "")
    if ref is None:
        return weights
    why = f"the weights of {ref}, which has seen images that a new model may be tested on; see --from-weights {ref}"
    return UnusableWeights(weights.name, weights.path, weights.origin, why)


def resolve_training(settings: Settings, spec: TrainSpec) -> ResolvedTraining:
    """Open the data, and find the network and the weights.

    Raises PigeonholeError or ModelingError where the options cannot be used.
    """
    options: dict[str, object] = {"architecture": DEFAULT_ARCHITECTURE} | spec.options
    options["data"], *joined = (str(choose_data(path)) for path in (spec.data, *spec.joined))
    options["joined"] = joined
    named = [option for name, option in _NAMING_OPTIONS.items() if name in spec.options]
    if named and spec.quality is not None:
        raise UsageError(f"--quality chooses the network, which {' and '.join(named)} names; leave one of them out")
    weights = _name_weights(settings, spec, options) if "weights" in spec.options else None
    checked = _checked(options)
    from modeling.data.forms.joined import CORRECTIONS  # numpy

    dataset = open_to_train((checked.data, *checked.joined), checked.layout, spec.roots)
    notes = tuple(finding.message for finding in dataset.findings if finding.code == CORRECTIONS)
    if named:
        return ResolvedTraining(checked, dataset.num_images, dataset.labels, notes, weights, None)
    facts = facts_of(dataset, checked)
    at_hand = usable(weights_at_hand(settings, spec.on_read)) if takes_weights(facts) else []
    choice = choose_network(facts, at_hand, _quality(spec))
    checked = _with_choice(checked, spec, choice, facts)
    return ResolvedTraining(checked, dataset.num_images, dataset.labels, notes, choice.weights, choice)


def _quality(spec: TrainSpec) -> Quality:
    return spec.quality or DEFAULT_QUALITY


def facts_of(dataset: "Dataset", options: TrainOptions) -> DataFacts:
    """What the choice of a network rests on."""
    from modeling.data.mirroring import mirroring_matters  # Pillow
    from modeling.data.sample import num_learnt, sample_images

    sampled = sample_images(dataset)
    side = SMALL_SIDE + 1 if sampled.median_side is None else sampled.median_side  # the scan will say what is wrong
    num_images = num_learnt(dataset, options.validation + options.test)
    asked = side <= SMALL_SIDE and sampled.channels == 3  # photographs are mirrored in training, characters must not be
    return DataFacts(
        num_images, len(dataset.labels), side, sampled.channels, mirroring_matters=asked and mirroring_matters(dataset)
    )


def _with_choice(checked: TrainOptions, spec: TrainSpec, choice: NetworkChoice, facts: DataFacts) -> TrainOptions:
    chosen: dict[str, object] = {"architecture": choice.architecture}
    chosen |= {"epochs": choice.epochs, "image_size": choice.image_size}
    if choice.weights is not None:
        chosen |= _pinned(choice.weights)
    record = ChosenNetwork(_quality(spec), facts, choice.reason)
    return _checked(checked.to_json() | chosen | spec.options | {"chosen": asdict(record)})


def _name_weights(settings: Settings, spec: TrainSpec, options: dict[str, object]) -> WeightsAtHand | None:
    """Set weights and architecture to what --from-weights stands for; returns the weights if they are at hand."""
    wanted = str(spec.options["weights"])
    at_hand = named_weights(settings, wanted, spec.on_read)
    if at_hand is not None:
        if spec.options.get("architecture", at_hand.architecture) != at_hand.architecture:
            raise ArchitectureError(
                f"the weights {wanted!r} are of {at_hand.architecture}, not of {spec.options['architecture']}; "
                "leave out --arch"
            )
        options |= {"architecture": at_hand.architecture} | _pinned(at_hand)
        return at_hand
    weights, architecture = choose_weights(settings, wanted)
    if weights == wanted and "architecture" not in spec.options:
        _refuse_unknown(settings, wanted)
    options |= {"architecture": architecture} | spec.options | {"weights": weights}
    if is_file_of_weights(weights):
        key = spec.options.get("weights_key")
        options["architecture"] = architecture_of_weights(weights, spec.options.get("architecture"), key)
    return None


def _refuse_unknown(settings: Settings, wanted: str) -> None:
    """Raises UsageError for a name that stands for no model, weights at hand or file, or for those of any network."""
    if is_reserved(wanted):
        raise UsageError(f"--from-weights {wanted} needs --arch, such as --arch mobilenet_v2")
    names = ", ".join(weights.name for weights in usable(weights_at_hand(settings))) or "none"
    raise UsageError(f"no weights, published model or file {wanted!r}; weights at hand: {names}")


def named_weights(settings: Settings, wanted: str, on_read: OnRead) -> WeightsAtHand | None:
    """The weights at hand of that name; None where there are none, or the name is that of a file.

    Raises UsageError where they cannot be used, or a published model has that name, too.
    """
    found = [] if is_reserved(wanted) else weights_at_hand(settings, on_read, only=wanted)
    if not found:
        return None
    if names_a_model(settings, wanted):
        raise UsageError(f"{wanted!r} names a published model and weights; give {wanted}@latest, or {found[0].path}")
    if isinstance(found[0], UnusableWeights):
        raise UsageError(f"the weights {wanted!r} cannot be used: {found[0].why}")
    return found[0]


def _pinned(weights: WeightsAtHand) -> dict[str, object]:
    return {"weights": path_to_text(str(weights.path)), "weights_pin": asdict(WeightsPin(weights.name, weights.sha256))}


def _checked(options: dict[str, object]) -> TrainOptions:
    checked = TrainOptions.from_json(options)
    if checked.weights_key is not None and (checked.weights_pin or not is_file_of_weights(checked.weights)):
        raise UsageError(
            f"--weights-key {checked.weights_key!r} is for a file of weights; give one with --from-weights"
        )
    if checked.weights is not None:
        check_weights(checked.architecture, checked.weights)
    return checked


def as_chosen_before(mine: dict[str, Any], earlier: dict[str, Any], spec: TrainSpec) -> dict[str, Any]:
    """My options, with what an earlier submission of the same spec chose: there may be other weights at hand now."""
    chosen, before = mine.get("chosen"), earlier.get("chosen")
    if chosen is None or before is None or chosen["quality"] != before["quality"]:
        return mine
    return mine | {name: earlier.get(name) for name in _CHOSEN_OPTIONS if name not in spec.options}


def describe_choice(resolved: ResolvedTraining) -> str:
    """The network that was chosen, its weights and why, as one line; empty where the operator named it."""
    if resolved.choice is None:
        return ""
    options, weights = resolved.options, resolved.weights
    size = f" at {options.image_size} px" if options.image_size else ""
    start = " from scratch"
    if weights is not None:
        trained = "a new last layer, then fine-tuned" if options.epochs or options.budget_s else "a new last layer"
        start = f", {trained}, from the weights {weights.name} ({weights.sha256[:12]}, {weights.source})"
    return f"network: {options.architecture}{size}{start}; {resolved.choice.reason}"
