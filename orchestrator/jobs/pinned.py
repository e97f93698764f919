"""The model version that a job is submitted with."""

from dataclasses import dataclass

from modeling.inference.engines.choice import WantedPrecision
from modeling.registry.card import INT8_FILE, ModelCard
from modeling.registry.store import ModelStore, ModelVersion
from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.requests import ModelPin
from orchestrator.contract.settings import Settings


@dataclass(frozen=True)
class PinnedModel:
    """The version that the operator's reference stands for now, and its card."""

    version: ModelVersion
    card: ModelCard

    @property
    def pin(self) -> ModelPin:
        """As a request holds it."""
        return ModelPin(
            name=self.version.name,
            number=self.version.version,
            digest=self.version.digest,
            preprocessing_digest=self.card.preprocessing.digest,
        )


def pin_model(settings: Settings, ref: str) -> PinnedModel:
    """The version that `ref` stands for now.

    Raises ModelingError where there is no such version, or its card cannot be read.
    """
    version = ModelStore(settings.models).resolve(ref)
    return PinnedModel(version, version.card())


def check_precision(model: PinnedModel, precision: WantedPrecision) -> None:
    """Raises UsageError where the model has no int8 weights; does not check whether workers support int8."""
    if precision == "int8" and not (model.version.path / INT8_FILE).is_file():
        why = model.card.why_no_int8()
        raise UsageError(f"--precision int8: {model.version.ref} {why}; leave the precision to auto")
