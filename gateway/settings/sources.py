"""Where settings come from: gateway.toml, then the environment, then the command line; the later wins."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from gateway.settings.model import FIELDS, SECTIONS, Value, environment_name, masking
from gateway.settings.problems import Problem, SettingsError
from gateway.settings.secrets import Masking, has_password

PREFIX = "GATEWAY_"
FILE_SUFFIX = "_FILE"
CONFIG_DIR = "GATEWAY_CONFIG_DIR"
SETTINGS_FILE, MODELS_FILE = "gateway.toml", "models.toml"
LARGEST_VALUE_FILE = 65_536  # bytes

_PACKAGE = Path(__file__).resolve().parents[1]
_BY_ENVIRONMENT_NAME = {environment_name(setting): setting for setting in FIELDS}
# Kubernetes and Docker put e.g. GATEWAY_SERVER_PORT=tcp://10.0.0.1:80 into containers near a service of that name.
_INJECTED_VALUE = re.compile(r"(?:tcp|udp|sctp)://")


@dataclass(slots=True)
class Gathered:
    """What the sources say, unchecked: values by setting, and what was wrong with the sources themselves."""

    values: dict[str, Value] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def problem(self, setting: str, source: str, message: str) -> None:
        self.problems.append(Problem(setting, source, message))


def find_config_dir(config_dir: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The directory of gateway.toml and models.toml, absolute.

    `config_dir` (`--config`), else GATEWAY_CONFIG_DIR, else `./config` when it holds one of the two files,
    else the defaults shipped with the package. SettingsError when a named one is no directory.
    """
    named = str(config_dir) if config_dir is not None else environ.get(CONFIG_DIR, "")
    if named:
        directory = Path(named).absolute()
        if directory.is_dir():
            return directory
        source = "command line --config" if config_dir is not None else f"environment {CONFIG_DIR}"
        raise SettingsError([Problem("config", source, f"is not a directory: {directory}")])
    here = Path("config").absolute()
    if any((here / name).is_file() for name in (SETTINGS_FILE, MODELS_FILE)):
        return here
    shipped = _PACKAGE / "_shipped" / "config"
    return shipped if shipped.is_dir() else _PACKAGE.parent / "config"


def read_file(path: Path, gathered: Gathered) -> None:
    """Add what `path` (gateway.toml) says; no such file says nothing."""
    source = f"file {path}"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"), parse_float=Decimal)
    except FileNotFoundError:
        return
    except OSError as error:
        gathered.problem(path.name, source, f"cannot be read: {error.strerror}")
        return
    except UnicodeDecodeError as error:
        gathered.problem(path.name, source, f"is not UTF-8 text (at byte {error.start})")
        return
    except tomllib.TOMLDecodeError as error:
        gathered.problem(path.name, source, f"is not valid TOML: {error}")
        return
    secret = sorted(add_table(document, source, gathered))
    if secret:
        names = ", ".join(secret)
        gathered.warnings.append(
            f"{path} holds secrets ({names}); the environment, best as {environment_name(secret[0])}{FILE_SUFFIX}, "
            "keeps them out of backups and repositories."
        )


def add_table(document: Mapping[str, object], source: str, gathered: Gathered) -> set[str]:
    """Add nested values (`{"server": {"port": 1}}`), None meaning not given; returns those that hold secrets."""
    secret = set()
    for section, table in document.items():
        if section not in SECTIONS:
            gathered.problem(section, source, f"is not a section{_section_hint(section)}")
        elif not isinstance(table, Mapping):
            gathered.problem(section, source, f"is a section: write [{section}] and its settings below")
        else:
            for name, raw in table.items():
                setting = f"{section}.{name}"
                if setting not in FIELDS:
                    gathered.problem(setting, source, f"is not a setting{_setting_hint(section, name)}")
                elif raw is not None:
                    gathered.values[setting] = Value(raw, source)
                    if _holds_secret(setting, raw):
                        secret.add(setting)
    return secret


