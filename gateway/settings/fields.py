"""What all sections of the settings share: their base class and the reading of lists and words."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from gateway.settings.secrets import Masking, Secret


class Section(BaseModel):
    """What all sections share: frozen, no unknown fields, no infinities, no booleans for numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _number_is_no_boolean(cls, value: object, info: ValidationInfo) -> object:
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and {annotation, *get_args(annotation)} & {int, float, Decimal}:
            raise ValueError("must be a number, not true or false")
        return value


def split_list(value: object) -> object:
    """Comma-separated text, as the environment has it, as its entries; empty ones do not count."""
    if isinstance(value, str):
        return [entry.strip() for entry in value.split(",") if entry.strip()]
    return value


def no_duplicates(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    """The entries when no two are equal."""
    for position, entry in enumerate(entries):
        first = entries.index(entry)
        if first != position:
            raise ValueError(f"entries {first + 1} and {position + 1} are the same; remove one")
    return entries


def not_empty(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    """The entries when there are any. (`min_length` would count the valid ones only and report twice.)"""
    if not entries:
        raise ValueError("has no entry and needs at least one")
    return entries


def fold_case(value: object) -> object:
    """Words of a fixed list may be written in any case."""
    return value.strip().lower() if isinstance(value, str) else value


def with_openid(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Scopes that make it OpenID Connect."""
    if "openid" not in entries:
        raise ValueError("must hold openid; without it the provider does not say who signed in")
    return entries


AnyCase = BeforeValidator(fold_case)
Listed = BeforeValidator(split_list)
Distinct = AfterValidator(no_duplicates)
SecretList = Annotated[tuple[Secret, ...], Listed, AfterValidator(not_empty), Distinct, Masking.WHOLE]
GroupName = Annotated[str, Field(min_length=1, max_length=500)]
ScopeName = Annotated[str, Field(pattern=r"^[!#-\[\]-~]{1,200}$")]
# Made by somebody else, who knows how long it has to be.
GivenSecret = Annotated[SecretStr, Field(min_length=1)]
