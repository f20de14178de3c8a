"""Jobs, one for each run that waits for a worker or has one: the statements that Procrastinate has no function for.

A job's ``lock`` and ``queueing_lock`` are both the run's id, so at most one waits and at most one is carried out, and either is
found by an index. Which worker may take it stands in its arguments. Procrastinate fetches by the name of a queue alone, so
jobs that the same workers may take have a queue of their own.
"""

from __future__ import annotations

import hashlib
from typing import Final

import attrs

from sessions_core.domain.ids import RunId
from sessions_core.domain.run import RunRecord

TASK: Final = "sessions.run"
DEFAULT_QUEUE: Final = "default"
_NAME_CHARACTERS: Final = 23
"""Procrastinate makes a notification channel of a queue's name, which leaves 40 bytes: these, a dot, and 16 of a hash."""

_TAKES: Final = """
    (%(tasks)s::text[] is null or args->>'task' = any(%(tasks)s::text[]))
    and (%(queues)s::text[] is null or args->>'queue' = any(%(queues)s::text[]))
    and case when args->>'version' is not null then args->>'version' = %(version)s::text
        else not exists (
            select from sessions_worker newer join procrastinate_workers living on living.id = newer.worker_id
            where newer.rank > %(rank)s::text and living.last_heartbeat > now() - make_interval(secs => %(stall)s)
                and (newer.tasks is null or args->>'task' = any(newer.tasks))
                and (newer.queues is null or args->>'queue' = any(newer.queues))
        ) end
"""
# The queues that have jobs, found one by one in the index of their names, however many jobs wait in each.
FETCH: Final = f"""
    with recursive waiting as (
        (select queue_name, args from procrastinate_jobs where status = 'todo' order by queue_name limit 1)
        union all
        select following.* from waiting cross join lateral (
            select queue_name, args from procrastinate_jobs
            where status = 'todo' and queue_name > waiting.queue_name order by queue_name limit 1
        ) following
    ), ours as (
        select array_agg(queue_name) as names from waiting where {_TAKES}
    )
    select job.id, job.args->>'run' as run_id
    from ours cross join lateral procrastinate_fetch_job_v2(ours.names, %(worker)s) as job
    where ours.names is not null and job.id is not null
"""  # noqa: S608 - constants
CANCEL: Final = """
    select procrastinate_cancel_job_v1(id, true, true) from procrastinate_jobs
    where (status = 'todo' and queueing_lock = %(run)s) or (status = 'doing' and lock = %(run)s)
"""
# Of one worker's jobs: those that are to be stopped, and those that it does not know of.
LIST_NEWS: Final = """
    select id, args->>'run' as run_id, abort_requested from procrastinate_jobs
    where status = 'doing' and worker_id = %(worker)s and (abort_requested or id <> all(%(known)s::bigint[]))
"""
# A worker that stood still may find its job with another one by now.
DELETE: Final = """
    delete from procrastinate_jobs where id = any(%(jobs)s) and worker_id = %(worker)s returning id
"""
REGISTER: Final = """
    with worker as (select worker_id from procrastinate_register_worker_v1())
    insert into sessions_worker (worker_id, rank, tasks, queues)
    select worker_id, %(rank)s, %(tasks)s::text[], %(queues)s::text[] from worker returning worker_id
"""
BEAT: Final = "update procrastinate_workers set last_heartbeat = now() where id = %(worker)s returning id"
RETIRE: Final = "delete from sessions_worker where worker_id = %(worker)s returning worker_id"
UNREGISTER: Final = "select procrastinate_unregister_worker_v1(%(worker)s)"
PRUNE: Final = "select procrastinate_prune_stalled_workers_v1(%(stall)s)"
# What a dead worker had taken goes back into its queue, unless it was to be cancelled or waits there already.
RESCUE: Final = """
    with stalled as (
        select job.id, job.abort_requested or exists (
            select from procrastinate_jobs twin where twin.status = 'todo' and twin.queueing_lock = job.queueing_lock
        ) as is_over
        from procrastinate_jobs job left join procrastinate_workers worker on worker.id = job.worker_id
        where job.status = 'doing'
            and (worker.id is null or worker.last_heartbeat < now() - make_interval(secs => %(stall)s))
        for update of job skip locked
    ), dropped as (
        delete from procrastinate_jobs using stalled where procrastinate_jobs.id = stalled.id and stalled.is_over
    )
    update procrastinate_jobs set status = 'todo', worker_id = null, attempts = attempts + 1
    from stalled where procrastinate_jobs.id = stalled.id and not stalled.is_over returning procrastinate_jobs.id
"""


@attrs.frozen
class Routing:
    """What decides which workers may take a run."""

    task: str
    queue: str
    version: str | None

    @classmethod
    def of(cls, run: RunRecord) -> Routing:
        """Return that of *run*."""
        members = run.config.members
        return cls(run.task, members.get("queue") or DEFAULT_QUEUE, members.get("lockToVersion") or None)

    @property
    def queue_name(self) -> str:
        """The name of the queue of all runs with this routing: readable, unless it would be too long."""
        digest = hashlib.sha256("\0".join((self.task, self.queue, self.version or "")).encode()).hexdigest()[:16]
        readable = "".join(c for c in self.task[:_NAME_CHARACTERS] if c.isascii() and c.isprintable())
        return f"{readable}.{digest}"


@attrs.frozen
class Job:
    """A job that a worker has taken."""

    id: int
    run_id: RunId
