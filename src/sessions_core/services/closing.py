"""Closing: the steps after the session's row says that it is closed (or that its time is over).

The row is the truth; the log is made to agree with it. On ``in`` a close signal is appended, so that a waiting run
wakes and leaves, then ``in`` is sealed. On ``out`` a turn-complete that says ``session-closed`` is appended, then
``out`` is sealed. Before its signal each channel is made idle, which stops those who write as a run. A run that has not
begun is withdrawn: nobody may begin it any more. Each step may be repeated: the records carry fixed part ids and a seal is
final. So whoever finds the work half done, after a crash or in a race, simply does it again.
"""

from __future__ import annotations

from typing import Final

import anyio
import attrs

from sessions_core.domain.channel import (
    SESSION_CLOSED,
    SESSION_CLOSED_REASON,
    SESSION_IN_EVENT_ID,
    TURN_COMPLETE,
    Channel,
    Io,
    NewRecord,
    control_record,
    data_record,
    encode_json,
)
from sessions_core.domain.guard import SEALED, Guard
from sessions_core.domain.ids import own_part
from sessions_core.domain.session import Session
from sessions_core.errors import ChannelUnavailableError, GuardMismatchError
from sessions_core.ports.channel_log import ChannelLog
from sessions_core.ports.session_store import SessionStore
from sessions_core.services.run_manager import RunManager
from sessions_core.services.wait_service import WaitService

CLOSE_PART: Final = own_part("session-closed")
FINISH_SECONDS: Final = 30.0


@attrs.define(kw_only=True)
class Closing:
    """Seals the channels of a session that is closed or expired."""

    store: SessionStore
    log: ChannelLog
    waits: WaitService
    run_manager: RunManager

    async def seal(self, session: Session) -> None:
        """Append the close signals and seal both channels. Idempotent; not torn by cancellation.

        Args:
            session: May be a stale read; the reason is taken from the row as it is now.

        Raises:
            ChannelUnavailableError: Not done in time; the sweep will do it.
        """
        with anyio.move_on_after(FINISH_SECONDS, shield=True):
            session = await self.store.find(session.environment.id, session.id) or session
            reason = session.closed_reason if session.closed_at else "expired"
            last_run, last_attempt = Guard.idle(session.current_run_version), Guard.idle(session.epoch)
            signal_seq = await self._finish(session.channel(Io.IN), _close_signal(session), last_run)
            await self._finish(session.channel(Io.OUT), _closed_turn(signal_seq, reason), last_attempt)
            if (run := await self.run_manager.find_current(session)) is not None:
                await self.run_manager.withdraw(run)
            await self.store.mark_sealed(session.id)
            return
        raise ChannelUnavailableError

    async def _finish(self, channel: Channel, record: NewRecord, final: Guard) -> int:
        """Make *record* the channel's last one; return the seq before the tail.

        Args:
            channel: The channel to end.
            record: Carries a fixed part id.
            final: No run or attempt can be later than this any more, as the row is closed: nobody can raise the guard
                above it, so nothing gets between the record and the seal.
        """
        while True:
            tail = await self.log.tail(channel)
            if tail.guard.is_sealed:
                return tail.next_seq - 1
            if tail.guard.rises_to(final):
                await self.log.set_guard(channel, final, expect=tail.guard)
                continue
            try:
                appended = await self.log.append(channel, [record], guard=tail.guard)
            except GuardMismatchError:
                continue
            await self.waits.wake(channel, [record], appended)
            change = await self.log.set_guard(channel, SEALED, expect=tail.guard)
            if change.done:
                return change.tail - 1


def _close_signal(session: Session) -> NewRecord:
    signal = {"kind": "message", "payload": {"chatId": session.key, "trigger": "close"}}
    return data_record(encode_json(signal), CLOSE_PART)


def _closed_turn(signal_seq: int, reason: str | None) -> NewRecord:
    siblings = {SESSION_IN_EVENT_ID: str(signal_seq), SESSION_CLOSED: "true"}
    if reason is not None:
        siblings[SESSION_CLOSED_REASON] = reason
    return control_record(TURN_COMPLETE, siblings, CLOSE_PART)
