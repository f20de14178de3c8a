"""The postgres profile: several processes on one database, its key, its migrations and what it says when something is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
import attrs
import pytest

from contract.makers import ENV_A, initial, make_session
from sessions_adapters.fernet import FernetCipher
from sessions_adapters.profiles import Backends, migrate, open_environments, open_sessions
from sessions_core.chat import Agents, Run
from sessions_core.domain.channel import Io
from sessions_core.domain.status import RunStatus
from sessions_core.errors import IncompatibleStoreError, InvalidError
from sessions_core.facade import Sessions, Settings
from sessions_core.services.sweep import SweepConfig

pytestmark = pytest.mark.needs_postgres

KEY = FernetCipher.generate_key().decode()
OTHER_KEY = FernetCipher.generate_key().decode()
ROOT_KEY = "tr_dev_" + "a" * 24
SOON = 20.0
BATCH = SweepConfig().batch

Opening = Callable[..., AbstractAsyncContextManager[Sessions]]


def echo_agents() -> Agents:
    agents = Agents()

    @agents.task("echo")
    async def echo(run: Run) -> None:
        async for turn in run.turns():
            async with turn:
                await turn.text(f"you said: {turn.text_input}")

    return agents


def opened(url: str, agents: Agents | None = None, key: str = KEY) -> AbstractAsyncContextManager[Sessions]:
    settings = Settings(owns_data=True)
    return open_sessions("postgres", url=url, encryption_key=key, agents=agents, settings=settings)


async def outputs(sessions: Sessions, name: str) -> str:
    session = await sessions.ports.sessions.find(ENV_A.id, name)
    assert session is not None
    batch = await sessions.channels.records(session.channel(Io.OUT), 0)
    return "".join(record.body.decode() for record in batch.records)


async def until_said(sessions: Sessions, name: str, text: str) -> None:
    with anyio.fail_after(SOON):
        while text not in await outputs(sessions, name):
            await anyio.sleep(0.02)


def message(text: str) -> str:
    return (
        '{"kind": "message", "payload": {"trigger": "submit-message", "message": '
        f'{{"id": "m1", "role": "user", "parts": [{{"type": "text", "text": "{text}"}}]}}}}}}'
    )


async def test_a_message_sent_to_one_process_is_answered_and_read_in_another(url: str) -> None:
    async with opened(url, echo_agents()) as first, opened(url, echo_agents()) as second:
        created = make_session("one", external_id="chat", at=first.clock.now())
        session = (await first.ports.sessions.create(created, initial(created))).session
        await second.channels.append_text(session, Io.IN, message("hello"))
        await until_said(first, session.id, "you said: hello")
        await first.channels.append_text(session, Io.IN, message("again"))
        await until_said(second, session.id, "you said: again")


async def test_a_run_that_a_dead_process_had_taken_but_not_begun_is_taken_up(url: str) -> None:
    async with opened(url) as first:  # without agents: whatever it takes, it never begins
        created = make_session("one", external_id="chat", at=first.clock.now())
        session = (await first.ports.sessions.create(created, initial(created))).session
        run = await first.ports.runs.get(initial(session).id)
        await first.ports.dispatcher.dispatch(run)
        await first.ports.runs.mark_dispatched(run.id)
        await first.channels.append_text(session, Io.IN, message("still here?"))
    async with opened(url, echo_agents()) as second:
        await until_said(second, session.id, "you said: still here?")
        assert (await second.ports.runs.get(run.id)).status is RunStatus.EXECUTING


@pytest.mark.parametrize("dispatcher", ["local", "procrastinate"])
async def test_runs_that_nobody_here_can_carry_out_do_not_keep_others_waiting(url: str, dispatcher: str) -> None:
    backends = Backends(profile="postgres", database_url=url, encryption_key=KEY, dispatcher=dispatcher)
    async with open_sessions(backends) as first:  # without agents: whatever it takes, it never begins
        for number in range(BATCH + 1):
            idle = attrs.evolve(make_session(f"idle{number}", at=first.clock.now()), task="nobody")
            await first.ports.sessions.create(idle, initial(idle))
        created = make_session("one", external_id="chat", at=first.clock.now())
        session = (await first.ports.sessions.create(created, initial(created))).session
        await first.channels.append_text(session, Io.IN, message("still here?"))
    async with open_sessions(backends, agents=echo_agents()) as second:
        await until_said(second, session.id, "you said: still here?")


async def test_no_process_believes_that_it_owns_the_data(url: str) -> None:
    async with opened(url) as sessions:
        assert not sessions.settings.owns_data


async def test_the_time_is_the_databases(url: str) -> None:
    async with opened(url) as sessions:
        created = make_session("one", at=sessions.clock.now())
        session = (await sessions.ports.sessions.create(created, initial(created))).session
        closed = await sessions.ports.sessions.close(ENV_A.id, session.id, None)
        assert closed.closed_at is not None
        assert abs((sessions.clock.now() - closed.closed_at).total_seconds()) < 5


async def test_environments_are_made_beside_running_servers_under_the_same_key(url: str) -> None:
    async with opened(url) as sessions:
        async with open_environments("postgres", url=url, encryption_key=KEY) as environments:
            await environments.create(ENV_A, ROOT_KEY)
        assert [key.value for key in await sessions.environments.find_root_keys(ENV_A.id)] == [ROOT_KEY]
    with pytest.raises(IncompatibleStoreError, match="not the key that was used before"):
        async with opened(url, key=OTHER_KEY):
            pass


async def test_the_key_may_lie_in_the_directory(url: str, tmp_path: Path) -> None:
    async with open_environments("postgres", url=url, data=tmp_path) as environments:
        await environments.create(ENV_A, ROOT_KEY)
    async with open_environments("postgres", url=url, data=tmp_path) as environments:
        assert [key.value for key in await environments.find_root_keys(ENV_A.id)] == [ROOT_KEY]


async def test_a_database_without_our_schema_names_the_command(bare_url: str) -> None:
    with pytest.raises(IncompatibleStoreError, match="run `sessions migrate` first"):
        async with opened(bare_url):
            pass
    await migrate(Backends(profile="postgres", database_url=bare_url))
    async with opened(bare_url):
        pass


@pytest.mark.parametrize("opening", [open_sessions, open_environments])
async def test_the_profile_needs_a_database(opening: Opening) -> None:
    with pytest.raises(InvalidError, match="SESSIONS_DATABASE_URL"):
        async with opening("postgres"):
            pass


async def test_other_profiles_need_no_migrations_by_hand() -> None:
    with pytest.raises(InvalidError, match="the server applies them"):
        await migrate(Backends(profile="embedded"))


def run_sessions(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sessions_server", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


async def test_the_commands_migrate_and_env_work_on_the_database(bare_url: str, tmp_path: Path) -> None:
    place = {
        "SESSIONS_PROFILE": "postgres",
        "SESSIONS_DATABASE_URL": bare_url,
        "SESSIONS_ENCRYPTION_KEY": KEY,
        "SESSIONS_DATA": str(tmp_path / "data"),
    }
    early = run_sessions("env", "list", **place)
    assert (early.returncode, early.stdout) == (1, "")
    assert "run `sessions migrate` first" in early.stderr
    first = run_sessions("migrate", **place)
    assert (first.returncode, first.stderr) == (0, "")
    assert "applied Postgres core/0001_initial" in first.stdout
    again = run_sessions("migrate", **place)
    assert (again.returncode, again.stdout) == (0, "everything is up to date\n")
    made = run_sessions("env", "create", "--key", ROOT_KEY, **place)
    assert (made.returncode, made.stderr) == (0, "")
    assert ROOT_KEY in run_sessions("env", "list", "--show-keys", **place).stdout
    assert not (tmp_path / "data").exists()


async def test_migrate_says_what_it_applied_before_a_later_system_failed(bare_url: str) -> None:
    place = {
        "SESSIONS_PROFILE": "postgres",
        "SESSIONS_DATABASE_URL": bare_url,
        "SESSIONS_INDEX": "clickhouse",
        "SESSIONS_CLICKHOUSE_URL": "http://127.0.0.1:9",
    }
    ended = run_sessions("migrate", **place)
    assert ended.returncode == 1
    assert "applied Postgres core/0001_initial" in ended.stdout
    assert ended.stderr.startswith("sessions: the session index could not be brought up to date: connection refused")


def test_a_missing_driver_names_the_extra() -> None:
    code = "import sys; sys.modules['asyncpg'] = None; import sessions_adapters.postgres"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "A store in Postgres needs asyncpg: pip install 'sessions[postgres]'" in ended.stderr
