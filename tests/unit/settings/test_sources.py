"""Where values come from: directories, files, variables, and names that are no settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.settings import Problem, Settings, SettingsError, find_config_dir, load
from gateway.settings.model import FIELDS, environment_name

Load = Callable[..., Settings]
Problems = Callable[..., list[Problem]]


def test_directory_named_by_flag_then_variable(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    environ = {"GATEWAY_CONFIG_DIR": str(two)}
    assert find_config_dir(one, environ) == one
    assert find_config_dir(None, environ) == two


@pytest.mark.parametrize("name", ["gateway.toml", "models.toml"])
def test_directory_here_counts_when_it_holds_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    shipped = find_config_dir(None, {"GATEWAY_CONFIG_DIR": ""})
    assert shipped != tmp_path / "config"
    assert (shipped / "gateway.toml").is_file()
    (tmp_path / "config" / name).touch()
    assert find_config_dir(None, {}) == tmp_path / "config"


def test_a_named_directory_must_exist(tmp_path: Path, required: dict[str, str]) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(SettingsError) as caught:
        load(None, {**required, "GATEWAY_CONFIG_DIR": str(missing), "GATEWAY_SERVER__PORT": "x"})
    assert [(problem.setting, problem.source) for problem in caught.value.problems] == [
        ("config", "environment GATEWAY_CONFIG_DIR"),
        ("server.port", "environment GATEWAY_SERVER__PORT"),
    ]
    with pytest.raises(SettingsError, match="--config"):
        load(missing, required)


def test_shipped_defaults_load_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, required: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, required).warnings == ()


def test_toml_syntax_names_file_and_line(problems_with: Problems, tmp_path: Path) -> None:
    problems = problems_with({"GATEWAY_SERVER__PORT": "x"}, "[server]\nport = \n")
    syntax, port = problems
    assert syntax.source == f"file {tmp_path / 'gateway.toml'}"
    assert "line 2" in syntax.message
    assert port.setting == "server.port"


def test_unreadable_files(tmp_path: Path, required: dict[str, str]) -> None:
    (tmp_path / "gateway.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(SettingsError, match="UTF-8"):
        load(tmp_path, required)
    (tmp_path / "gateway.toml").unlink()
    (tmp_path / "gateway.toml").mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path, required)


@pytest.mark.parametrize(
    ("toml", "setting", "hint"),
    [
        ("[server]\nprot = 1\n", "server.prot", "did you mean server.port?"),
        ("[server]\nsync_timeout = 1\n", "server.sync_timeout", "did you mean upstream.sync_timeout?"),
        ("[servr]\nport = 1\n", "servr", "did you mean server?"),
        ("port = 1\n", "port", "did you mean [server] port?"),
        ("[zzz]\n", "zzz", "docs/configuration.md"),
        ("server = 1\n", "server", "write [server]"),
        ("[server]\nport = [1]\n", "server.port", "must be a valid integer"),
        ("[server]\nworkers = true\n", "server.workers", "not true or false"),
        ("[server]\nport = 8080.5\n", "server.port", "valid integer"),
        ("[server]\nhost = 5\n", "server.host", "valid string"),
    ],
)
def test_problems_of_the_file(problems_with: Problems, toml: str, setting: str, hint: str) -> None:
    (problem,) = problems_with(toml=toml)
    assert problem.setting == setting
    assert hint in problem.message
    assert problem.source.startswith("file ")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("GATEWAY_SERVER__PROT", "GATEWAY_SERVER__PORT"),
        ("GATEWAY_SECRETS__MASTER_KEY_FILE", "GATEWAY_SECRETS__MASTER_KEYS"),
        ("GATEWAY_REDIS__POOL_SIZE", "GATEWAY_DATABASE__POOL_SIZE"),
        ("GATEWAY_server__port", "GATEWAY_SERVER__PORT"),
        ("GATEWAY_LOG__ZZZZ", "docs/configuration.md"),
    ],
)
def test_unknown_fields_of_the_environment(problems_with: Problems, name: str, hint: str) -> None:
    (problem,) = problems_with({name: "1"})
    assert problem.source == f"environment {name}"
    assert hint in problem.message


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("GATEWAY_DATABASE_URL", "GATEWAY_DATABASE__URL"),
        ("GATEWAY_SECRET__MASTER_KEYS", "GATEWAY_SECRETS__MASTER_KEYS"),
        ("GATEWAY_SECRETS_MASTER_KEYS_FILE", "GATEWAY_SECRETS__MASTER_KEYS"),
        ("GATEWAY_SERVER_PORT", "GATEWAY_SERVER__PORT"),
        ("GATEWAY_KEY_PEPPER", "GATEWAY_SECRETS__KEY_PEPPER"),
    ],
)
def test_a_name_close_to_a_setting_is_warned_of_once(load_with: Load, name: str, meant: str) -> None:
    (warning,) = load_with({name: "8443"}).warnings
    assert warning.startswith(f"{name} is not a setting")
    assert f"did you mean {meant}?" in warning


def test_a_misspelt_name_explains_a_missing_setting(load_with: Load) -> None:
    with pytest.raises(SettingsError) as caught:
        load_with({"GATEWAY_DATABASE_URL": "x"}, without=("GATEWAY_DATABASE__URL",))
    assert len(caught.value.problems) == 1
    assert str(caught.value).splitlines()[1].startswith("warning: GATEWAY_DATABASE_URL is not a setting")


def test_names_that_kubernetes_injects_are_ignored(load_with: Load) -> None:
    address = "tcp://10.96.0.7"
    injected = {
        "GATEWAY_PORT": f"{address}:80",
        "GATEWAY_SERVICE_HOST": "10.96.0.7",
        "GATEWAY_SERVICE_PORT": "80",
        "GATEWAY_SERVICE_PORT_HTTP": "80",
        "GATEWAY_PORT_80_TCP": f"{address}:80",
        "GATEWAY_PORT_80_TCP_ADDR": "10.96.0.7",
        "GATEWAY_PORT_80_TCP_PORT": "80",
        "GATEWAY_PORT_80_TCP_PROTO": "tcp",
        "GATEWAY_SERVER_PORT": f"{address}:80",
        "GATEWAY_REDIS_PORT_6379_TCP": f"{address}:6379",
        "GATEWAY_REDIS_SERVICE_HOST": "10.96.0.9",
        "GATEWAY_IMAGE_TAG": "1.2.3",
        "GATEWAY_EXTRA__THING": "x",
    }
    settings = load_with(injected)
    assert settings.warnings == ()
    assert settings.server.port == 8080


@pytest.mark.parametrize("setting", FIELDS)
def test_every_setting_can_come_from_a_file(
    problems_with: Problems, tmp_path: Path, setting: str, required: dict[str, str]
) -> None:
    """A path that does not exist shows that the name with _FILE is understood for this setting."""
    name = environment_name(setting)
    (problem,) = problems_with({f"{name}_FILE": str(tmp_path / "none")}, without=(name,))
    assert (problem.setting, problem.source) == (setting, f"environment {name}_FILE")
    assert "No such file" in problem.message


def test_a_secret_where_a_path_belongs_is_not_printed(problems_with: Problems) -> None:
    secret = "/b5vQ2wXe9rTt7yUu1iOo3pAa8sDd6f4"
    (problem,) = problems_with({"GATEWAY_METRICS__TOKEN_FILE": secret})
    assert secret not in str(problem)
    (problem,) = problems_with({"GATEWAY_SERVER__PORT_FILE": "/no/such/file"})
    assert "/no/such/file" in problem.message


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_one_final_newline_of_a_value_file_is_dropped(load_with: Load, tmp_path: Path, ending: str) -> None:
    value = "Nb5 vQ2w Xe9r Tt7y Uu1i Oo3p Aa8s Dd6f "
    path = tmp_path / "token"
    path.write_bytes((value + ending).encode())
    settings = load_with({"GATEWAY_METRICS__TOKEN_FILE": str(path)})
    assert settings.metrics.token is not None
    assert settings.metrics.token.get_secret_value() == value


def test_only_one_newline_is_dropped(load_with: Load, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("Nb5vQ2wXe9rTt7yUu1iOo3pAa8sDd6f4\n\n")
    token = load_with({"GATEWAY_METRICS__TOKEN_FILE": str(path)}).metrics.token
    assert token is not None
    assert token.get_secret_value().endswith("4\n")


def test_lists_come_from_files_too(load_with: Load, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("Nb5vQ2wXe9rTt7yUu1iOo3pAa8sDd6f4,\nPo2iUy4tRe6wQa8sDf0gHj1kLz3xCv5b\n")
    settings = load_with(
        {"GATEWAY_SECRETS__MASTER_KEYS_FILE": str(path)}, without=("GATEWAY_SECRETS__MASTER_KEYS",)
    )
    assert [key.get_secret_value()[:3] for key in settings.secrets.master_keys] == ["Nb5", "Po2"]


@pytest.mark.parametrize(
    ("content", "words"), [(b"\xff" * 40, "not UTF-8"), (b"a" * 65_537, "larger than 65536 bytes")]
)
def test_value_files_that_cannot_be_used(
    problems_with: Problems, tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "value"
    path.write_bytes(content)
    (problem,) = problems_with({"GATEWAY_METRICS__TOKEN_FILE": str(path)})
    assert words in problem.message


def test_a_directory_is_no_value_file(problems_with: Problems, tmp_path: Path) -> None:
    (problem,) = problems_with({"GATEWAY_METRICS__TOKEN_FILE": str(tmp_path)})
    assert "directory" in problem.message


def test_set_both_ways_is_a_problem(problems_with: Problems, tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("redis://other")
    (problem,) = problems_with({"GATEWAY_REDIS__URL_FILE": str(path)})
    assert problem.setting == "redis.url"
    assert "remove GATEWAY_REDIS__URL or GATEWAY_REDIS__URL_FILE" in problem.message


def test_an_empty_variable_leaves_the_file_variable_alone(load_with: Load, tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("redis://other\n")
    settings = load_with({"GATEWAY_REDIS__URL": "", "GATEWAY_REDIS__URL_FILE": str(path)})
    assert settings.redis.url == "redis://other"


def test_empty_text_is_not_set_but_a_required_setting_cannot_be_empty(problems_with: Problems) -> None:
    toml = "[secrets]\nkey_pepper = ['Nb5vQ2wXe9rTt7yUu1iOo3pAa8sDd6f4']\n"
    (problem,) = problems_with({"GATEWAY_SECRETS__KEY_PEPPER": "", "GATEWAY_SERVER__PORT": ""}, toml)
    assert problem.setting == "secrets.key_pepper"
    assert "set to nothing" in problem.message


@pytest.mark.parametrize(
    ("toml", "warned"),
    [
        ("[metrics]\ntoken = 'Nb5vQ2wXe9rTt7yUu1iOo3pAa8sDd6f4'\n", "metrics.token"),
        ("[redis]\nurl = 'redis://:hunter2hunter2@h'\n", "redis.url"),
        ("[redis]\nurl = 'redis://h'\n", None),
    ],
)
def test_secrets_in_the_file_work_and_are_warned_of(load_with: Load, toml: str, warned: str | None) -> None:
    warnings = load_with(toml=toml).warnings
    assert len(warnings) == (warned is not None)
    for warning in warnings:
        assert warned is not None
        assert warned in warning
        assert environment_name(warned) + "_FILE" in warning
        assert "hunter2" not in warning
        assert "Nb5" not in warning
