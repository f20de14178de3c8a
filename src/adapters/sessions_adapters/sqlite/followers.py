"""Followers of the channels of one database: what the writer has committed, as they want it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from sessions_adapters.shared.followers import Followers
from sessions_adapters.sqlite.requests import Append
from sessions_core.domain.channel import Channel, Record


@attrs.define(eq=False)
class FollowersOfAppends(Followers[Channel]):
    """Offers the records of appends."""

    def publish_appends(self, appends: Sequence[Append]) -> None:
        """Offer what a commit has stored."""
        stored: dict[Channel, list[Record]] = {}
        for append in appends:
            if self.is_followed(append.channel):
                stored.setdefault(append.channel, []).extend(_records(append))
        self.publish(stored)


def _records(append: Append) -> list[Record]:
    """Return what *append* has added to its channel."""
    return [
        Record(place.seq, append.timestamp, record.body, record.headers)
        for record, place in zip(append.records, append.answer or (), strict=True)
        if place.is_new
    ]
