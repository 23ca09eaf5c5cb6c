"""Which cloud acts on which option."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_azchroot.spec.model import Options

COMMON = frozenset(
    {
        "cloud",
        "command_wrapper",
        "pre_mount_commands",
        "manual_mount_command",
        "mount_options",
        "mount_partition",
        "mount_path",
        "post_mount_commands",
        "chroot_mounts",
        "copy_files",
        "lvm_root_device",
        "pre_unmount_commands",
        "deny_services",
        "defer_initramfs",
        "fast_sync",
        "unconfined",
        "metadata_service",
        "resolv_conf",
        "command_timeout",
        "checks",
        "verify_writes",
        "verify_network",
    }
)
"""Options that every build acts on, whatever its cloud."""

_LOCAL_ONLY = frozenset({"output"})

BUILTIN_CLOUDS: Mapping[str, frozenset[str]] = {
    "local": frozenset({"source", "output", "from_scratch", "os_disk_size_gb", "skip_create_image"}),
    "azure": frozenset(Options.model_fields) - COMMON - _LOCAL_ONLY,
}
"""The clouds that come along, and the options each acts on beyond the common ones."""


def clouds_of(option: str, clouds: Mapping[str, frozenset[str]]) -> list[str]:
    """The clouds that act on an option."""
    return sorted(name for name, options in clouds.items() if option in options | COMMON)
