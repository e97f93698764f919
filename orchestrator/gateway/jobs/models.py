"""/v1/models: published models and their aliases."""

from typing import Annotated

from fastapi import APIRouter, Path

from modeling.errors import ModelFormatError
from modeling.registry.facts import describe, summarize
from modeling.registry.store import check_model_name
from orchestrator.contract.errors import UsageError
from orchestrator.gateway.context import GatewayContext
from orchestrator.gateway.documented import problems
from orchestrator.gateway.jobs.routes import Cursor, Limit
from orchestrator.gateway.jobs.views import (
    AliasBody,
    AliasesView,
    AliasView,
    ModelDetails,
    ModelsView,
    ModelView,
    Unreadable,
)
from orchestrator.gateway.threads import Calls
from orchestrator.jobs.removal import check_alias_unused

Name = Annotated[str, Path(max_length=200)]


def models_router(context: GatewayContext) -> APIRouter:
    """The routes of models."""
    router, calls = APIRouter(prefix="/v1/models", tags=["models"]), ModelCalls(context)
    router.get("", summary="List every version of every model", responses=problems())(calls.list_models)
    router.get("/{model}", summary="Show a version: name, name@2 or name@alias", responses=problems(404))(calls.show)
    router.get("/{name}/aliases", summary="The aliases of a model", responses=problems(404))(calls.aliases)
    alias, changes = "/{name}/aliases/{alias}", problems(404, 409)
    router.put(alias, summary="Let an alias stand for a version", responses=changes)(calls.set_alias)
    router.delete(alias, summary="Remove an alias; its version stays", responses=changes)(calls.remove_alias)
    return router


class ModelCalls:
    """The calls of models; what blocks runs in threads."""

    def __init__(self, context: GatewayContext) -> None:
        self._settings = context.settings
        self._store = context.models
        self._readers = Calls("the home's disk or the server")

    async def list_models(self, limit: Limit = 100, cursor: Cursor = None) -> ModelsView:
        return await self._readers.run(self._page, limit, cursor)

    async def show(self, model: Name) -> ModelDetails:
        return await self._readers.run(lambda: ModelDetails.model_validate(describe(self._store, model)))

    async def aliases(self, name: Name) -> AliasesView:
        return await self._readers.run(self._aliases, name)

    async def set_alias(self, name: Name, alias: Name, body: AliasBody) -> AliasView:
        """Jobs that were submitted before keep their version; lines that follow the alias take the new one."""
        return await self._readers.run(self._set, name, alias, body.version)

    async def remove_alias(self, name: Name, alias: Name) -> AliasView:
        """A line whose model is named by the alias keeps it from being removed."""
        return await self._readers.run(self._remove, name, alias)

    def _page(self, limit: int, cursor: str | None) -> ModelsView:
        after = _parsed(cursor) if cursor is not None else ("", 0)
        versions = [version for version in self._store.list() if (version.name, version.version) > after]
        page = ModelsView(models=[], unreadable=[], next=versions[limit - 1].ref if len(versions) > limit else None)
        for version in versions[:limit]:
            try:
                page.models.append(ModelView.model_validate(summarize(self._store, version)))
            except ModelFormatError as err:
                page.unreadable.append(Unreadable(name=version.ref, error=str(err)))
            except FileNotFoundError:
                continue  # removed while they are listed
        return page

    def _aliases(self, name: str) -> AliasesView:
        self._store.resolve(check_model_name(name))
        return AliasesView(aliases={alias: f"{name}@{at}" for alias, at in self._store.aliases(name).items()})

    def _set(self, name: str, alias: str, number: int) -> AliasView:
        version = self._store.resolve(f"{check_model_name(name)}@{number}")
        before = self._store.set_alias(version, alias)
        return AliasView(alias=alias, model=version.ref, before=_ref(name, before))

    def _remove(self, name: str, alias: str) -> AliasView:
        check_alias_unused(self._settings, check_model_name(name), alias)
        return AliasView(alias=alias, model=None, before=_ref(name, self._store.drop_alias(name, alias)))


def _parsed(cursor: str) -> tuple[str, int]:
    """Raises UsageError where the cursor is not a version."""
    name, _, number = cursor.rpartition("@")
    if not name or not (number.isascii() and number.isdecimal()) or len(number) > 10:
        raise UsageError(f"cursor {cursor!r} is not the one of a page")
    return name, int(number)


def _ref(name: str, number: int | None) -> str | None:
    return None if number is None else f"{name}@{number}"
