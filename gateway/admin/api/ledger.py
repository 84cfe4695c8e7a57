"""Handlers of the ledger's proof and repair."""

from __future__ import annotations

from gateway.admin.api.credit_answers import ProofAnswer, RepairAnswer, of_proof, of_repair
from gateway.admin.api.requests import Nothing
from gateway.admin.api.route import AdminApi, AdminCall
from gateway.credits import verify as ledger
from gateway.credits.verify import Proof, Repaired


async def verify(api: AdminApi, _call: AdminCall[Nothing, Nothing]) -> ProofAnswer:
    return of_proof(await _proof(api))


async def repair(api: AdminApi, call: AdminCall[Nothing, Nothing]) -> RepairAnswer:
    """A team is repaired in a transaction of its own, so calls of the others go on.

    While another proof runs this is 409 before anything is changed; the proof of what was repaired waits its turn.
    """
    repaired = Repaired()
    for team_id in ledger.repairable((await _proof(api)).differences):
        async with api.database.transaction() as connection:
            repaired = repaired.plus(await ledger.repair(connection, call.actor, team_id))
    return of_repair(repaired, await _proof(api, in_turn=True))


async def _proof(api: AdminApi, *, in_turn: bool = False) -> Proof:
    async with api.database.transaction() as connection:
        return await ledger.verify(connection, in_turn=in_turn)
