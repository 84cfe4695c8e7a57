"""Each crossing is one alert and one delivery, whichever processes judge and whenever one of them dies."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from gateway.alerts import deliveries
from gateway.alerts.facts import OwnFacts
from gateway.credits.amount import MICRO
from gateway.credits.terms import NewTask
from gateway.db.partitions import ensure_partitions
from gateway.ids import uuid7
from tests.integration.alerts.conftest import Alerting
from tests.integration.task_rig import tasks_on

BROKEN = OwnFacts(price_book_problems=("line 2: credits: must be a number",))


async def test_two_processes_at_once_raise_one_alert_and_one_delivery_a_webhook(alerting: Alerting) -> None:
    webhooks = [(await alerting.webhook(f"http://127.0.0.1:1/{number}"))[0].id for number in range(2)]
    await alerting.webhook("http://127.0.0.1:1/other", kinds=("odd_cost",))
    _, quota = await alerting.team()
    raised = 0
    for used in (10, 55, 85, 85, 97, 100, 100):
        await alerting.use(quota, used)
        for found in await asyncio.gather(
            *(process.judge() for process in (alerting.one, alerting.other) * 3)
        ):
            raised += len(found.raised)
    alerts = await alerting.alerts()
    assert len(alerts) == raised == 4
    assert {alert.subject for alert in alerts} == {f"quota:{quota}"}
    assert sorted(alert.detail["threshold"] for alert in alerts) == [50, 80, 95, 100]
    sent = {(one.webhook_id, one.alert_id) for one in await alerting.deliveries()}
    assert sent == {(webhook, alert.id) for webhook in webhooks for alert in alerts}
    assert len(await alerting.deliveries()) == 8


async def test_a_crossing_is_resolved_and_raised_again(alerting: Alerting) -> None:
    await alerting.webhook("http://127.0.0.1:1/")
    _, quota = await alerting.team()
    await alerting.use(quota, 60)
    assert await alerting.one.kinds() == (["quota_threshold"], [])
    assert await alerting.other.kinds() == ([], [])
    await alerting.run("UPDATE quotas SET limit_micro = :limit", limit=1000 * MICRO)
    assert await alerting.other.kinds() == ([], ["quota_threshold"])
    await alerting.use(quota, 600)
    assert await alerting.one.kinds() == (["quota_threshold"], [])
    assert [alert.state for alert in await alerting.alerts()] == ["open", "resolved"]
    events = [one.event for one in reversed(await alerting.deliveries())]
    assert events == ["alert.raised", "alert.resolved", "alert.raised"]
    await alerting.run("DELETE FROM quotas")
    assert await alerting.one.kinds() == ([], ["quota_threshold"])


async def test_a_quota_s_alert_stays_for_a_while_and_use_near_its_mark_renews_it(alerting: Alerting) -> None:
    _, quota = await alerting.team()
    await alerting.use(quota, 60)
    assert await alerting.one.kinds() == (["quota_threshold"], [])
    await alerting.use(quota, 1)
    assert await alerting.one.kinds() == ([], [])
    await alerting.run("UPDATE alerts SET seen_at = now() - interval '950 seconds'")
    await alerting.use(quota, 46)
    assert await alerting.other.kinds() == ([], [])
    await alerting.use(quota, 1)
    assert await alerting.one.kinds() == ([], []), "it was there a moment ago"
    await alerting.run("UPDATE alerts SET seen_at = now() - interval '961 seconds'")
    assert await alerting.one.kinds() == ([], ["quota_threshold"])


async def test_a_process_that_dies_in_between_neither_loses_nor_doubles(
    alerting: Alerting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await alerting.webhook("http://127.0.0.1:1/")
    _, quota = await alerting.team()
    await alerting.use(quota, 60)
    caplog.set_level(logging.INFO, "gateway.alerts")

    async def dies(*_: object) -> int:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(deliveries, "enqueue", dies)
        with pytest.raises(asyncio.CancelledError):
            await alerting.one.judge()
    assert await alerting.alerts() == []
    assert caplog.messages == []
    assert await alerting.other.kinds() == (["quota_threshold"], [])
    assert len(await alerting.deliveries()) == 1
    assert caplog.messages == ["alert raised"]


async def test_while_one_judges_the_others_do_not(alerting: Alerting) -> None:
    _, quota = await alerting.team()
    await alerting.use(quota, 60)
    async with alerting.database.transaction() as connection:
        await connection.exec_driver_sql(
            "SELECT pg_advisory_xact_lock(hashtextextended('gateway alerts', 0))"
        )
        alerting.other.own = BROKEN
        assert await alerting.other.kinds() == (["price_book_error"], []), "what it alone knows it says"
        assert await alerting.other.kinds() == ([], [])
    assert await alerting.other.kinds() == (["quota_threshold"], [])


async def test_a_refused_price_book_is_one_alert_of_all_processes(alerting: Alerting) -> None:
    alerting.one.own = alerting.other.own = BROKEN
    for _ in range(3):
        await asyncio.gather(alerting.one.judge(), alerting.other.judge())
    [alert] = await alerting.alerts()
    assert (alert.kind, alert.subject, alert.state) == ("price_book_error", "models.toml", "open")
    alerting.one.own = OwnFacts()
    await alerting.run("UPDATE alerts SET seen_at = now() - interval '19 seconds'")
    assert await alerting.one.kinds() == ([], []), "the other may go on saying it"
    await alerting.other.judge()
    await alerting.run("UPDATE alerts SET raised_at = raised_at - interval '1 minute'")
    assert await alerting.one.kinds() == ([], [])
    await alerting.run("UPDATE alerts SET seen_at = now() - interval '21 seconds'")
    assert await alerting.one.kinds() == ([], ["price_book_error"])


async def test_metrics_and_log_say_what_is_open(alerting: Alerting, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway.alerts")
    _, quota = await alerting.team()
    await alerting.use(quota, 101)
    await alerting.one.judge()
    await alerting.other.judge()
    for process in (alerting.one, alerting.other):
        value = process.metrics.registry.get_sample_value
        assert value("gateway_alerts_open", {"kind": "quota_threshold", "severity": "critical"}) == 1
        assert value("gateway_alerts_open", {"kind": "quota_threshold", "severity": "warning"}) == 2
    raised = [
        process.metrics.registry.get_sample_value("gateway_alerts_raised_total", {"kind": "quota_threshold"})
        for process in (alerting.one, alerting.other)
    ]
    assert raised == [4, None]
    assert sorted(record.levelname for record in caplog.records) == ["ERROR", "INFO", "WARNING", "WARNING"]
    assert {vars(record)["reason"] for record in caplog.records} == {"quota_threshold"}


async def test_unknown_holds_costs_and_late_tasks(alerting: Alerting, database_url: str) -> None:
    async with tasks_on(database_url) as rig:
        key = await rig.upstream_key()
        assert await alerting.one.kinds() == ([], [])
        hold, order = await rig.hold()
        await rig.run("UPDATE holds SET state = 'unknown' WHERE id = :id", id=hold)
        assert await alerting.one.kinds() == (["hold_unknown"], [])
        await rig.run("UPDATE holds SET state = 'held' WHERE id = :id", id=hold)
        assert await alerting.one.kinds() == ([], ["hold_unknown"])

        priced = replace(order, charge=order.quote - MICRO)  # a model priced "from"
        for number, cost in enumerate((order.quote - MICRO, order.quote, order.quote + 1, None)):
            bound = (await rig.ledger.place(replace(order, request_id=f"r{number}"))).id
            task = NewTask(id=f"t{number}", upstream_key_id=key, status="submitted", body=b"{}")
            await rig.ledger.bind(bound, priced, task, [])
            await rig.run(
                "UPDATE tasks SET status = 'completed', ended_at = now(), credits_cost = :cost WHERE id = :id",
                id=task.id,
                cost=cost,
            )
        assert await alerting.one.kinds() == (["odd_cost", "price_drift"], [])
        assert await alerting.one.kinds() == ([], [])
        details = {alert.kind: alert.detail for alert in await alerting.alerts()}
        assert (details["price_drift"]["task_id"], details["odd_cost"]["task_id"]) == ("t2", "t3")
        assert (details["price_drift"]["price"], details["price_drift"]["cost"]) == ("7", "8.000001")

        late, _ = await rig.task(key)
        await rig.run("UPDATE tasks SET next_read_at = now() - interval '31 seconds' WHERE id = :id", id=late)
        assert await alerting.one.kinds() == (["reconciler_behind"], [])


async def test_a_month_without_its_partitions(alerting: Alerting) -> None:
    assert await alerting.one.kinds() == ([], [])
    soon = (datetime.now(UTC).replace(day=1) + timedelta(days=32)).strftime("%Y_%m")
    async with alerting.database.transaction() as connection:
        await connection.execute(text(f"ALTER TABLE attempts DETACH PARTITION attempts_{soon}"))
    assert await alerting.one.kinds() == (["partitions_missing"], [])
    [alert] = await alerting.alerts()
    assert (alert.severity, alert.detail) == ("warning", {"months": [soon.replace("_", "-")]})
    assert await ensure_partitions(alerting.database) == [f"attempts_{soon}"]
    assert await alerting.one.kinds() == ([], ["partitions_missing"])


async def test_keys_that_are_off_empty_or_all_out(alerting: Alerting, database_url: str) -> None:
    async with tasks_on(database_url) as rig:
        keys = [await rig.upstream_key() for _ in range(2)]
        await rig.run(
            "UPDATE upstream_keys SET rest_reason = 'out_of_credits', paid_rests_until = now() + interval '5 minutes',"
            " rest_count = 1 WHERE id = :id",
            id=keys[0],
        )
        assert await alerting.one.kinds() == (["upstream_key_exhausted"], [])
        await rig.run("UPDATE upstream_keys SET paid_rests_until = now() - interval '1 second'")
        assert await alerting.one.kinds() == ([], []), "until a paid call says otherwise"
        await rig.run(
            "UPDATE upstream_keys SET state = 'refused', state_reason = 'no' WHERE id = :id", id=keys[1]
        )
        assert await alerting.one.kinds() == (["upstream_key_off", "upstream_keys_all_resting"], [])
        await rig.run(
            "UPDATE upstream_keys SET state = 'active', state_reason = NULL, rest_reason = NULL, rest_count = 0"
        )
        assert await alerting.one.kinds() == ([], ["upstream_key_exhausted", "upstream_key_off"])
        await rig.run("UPDATE alerts SET seen_at = now() - interval '61 seconds'")
        assert await alerting.one.kinds() == ([], ["upstream_keys_all_resting"])


async def test_old_alerts_and_deliveries_are_deleted(alerting: Alerting) -> None:
    await alerting.webhook("http://127.0.0.1:1/")
    _, quota = await alerting.team()
    await alerting.use(quota, 60)
    await alerting.one.judge()
    await alerting.run("DELETE FROM quotas")
    await alerting.one.judge()
    assert len(await alerting.deliveries()) == 2
    test = uuid7(1_700_000_000_000)
    await alerting.run(
        "INSERT INTO alert_deliveries (id, webhook_id, event, body, state)"
        " SELECT :id, id, 'test', '{}', 'delivered' FROM webhooks",
        id=test,
    )
    await alerting.run("UPDATE alerts SET resolved_at = now() - interval '89 days'")
    await alerting.other.judge()
    assert [len(await alerting.alerts()), len(await alerting.deliveries())] == [1, 2], "the test is gone"
    await alerting.run("UPDATE alerts SET resolved_at = now() - interval '91 days'")
    alerting.other.evaluator._forget_at = 0.0
    await alerting.other.judge()
    assert [len(await alerting.alerts()), len(await alerting.deliveries())] == [0, 0]
