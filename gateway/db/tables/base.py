"""What every table is made with: the metadata with its names of constraints, and moments."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, MetaData, func

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    }
)

NOW = func.now()


def moment(name: str, *, now: bool = False) -> Column[object]:
    """A `timestamptz`; `now` makes it the time of the row's making."""
    return Column(name, DateTime(timezone=True), nullable=not now, server_default=NOW if now else None)
