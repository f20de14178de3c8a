"""Asking the table of requirements whether a caller may do what it asks for, before anything is told about existence."""

from __future__ import annotations

from typing import assert_never

from sessions_core.domain.access import Access, Action, Resource, Target, may_create, may_list, session_resources
from sessions_core.domain.ids import RunId, WaitpointId
from sessions_core.errors import WaitpointNotFoundError
from sessions_server.auth.caller import Caller
from sessions_server.epochs import need_epoch
from sessions_server.problems import ForbiddenError, HttpError, UnauthenticatedError
from sessions_server.route import Call


def wrong_credential(access: Access) -> HttpError:
    """Return how a caller is refused whose kind of credential the route does not take.

    Where the route is about a session, a token is the right kind of thing without the right; elsewhere it is no
    credential at all.
    """
    if access.target is Target.SESSION:
        return ForbiddenError("Writing to the out channel requires secret key authentication")
    return UnauthenticatedError("Invalid API key")


def may_carry_out(caller: Caller, run: str) -> bool:
    """Tell whether *caller* may write as the run called *run*, if there is one."""
    return caller.may(Action.WRITE, (Resource("runs", run),))


async def authorize(call: Call, access: Access) -> None:
    """Let *call* pass if its caller's scopes allow it.

    Raises:
        ForbiddenError: They do not, or nobody can tell because the thing does not exist.
    """
    scopes = call.caller.scopes
    if call.caller.one_time is not None and not access.one_time:
        raise ForbiddenError("A one-time token is good for one change, and this allows many")
    if scopes is None or await _is_allowed(call, access, scopes):
        return
    if not (access.calling_run and await _may_as_calling_run(call)):
        raise ForbiddenError


async def may_have_session_token(call: Call) -> bool:
    """Tell whether the caller may be told the session token that a turn-complete carries.

    Only who may do all that the token allows, and for as long: else reading would be a way to more than one has.
    """
    if not call.caller.lasts:
        return False
    return await _may_with_session(call, Action.READ) and await _may_with_session(call, Action.WRITE)


async def _is_allowed(call: Call, access: Access, scopes: tuple[str, ...]) -> bool:
    match access.target:
        case Target.NOTHING:
            return True
        case Target.ROOT_ONLY:
            return False
        case Target.CREATE:
            return may_create(scopes, call.body.task_identifier)
        case Target.LIST:
            return may_list(scopes, call.query.tasks)
        case Target.SESSION:
            return await _may_with_session(call, access.action)
        case Target.RUN:
            return await _may_with_run(call, access)
        case Target.OWN_RUN:
            return _may_with_own_run(call, access.action)
        case Target.OWN_WAIT:
            return _may_with_own_run(call, access.action) and await _may_read(call, call.body.session)
        case Target.WAITPOINT:
            return await _may_with_waitpoint(call, access.action)
        case _ as unknown:
            assert_never(unknown)


def _may_with_own_run(call: Call, action: Action) -> bool:
    return call.caller.may(action, (Resource("runs", call.params["run"]),))


async def _may_with_waitpoint(call: Call, action: Action) -> bool:
    """A right to the run that waits, which must be the path's if that names one; or to every run."""
    if call.caller.may(action, (Resource("runs"),)):
        return True
    try:
        waitpoint = await call.sessions.waits.get(call.environment_id, WaitpointId(call.params["waitpoint"]))
    except WaitpointNotFoundError:
        return False
    is_own = call.params.get("run", waitpoint.run_id) == waitpoint.run_id
    return is_own and call.caller.may(action, (Resource("runs", waitpoint.run_id),))


async def _may_as_calling_run(call: Call) -> bool:
    """Whoever carries a run out may hand its session over and close it, as that run and under its epoch."""
    run_id = call.body.calling_run
    if run_id is None or not call.caller.may(Action.WRITE, (Resource("runs", run_id),)):
        return False
    run = await call.sessions.sessions.find_run(call.environment_id, run_id)
    if run is None or call.name not in (run.session_id, run.key):
        return False
    need_epoch(call)
    return True


async def _may_read(call: Call, name: str) -> bool:
    """Tell whether the caller may read the session called *name*, or that will be."""
    if call.caller.may_with_session(Action.READ, name):
        return True
    session = await call.sessions.sessions.find_cached(call.environment_id, name)
    return session is not None and call.caller.may_with_session(Action.READ, session.id, session.external_id)


async def _may_with_session(call: Call, action: Action) -> bool:
    """Any of the session's ids in a scope suffices, whichever the path names."""
    if call.caller.may_with_session(action, call.name):
        return True
    session = await call.find_session()
    return session is not None and call.caller.may_with_session(action, call.name, session.id, session.external_id)


async def _may_with_run(call: Call, access: Access) -> bool:
    """A right to the run itself, or to the session it serves."""
    name = call.params["run"]
    if call.caller.may(access.action, (Resource("runs", name), Resource("sessions"))):
        return True
    run = await call.sessions.sessions.find_run(call.environment_id, RunId(name))
    return run is not None and call.caller.may(access.action, session_resources(run.session_id, run.key))
