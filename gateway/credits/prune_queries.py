"""What `pruning` asks and does to one month. `{month}` is the end of its partitions' names, as 2026_08."""

from __future__ import annotations

from datetime import date

from sqlalchemy import TextClause, text

# A hold that is open, by whichever clock it belongs to the month or to an earlier one.
OPEN_HOLDS = text(
    """
    SELECT count(*) FROM holds
    WHERE state IN ('held', 'unknown') AND (id < :high OR placed_at < :end)
    """
)
RUNNING_PERIODS = text(
    "SELECT min(ends_at) FROM quota_periods WHERE starts_at < :end AND ends_at > now() AND ends_at IS NOT NULL"
)
OPEN_DAYS = text(
    """
    SELECT count(DISTINCT (b.starts_at AT TIME ZONE 'UTC')::date) FROM usage_buckets b
    WHERE b.starts_at >= :start AND b.starts_at < :end
      AND NOT EXISTS (SELECT FROM usage_days_closed c WHERE c.utc_day = (b.starts_at AT TIME ZONE 'UTC')::date
                      AND NOT EXISTS (SELECT FROM usage_days_late l WHERE l.utc_day = c.utc_day))
    """
)
KEPT_ANSWERS = text(
    "SELECT max(expires_at) FROM idempotency_records WHERE hold_id >= :low AND hold_id < :high AND expires_at > now()"
)
STRAY = text(
    """
    SELECT (SELECT count(*) FROM holds_default WHERE id >= :low AND id < :high)
         + (SELECT count(*) FROM ledger_entries_default WHERE hold_id >= :low AND hold_id < :high)
         + (SELECT count(*) FROM attempts_default WHERE hold_id >= :low AND hold_id < :high)
    """
)
NOW = text("SELECT now()")
PRUNED = text("SELECT EXISTS (SELECT FROM pruned_months WHERE month = :month)")
ONLY_RUN = text("SELECT pg_try_advisory_xact_lock(hashtextextended('gateway prune run', 0))")
ALONE = text("SELECT pg_try_advisory_xact_lock(hashtextextended('gateway prune', 0))")

# The months before a day that have partitions, oldest first, and whether each has all three.
MONTHS = text(
    """
    SELECT to_date(right(c.relname, 7), 'YYYY_MM') AS month, count(*) AS tables
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent IN ('holds'::regclass, 'ledger_entries'::regclass, 'attempts'::regclass)
      AND c.relkind = 'r' AND c.relname ~ '_[0-9]{4}_[0-9]{2}$' AND to_date(right(c.relname, 7), 'YYYY_MM') < :before
    GROUP BY 1 ORDER BY 1
    """
)
# Tables of pruned months that a stopped run has detached and not dropped. They are frozen, unlike what somebody may
# have made of an export under such a name.
LEFT_OVER = text(
    """
    SELECT c.relname FROM pruned_months m
    CROSS JOIN unnest(ARRAY['holds', 'ledger_entries', 'attempts']) AS p(parent)
    JOIN pg_class c ON c.oid = to_regclass(p.parent || to_char(m.month, '_YYYY_MM'))
    WHERE NOT c.relispartition AND EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'frozen')
    ORDER BY c.relname
    """
)

PARENTS = ("holds", "ledger_entries", "attempts")
LOCK_PARENTS = text("LOCK TABLE holds, ledger_entries, attempts IN ACCESS EXCLUSIVE MODE")

_COUNTS = """
SELECT (SELECT count(*) FROM holds_{month}) AS holds, (SELECT count(*) FROM ledger_entries_{month}) AS entries,
       (SELECT count(*) FROM attempts_{month}) AS attempts,
       (SELECT count(*) FROM tasks WHERE hold_id >= :low AND hold_id < :high) AS tasks,
       (SELECT count(*) FROM idempotency_records WHERE hold_id >= :low AND hold_id < :high) AS records,
       (SELECT coalesce(sum(settled), 0)::bigint FROM holds_{month}) AS settled
"""
_FROZEN = """
SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND tgname = 'frozen')
"""
_FREEZE = """
CREATE TRIGGER frozen BEFORE INSERT OR UPDATE OR DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION gateway_refuse_frozen()
"""
# Placed after the month by the database's clock, so their usage is that of days which still change.
_LATE = "SELECT array_agg(id ORDER BY id) FROM (SELECT id FROM holds_{month} WHERE placed_at >= :end LIMIT :most) h"

