"""Turns itself into an embedded server: gives up root if asked to, ties its life to its parent's, then executes it.

Run as a script: `python -I -S embedded_child.py SIGNAL PARENT UID GID PROGRAM [ARGUMENT…]`.
UID -1 keeps the user, SIGNAL 0 ties nothing. A script and not a `preexec_fn`, which Python runs between fork
and exec, where other threads' locks may be held for ever.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def become_server(signal: int, parent: int, uid: int, gid: int, program: list[str]) -> None:
    """Replace this process by `program`; returns only by raising OSError."""
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # After the change of user, because the kernel forgets the wish at that moment.
    if signal and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal)
        if os.getppid() != parent:  # the parent died before the wish was registered
            sys.exit(1)
    os.execv(program[0], program)  # noqa: S606


if __name__ == "__main__":
    end_with_parent, parent_pid, user, group = map(int, sys.argv[1:5])
    become_server(end_with_parent, parent_pid, user, group, sys.argv[5:])
