"""Statements that go to the driver as they are: their text, and which value goes where."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import ARRAY, LargeBinary, any_, bindparam, func, select, text

from gateway.db.direct import Direct
from gateway.db.tables import team_keys


def test_values_go_where_their_names_are() -> None:
    statement = Direct(text("SELECT :b, :a, :b"))
    assert statement.text == b"SELECT $1, $2, $1"
    assert statement.arguments({"a": 1, "b": None}) == [None, 1]


def test_what_a_statement_says_itself_need_not_be_given() -> None:
    statement = Direct(
        select(team_keys.c.id).where(
            team_keys.c.last_used_at < func.now() - timedelta(minutes=1),
            team_keys.c.digest == any_(bindparam("digests", type_=ARRAY(LargeBinary))),
        )
    )
    assert statement.text.endswith(
        b"WHERE team_keys.last_used_at < now() - $1 AND team_keys.digest = ANY ($2::BYTEA[])"
    )
    assert statement.arguments({"digests": [b"1"]}) == [timedelta(minutes=1), [b"1"]]


def test_it_is_written_once_and_when_it_is_needed() -> None:
    statement = Direct(text("SELECT 1"))
    assert "_compiled" not in vars(statement)
    assert statement.text is statement.text
