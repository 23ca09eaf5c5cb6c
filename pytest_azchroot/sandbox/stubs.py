"""Programs that stand before the image's own while steps run: they start no service, and put an initramfs off.

They are in a directory of the sandbox's own, first in PATH; nothing of the image is replaced, so that the packages it
comes from can be upgraded. systemctl(1) needs none: it starts nothing where SYSTEMD_OFFLINE is set.

Some look elsewhere than in PATH. For these a file is put into the image where it has none of its own (:mod:`.loans`):
invoke-rc.d(8) asks ``/usr/sbin/policy-rc.d``, apt gives dpkg a PATH (``DPkg::Path`` in apt.conf(5)), and rpm gives its
scriptlets one.

This is pure text; the holder writes it down.
"""

from __future__ import annotations

from dataclasses import dataclass

DIRECTORY = "/run/azchroot-stubs"
"""Where they are in the image."""
DEFERRED = f"{DIRECTORY}/deferred"
"""What has been put off: a command a line."""

_BETWEEN_WORDS = "\037"  # ASCII's unit separator

_SYSTEM = "/usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin"

_HEAD = """#!/bin/sh
# Lent by azchroot while an image is built.
"""
_REST = f"""
for directory in {_SYSTEM}; do
    [ -x "$directory/${{0##*/}}" ] && exec "$directory/${{0##*/}}" "$@"
done
echo "${{0##*/}}: not found" >&2
exit 127
"""
_NOTE = """        echo "azchroot: not while an image is built: ${0##*/} $*" >&2
        exit 0
"""

_START_STOP_DAEMON = f"""{_HEAD}
for each in "$@"; do
    case $each in --start | -S* | -[!-]*S*)
{_NOTE}        ;;
    esac
done
{_REST}"""

_SERVICE = f"""{_HEAD}
for each in "$@"; do
    case $each in start | restart | reload | force-reload | try-restart | condrestart)
{_NOTE}        ;;
    esac
done
{_REST}"""

_INITRAMFS = f"""{_HEAD}
for each in "$@"; do
    case $each in -d | --delete | -h | --help | -V | --version | --list-modules | --print-cmdline)
        now=yes
        ;;
    esac
done
if [ -z "$now" ]; then
    {{ printf %s "${{0##*/}}"; [ $# = 0 ] || printf '\\037%s' "$@"; echo; }} >> {DEFERRED}
    echo "azchroot: put off until the image is closed: ${{0##*/}} $*" >&2
    exit 0
fi
{_REST}"""

_POLICY = f"""{_HEAD}
exit 101
"""

SERVICES = {
    "start-stop-daemon": _START_STOP_DAEMON,
    "service": _SERVICE,
    "rc-service": _SERVICE,
    "initctl": _SERVICE,
}
INITRAMFS = {"update-initramfs": _INITRAMFS, "dracut": _INITRAMFS}


@dataclass(frozen=True)
class Placeholder:
    """A file that is put into the image if it has none of its own, and a directory that makes it useful."""

    path: str
    content: str
    mode: int
    where: str


_PATH_OF_APT = "/usr/sbin:/usr/bin:/sbin:/bin"
_PATH_OF_RPM = "/sbin:/bin:/usr/sbin:/usr/bin"
POLICY = Placeholder("/usr/sbin/policy-rc.d", _POLICY, 0o755, "/var/lib/dpkg")
PATHS = (
    Placeholder(
        "/etc/apt/apt.conf.d/00azchroot", f'DPkg::Path "{DIRECTORY}:{_PATH_OF_APT}";\n', 0o644, "/etc/apt/apt.conf.d"
    ),
    Placeholder("/etc/rpm/macros.azchroot", f"%_install_script_path {DIRECTORY}:{_PATH_OF_RPM}\n", 0o644, "/etc/rpm"),
)


def programs(*, deny_services: bool, defer_initramfs: bool) -> dict[str, str]:
    """Name → content."""
    return {**(SERVICES if deny_services else {}), **(INITRAMFS if defer_initramfs else {})}


def placeholders(*, deny_services: bool) -> tuple[Placeholder, ...]:
    """What goes with :func:`programs`."""
    return (*PATHS, POLICY) if deny_services else PATHS


def deferred(text: str) -> list[list[str]]:
    """The commands to make up for, each once, in the order of their last mention."""
    lines = dict.fromkeys(reversed(text.split("\n")))
    return [line.split(_BETWEEN_WORDS) for line in reversed(lines) if line]
