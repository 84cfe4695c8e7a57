"""Handler of explanations: what became of a request id, from everything that was written down of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import errors
from gateway.access import refusals, team_keys, teams
from gateway.access.refusals import KeptRefusal
from gateway.access.team_keys import TeamKey
from gateway.access.teams import Team
from gateway.admin import story, wording
from gateway.admin.api.explain_answers import ExplainAnswer, of_facts
from gateway.admin.api.requests import Nothing
from gateway.admin.api.route import AdminApi, AdminCall
from gateway.admin.story import Facts
from gateway.credits import history, holds
from gateway.credits.history import CountedOn, Entry
from gateway.credits.holds import Attempt, ListedHold
from gateway.credits.pruning import pruned_until
from gateway.db import audit_listing
from gateway.db.audit_listing import AuditEntry
from gateway.repeats import records
from gateway.repeats.records import Repeatability
from gateway.tasks import listing as tasks
from gateway.tasks.listing import ListedTask

# A refusal is written down up to a second after its answer, by whichever process gave it.
SECONDS = refusals.WRITE_SECONDS + 0.5
EVERY = 0.25
MOST = 20  # clients choose request ids, so several calls may have one


async def explain(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> ExplainAnswer:
    request_id = call.params["request_id"]
    deadline = asyncio.get_running_loop().time() + SECONDS
    while not (facts := await _told(api, request_id)):
        if asyncio.get_running_loop().time() > deadline:
            raise errors.not_found(await _nowhere(api), "request_not_found")
        await asyncio.sleep(EVERY)
    newest, *earlier = [of_facts(one) for one in facts]
    return ExplainAnswer(
        request_id=request_id,
        summary=newest.summary,
        steps=newest.steps,
        hold=newest.hold,
        refusal=newest.refusal,
        task=newest.task,
        attempts=newest.attempts,
        earlier=earlier,
    )


async def _nowhere(api: AdminApi) -> str:
    async with api.database.autocommit() as connection:
        until = await pruned_until(connection)
    if until is None:
        return wording.NOWHERE
    return f"{wording.NOWHERE} What was placed before {until} has been pruned: look into the months' exports."


async def _told(api: AdminApi, request_id: str) -> list[Facts]:
    """Everything that is written down of this id, newest first."""
    async with api.database.autocommit() as connection:
        found = await holds.of_request(connection, request_id, MOST)
        refused = await refusals.of_request(connection, request_id, MOST)
        if not found and not refused:
            return []
        known = await _known(connection, found, refused)
    return sorted(_facts(found, refused, known), key=lambda one: one.at, reverse=True)[:MOST]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What was looked up for all the holds and refusals of one request id at once."""

    holds: Mapping[UUID, ListedHold]
    keys: Mapping[str, TeamKey]
    teams: Mapping[UUID, Team]
    attempts: Mapping[UUID, Sequence[Attempt]]
    entries: Mapping[UUID, Sequence[Entry]]
    quotas: Mapping[UUID, Sequence[CountedOn]]
    tasks: Mapping[str, ListedTask]
    audit: Sequence[AuditEntry]
    repeats: Mapping[UUID, Repeatability]


async def _known(
    connection: AsyncConnection, found: Sequence[ListedHold], refused: Sequence[KeptRefusal]
) -> _Known:
    ids = [hold.id for hold in found]
    key_ids = {hold.key_id for hold in found} | {one.key_id for one in refused if one.key_id is not None}
    team_ids = {hold.team_id for hold in found} | {one.team_id for one in refused if one.team_id is not None}
    return _Known(
        holds=await holds.by_ids(connection, story.holds_told_of(refused)),
        keys=await team_keys.by_ids(connection, key_ids),
        teams=await teams.by_ids(connection, team_ids),
        attempts=await holds.attempts_of(connection, found),
        entries=await history.entries_of(connection, ids),
        quotas=await history.counted_on(connection, ids),
        tasks=await tasks.by_ids(connection, {hold.task_id for hold in found if hold.task_id is not None}),
        audit=await audit_listing.of_subjects(connection, "hold", [str(ident) for ident in ids]),
        repeats=await records.of_holds(connection, ids),
    )


def _facts(found: Sequence[ListedHold], refused: Sequence[KeptRefusal], known: _Known) -> Iterable[Facts]:
    own = {hold.id for hold in found}
    answers = {one.hold_id: one for one in refused if one.hold_id is not None}
    for hold in found:
        yield Facts(
            hold=hold,
            refusal=answers.get(hold.id),
            key=known.keys.get(hold.key_id),
            team=known.teams.get(hold.team_id),
            attempts=known.attempts.get(hold.id, ()),
            entries=known.entries.get(hold.id, ()),
            quotas=known.quotas.get(hold.id, ()),
            task=None if hold.task_id is None else known.tasks.get(hold.task_id),
            resolutions=[one for one in known.audit if one.subject_id == str(hold.id)],
            repeated=known.repeats.get(hold.id),
        )
    for one in refused:
        if one.hold_id in own:
            continue
        repeats = one.detail.get("repeats")
        yield Facts(
            refusal=one,
            key=None if one.key_id is None else known.keys.get(one.key_id),
            team=None if one.team_id is None else known.teams.get(one.team_id),
            first=None if repeats is None else known.holds.get(UUID(str(repeats))),
        )
