"""Lines of /proc, and trees made of them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks.compare.proc import Stat, busy_seconds, cpu_seconds, parse_busy, parse_stat, tree

LINE = "4242 (a (b) c) S 7 4242 4242 0 -1 4194560 100 200 0 0 31 12 5 3 20 0 9 0 1000 9000000 2048 184467440"


def test_stat_of_a_process_with_an_odd_name() -> None:
    assert parse_stat(LINE) == Stat(pid=4242, parent=7, cpu=43, ended=8, resident=2048)


def test_busy_has_stolen_time_and_neither_waiting_nor_interrupts() -> None:
    text = "cpu  100 20 30 5000 700 1 2 40 9 9\ncpu0 1 2 3 4 5 6 7 8 9 10\n"
    assert parse_busy(text) == 100 + 20 + 30 + 40


def test_tree_has_children_of_children_only() -> None:
    known = {pid: Stat(pid, parent, 0, 0, 0) for pid, parent in {1: 0, 10: 1, 11: 10, 12: 11, 20: 1}.items()}
    assert {one.pid for one in tree(10, known)} == {10, 11, 12}
    assert tree(99, known) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_time_of_a_child_that_has_ended_stays() -> None:
    before, busy = cpu_seconds([os.getpid()]), busy_seconds()
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert cpu_seconds([os.getpid()]) - before >= 0.25
    assert busy_seconds() - busy >= 0.25
