"""Running a tool of the build machine that must not outlive us."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence

# prctl(PR_SET_PDEATHSIG, SIGKILL): the kernel ends the tool when the thread that started it is gone, as after
# kill -9. The signal is not sent for a parent that died before the call, hence the second look. A process of its
# own does it because code between fork and exec (preexec_fn) may deadlock where there are threads.
_LAUNCHER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(ctypes.c_int(1), ctypes.c_ulong(9))
if os.getppid() != int(sys.argv[1]): sys.exit(1)
try: os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error: sys.exit(f"{sys.argv[2]}: {error.strerror}")
"""


def run(
    argv: Sequence[str], *, pass_fds: Sequence[int] = (), hear: Callable[[bytes], None] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end and return what it wrote; it is not checked.

    The command sees no environment but PATH and speaks the C locale. It ends with us: on any exception (Ctrl-C) it is
    killed and waited for, and the kernel kills it when we are. It is in a session of its own, so that Ctrl-C on a
    terminal reaches us alone.

    :param hear: gets each piece of standard output as it comes.
    """
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *argv]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    output = bytearray()
    # Errors go to a file: two pipes would need two readers. In memory: what the tool says may be that a disk is full.
    with open(os.memfd_create("errors"), "w+b") as errors:
        process = subprocess.Popen(
            launcher,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
            pass_fds=pass_fds,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            while piece := process.stdout.read(65536):
                output += piece
                if hear is not None:
                    hear(piece)
            process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        errors.seek(0)
        return subprocess.CompletedProcess(list(argv), process.returncode, bytes(output), errors.read())
