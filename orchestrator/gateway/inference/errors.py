"""What a client of the inference protocol gets where its request cannot be used."""

from orchestrator.gateway.problems import ProblemError


def bad_request(message: str) -> ProblemError:
    """The request is not as the protocol, or the model, has it."""
    return ProblemError(400, "invalid", message)


def unsupported(message: str) -> ProblemError:
    """An extension of the protocol that this server does not have."""
    return ProblemError(501, "unsupported", message)
