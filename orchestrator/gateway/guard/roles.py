"""Which role a request needs."""

from orchestrator.gateway.guard.tokens import Role

_OPEN = ("/health/", "/v2/health/")
_VIEW_POSTS = ("/v2/repository/index",)  # the protocol asks by POST for what only shows something
_PUSH_SUFFIXES = ("/infer", "/items", "/batch", "/discharged")


def required_role(method: str, path: str) -> Role | None:
    """The least role that may send a request; None: anybody, also without a token."""
    if path.startswith(_OPEN):
        return None
    if method in ("GET", "HEAD") or path in _VIEW_POSTS:
        return Role.VIEW
    if method == "POST" and path.startswith(("/v1/lines/", "/v2/models/")) and path.endswith(_PUSH_SUFFIXES):
        return Role.PUSH
    return Role.OPERATE