def read_environment(environ: Mapping[str, str], gathered: Gathered) -> None:
    """Add GATEWAY_<SECTION>__<FIELD> and …_FILE; empty text counts as not set.

    Unknown fields of a known section are problems; other names that look like a setting are warned of.
    """
    for setting in FIELDS:
        _read_variable(setting, environ, gathered)
    for name in sorted(name for name in environ if name.startswith(PREFIX) and name != CONFIG_DIR):
        if name in _BY_ENVIRONMENT_NAME or name.removesuffix(FILE_SUFFIX) in _BY_ENVIRONMENT_NAME:
            continue
        section, separator, rest = name.removeprefix(PREFIX).partition("__")
        if separator and section.lower() in SECTIONS:
            hint = _setting_hint(section.lower(), rest.removesuffix(FILE_SUFFIX).lower(), environment=True)
            setting = f"{section}.{rest}".lower()
            gathered.problem(setting, f"environment {name}", f"is not a setting{hint}")
        else:
            _warn_if_close(name, environ[name], gathered)


def _read_variable(setting: str, environ: Mapping[str, str], gathered: Gathered) -> None:
    plain = environment_name(setting)
    pointer = plain + FILE_SUFFIX
    text, path = environ.get(plain), environ.get(pointer)
    if text and path:
        gathered.problem(setting, f"environment {pointer}", f"is set twice: remove {plain} or {pointer}")
        return
    source = f"environment {pointer if path else plain}"
    if path:
        try:
            text = _read_value(Path(path))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            # A secret put here by mistake must not be printed as if it were a path.
            shown = f" ({path})" if masking(setting) is None else ""
            gathered.problem(setting, source, f"names a file that cannot be used{shown}: {reason}")
            return
    if text:
        gathered.values[setting] = Value(text, source)
    elif FIELDS[setting].is_required() and (text is not None or path is not None):
        gathered.problem(setting, source, "is required and set to nothing; fill it or remove it")


def _read_value(path: Path) -> str:
    """The text of a file without its final newline; ValueError when it cannot be a setting."""
    with path.open("rb") as file:
        content = file.read(LARGEST_VALUE_FILE + 1)
    if len(content) > LARGEST_VALUE_FILE:
        raise ValueError(f"larger than {LARGEST_VALUE_FILE} bytes")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def _holds_secret(setting: str, raw: object) -> bool:
    mark = masking(setting)
    return mark is Masking.WHOLE or (mark is not None and isinstance(raw, str) and has_password(raw))


def _section_hint(name: str) -> str:
    """What somebody meant who wrote `name` where a section belongs: a section, or a setting without its own."""
    owners = [f"[{section}] {name}" for section, model in SECTIONS.items() if name in model.model_fields]
    return _did_you_mean(owners or difflib.get_close_matches(name, SECTIONS, n=1))


def _setting_hint(section: str, name: str, *, environment: bool = False) -> str:
    """What somebody meant who wrote `name` in `section`: the same name elsewhere, or a close one here."""
    elsewhere = [setting for setting in FIELDS if setting.endswith(f".{name}")]
    near = difflib.get_close_matches(name, SECTIONS[section].model_fields, n=1)
    close = elsewhere or [f"{section}.{field}" for field in near]
    return _did_you_mean([environment_name(setting) for setting in close] if environment else close)


def _did_you_mean(candidates: list[str]) -> str:
    if not candidates:
        return "; docs/configuration.md lists them all"
    return f"; did you mean {' or '.join(candidates)}?"


def _warn_if_close(name: str, text: str, gathered: Gathered) -> None:
    """One warning for a name that is no setting and was probably meant as one."""
    rest = name.removeprefix(PREFIX)
    if _INJECTED_VALUE.match(text):
        return
    folded = rest.removesuffix(FILE_SUFFIX).upper()
    names = {known.removeprefix(PREFIX): known for known in _BY_ENVIRONMENT_NAME}
    close = difflib.get_close_matches(folded, names, n=1, cutoff=0.85)
    bare = [known for known in names if known.endswith(f"__{folded}")]
    close += bare if len(bare) == 1 else []
    if close:
        gathered.warnings.append(f"{name} is not a setting and is ignored; did you mean {names[close[0]]}?")
