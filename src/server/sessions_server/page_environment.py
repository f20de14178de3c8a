"""The environment that the chat page works in.

Nobody shows a credential there, so whoever may have the page acts as this one caller, and what he asks for counts among the
requests of its environment.
"""

from __future__ import annotations

import attrs

from sessions_core.domain.access import Credential
from sessions_core.domain.environment import EnvironmentType
from sessions_core.ports.environment_store import EnvironmentStore
from sessions_server.auth.caller import Caller
from sessions_server.auth.questions import Question
from sessions_server.problems import NoDevelopmentEnvironmentError


@attrs.define(eq=False)
class PageEnvironment:
    """Knows the oldest development environment. It is looked for until there is one, and stays the same from then on."""

    _environments: EnvironmentStore
    _caller: Caller | None = attrs.field(init=False, default=None)
    _question: Question = attrs.field(init=False, factory=Question)

    async def caller(self) -> Caller:
        """Return somebody who may do everything there.

        Raises:
            NoDevelopmentEnvironmentError: There is none.
            UnavailableError: The store is silent.
        """
        if self._caller is not None:
            return self._caller
        return await self._question.ask(self._find)

    async def _find(self) -> Caller:
        if self._caller is not None:
            return self._caller
        for environment in await self._environments.list_all():
            if environment.type is EnvironmentType.DEVELOPMENT:
                caller = self._caller = Caller(credential=Credential.ROOT_KEY, environment=environment)
                return caller
        raise NoDevelopmentEnvironmentError
