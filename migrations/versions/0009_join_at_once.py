"""Identical calls that are placed at the same instant: the first is, the others join it."""

from __future__ import annotations

from types import ModuleType

from alembic import context, op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# An item with `joinable` and `grace` (seconds) and no Idempotency-Key is answered `repeated`, and places nothing, when
# there is a call it may join by the rule of gateway_take_repeat, or one before it in the batch. `number` is which repeat
# of an SDK it is; without one it may join whatever number has.
# The lock is that function's, so that of two processes the second sees what the first has placed. It cannot be part of
# a circle: who waits for one holds nothing but locks of this kind with lower numbers, since they are taken before
# everything else here and alone there. An item whose record is there was placed: a batch can be sent again as it is.
AT_ONCE = """
    IF jsonb_path_exists(items, '$[*].joinable') THEN
        PERFORM pg_advisory_xact_lock(l.number)
        FROM (
            SELECT DISTINCT hashtextextended(i.key || i.fingerprint, 20252) AS number
            FROM jsonb_to_recordset(items) AS i(key text, fingerprint text, joinable double precision)
            WHERE i.joinable IS NOT NULL
            ORDER BY number
        ) l;
        SELECT coalesce(array_agg(i.id), '{}') INTO joining
        FROM (
            SELECT i.*, row_number() OVER (PARTITION BY i.key, i.fingerprint ORDER BY i.n) AS turn
            FROM ROWS FROM (jsonb_to_recordset(items)
                            AS (id uuid, key text, idempotency_key text, fingerprint text,
                                joinable double precision, grace double precision, number integer))
                 WITH ORDINALITY AS i(id, key, idempotency_key, fingerprint, joinable, grace, number, n)
            WHERE i.fingerprint IS NOT NULL AND i.idempotency_key IS NULL
        ) i
        WHERE i.joinable IS NOT NULL
          AND NOT EXISTS (SELECT FROM idempotency_records r WHERE r.hold_id = i.id)
          AND (i.turn > 1 OR EXISTS (
              SELECT FROM idempotency_records r JOIN holds h ON h.id = r.hold_id
              WHERE r.key_id = i.key AND r.fingerprint = decode(i.fingerprint, 'hex') AND r.idempotency_key IS NULL
                AND (h.state <> 'released' OR h.task_id IS NOT NULL)
                AND coalesce(r.ended_at, h.unknown_at, h.ended_at, now()) >= now() - make_interval(secs => i.joinable)
                AND coalesce(r.delivered_at > now() - make_interval(secs => i.grace), true)
                AND (i.number IS NULL OR r.taken < i.number)
          ));
    END IF;
"""

# Where gateway_place_calls of 0007 goes on otherwise, and gateway_take_repeat: with no time at all to join an ended call,
# one that runs can be joined all the same.
CHANGES = (
    ("CREATE FUNCTION gateway_place_calls", "CREATE OR REPLACE FUNCTION gateway_place_calls"),
    ("    repeated uuid[];\n", "    repeated uuid[];\n    joining uuid[] := '{}';\n"),
    ("BEGIN\n    DELETE", "BEGIN" + AT_ONCE + "\n    DELETE"),
    (
        "WHERE i.fingerprint IS NOT NULL\n    ORDER",
        "WHERE i.fingerprint IS NOT NULL AND i.id <> ALL (joining)\n    ORDER",
    ),
    ("CREATE FUNCTION gateway_take_repeat", "CREATE OR REPLACE FUNCTION gateway_take_repeat"),
    ("> now() - joinable\n", ">= now() - joinable\n"),
)


def upgrade() -> None:
    script = _before()
    for old, new in CHANGES:
        if script.count(old) != 1:
            raise LookupError(f"not found once in gateway_place_calls: {old!r}")
        script = script.replace(old, new)
    _execute(script)


def downgrade() -> None:
    _execute(_before().replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))


def _before() -> str:
    """Both functions as 0007 makes them."""
    script: str = _revision("0007").UP
    return script[: script.index("-- Nothing was executed")]


def _revision(name: str) -> ModuleType:
    script = context.script.get_revision(name)
    if script is None:
        raise LookupError(f"there is no revision {name}")
    return script.module


def _execute(script: str) -> None:
    op.get_bind().exec_driver_sql(script.replace("%", "%%"))  # the driver reads a lone % as a placeholder