# Beside the entries of holds those that have moved counters alone, carried ones of earlier months among them.
_CARRY = """
INSERT INTO ledger_entries (hold_id, kind, team_id, key_id, counters, held, settled, actor, reason)
SELECT gateway_uuid7(), 'carry', s.team_id, q.key_id, ARRAY[s.counter], s.held, s.settled, :actor, :reason
FROM (
    SELECT c AS counter, (array_agg(e.team_id))[1] AS team_id, sum(e.held)::bigint AS held,
           sum(e.settled)::bigint AS settled
    FROM ledger_entries_{month} e CROSS JOIN unnest(e.counters) c
    WHERE NOT e.hold_id = ANY (:kept)
    GROUP BY c HAVING sum(e.held) <> 0 OR sum(e.settled) <> 0
) s
LEFT JOIN quota_periods p ON p.id = s.counter LEFT JOIN quotas q ON q.id = p.quota_id
"""
_CARRY_USAGE = """
INSERT INTO carried_usage (month, utc_day, team_id, model, operation, requests, failed, shadow_refused, credits,
                           estimated_credits)
SELECT :month, (h.placed_at AT TIME ZONE 'UTC')::date, h.team_id, h.model, h.operation, count(*),
       count(*) FILTER (WHERE h.state = 'released'), count(*) FILTER (WHERE 'shadow_refused' = ANY (h.flags)),
       coalesce(sum(h.settled), 0), coalesce(sum(h.settled) FILTER (WHERE h.estimated), 0)
FROM holds_{month} h WHERE NOT h.id = ANY (:kept) GROUP BY 2, 3, 4, 5
"""
DROP_TASKS = text("DELETE FROM tasks WHERE hold_id >= :low AND hold_id < :high AND NOT hold_id = ANY (:kept)")
# They have expired. One whose answer lies in a file is left to a gateway, which deletes both within seconds.
DROP_RECORDS = text(
    "DELETE FROM idempotency_records WHERE hold_id >= :low AND hold_id < :high AND body_path IS NULL"
)
_DETACH = "ALTER TABLE {parent} DETACH PARTITION {parent}_{month}"
_KEEP = "INSERT INTO {parent} SELECT * FROM {parent}_{month} WHERE {key} = ANY (:kept)"

# One JSON object a row. Answers kept for repeats are media, not books: their bodies are left out.
_EXPORTS = {
    "holds": "SELECT to_jsonb(r)::text FROM holds_{month} r ORDER BY r.id",
    "ledger_entries": "SELECT to_jsonb(r)::text FROM ledger_entries_{month} r ORDER BY r.hold_id, r.kind",
    "attempts": "SELECT to_jsonb(r)::text FROM attempts_{month} r ORDER BY r.hold_id, r.number",
    "tasks": "SELECT (to_jsonb(r) || jsonb_build_object('body', encode(r.body, 'base64')))::text FROM tasks r"
    " WHERE r.hold_id >= :low AND r.hold_id < :high ORDER BY r.id",
    "idempotency_records": "SELECT (to_jsonb(r) - 'body')::text FROM idempotency_records r"
    " WHERE r.hold_id >= :low AND r.hold_id < :high ORDER BY r.hold_id",
}
_SUMS = """
SELECT (SELECT coalesce(sum(quote), 0)::bigint FROM holds_{month}) AS quote,
       (SELECT coalesce(sum(settled), 0)::bigint FROM holds_{month}) AS settled,
       (SELECT coalesce(sum(held), 0)::bigint FROM ledger_entries_{month}) AS entries_held,
       (SELECT coalesce(sum(settled), 0)::bigint FROM ledger_entries_{month}) AS entries_settled
"""


def suffix(month: date) -> str:
    return f"{month:%Y_%m}"


def counts(month: date) -> TextClause:
    return text(_COUNTS.format(month=suffix(month)))


def sums(month: date) -> TextClause:
    """Micro-credits; those of entries over every entry, whichever counters it names."""
    return text(_SUMS.format(month=suffix(month)))


def is_frozen(table: str) -> TextClause:
    return text(_FROZEN.format(table=table))


def freeze(table: str) -> TextClause:
    return text(_FREEZE.format(table=table))


def late(month: date) -> TextClause:
    return text(_LATE.format(month=suffix(month)))


def carry(month: date) -> TextClause:
    return text(_CARRY.format(month=suffix(month)))


def carry_usage(month: date) -> TextClause:
    return text(_CARRY_USAGE.format(month=suffix(month)))


def detach(parent: str, month: date) -> TextClause:
    return text(_DETACH.format(parent=parent, month=suffix(month)))


def keep(parent: str, month: date) -> TextClause:
    key = "id" if parent == "holds" else "hold_id"
    return text(_KEEP.format(parent=parent, month=suffix(month), key=key))


def exports(month: date) -> dict[str, TextClause]:
    """By the name of the file: rows as JSON text, in the order of their keys."""
    return {name: text(query.format(month=suffix(month))) for name, query in _EXPORTS.items()}
