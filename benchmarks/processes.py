"""Processes of the bench's own, each at the end of a pipe. They end when the pipe does, also if the bench is killed."""

from __future__ import annotations

import gc
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar

import attrs

_SPAWN = multiprocessing.get_context("spawn")
_PATIENCE_SECONDS = 10
T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Job(Protocol[T_co]):
    """Something to be measured."""

    def run(self) -> T_co:
        """Measure it. Called in the load client's process."""


@attrs.frozen
class LoadClient:
    """Sends requests from a process of its own, so that the bench itself costs the measured server nothing."""

    _pipe: Connection[Any, Any]

    def measure(self, job: Job[T]) -> T:
        """Carry out *job* and return what it found.

        Raises:
            RuntimeError: An answer was not what it should be.
        """
        self._pipe.send(job)
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        found: T = answer
        return found


@contextmanager
def load_client() -> Iterator[LoadClient]:
    """Start a load client."""
    with spawned(_carry_out) as pipe:
        yield LoadClient(pipe)


@contextmanager
def spawned(target: Callable[..., None], *args: object) -> Iterator[Connection[Any, Any]]:
    """Run ``target(pipe, *args)`` in a new process; give the pipe's other end."""
    mine, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_undisturbed, args=(target, theirs, *args), daemon=True)
    process.start()
    theirs.close()
    try:
        yield mine
    finally:
        mine.close()
        process.join(_PATIENCE_SECONDS)
        if process.is_alive():
            process.kill()


def _undisturbed(target: Callable[..., None], *args: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the bench closes the pipe
    target(*args)


def _carry_out(pipe: Connection[Any, Any]) -> None:
    gc.disable()  # no pauses; jobs make no cycles worth mentioning
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        pipe.send(_outcome(job))


def _outcome(job: Job[T]) -> T | Exception:
    try:
        return job.run()
    except Exception as error:  # noqa: BLE001 - the bench raises it
        return error
