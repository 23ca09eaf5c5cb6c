"""The file systems of an image, mounted in its sandbox."""

from __future__ import annotations

from collections.abc import Callable

from pytest_azchroot.errors import SandboxError
from pytest_azchroot.sandbox import Sandbox, discover
from pytest_azchroot.spec import ImageSpec

_NOT_UNMOUNTED = (
    "it was not unmounted before this copy of it was made, as in a snapshot of a running machine, and it is only read "
    "here; `azchroot shell --write FILE -- true` mounts it once and unmounts it"
)


def mount(
    sandbox: Sandbox,
    spec: ImageSpec,
    *,
    path: str,
    render: Callable[[str], str],
    wrap: Callable[[str], str],
    sealed: bool,
) -> None:
    """Mount the image: by its own command if it has one, else as it is found in it.

    :param path: where, in the sandbox.
    :param render: gives a template of image.yaml its value.
    :param wrap: puts ``command_wrapper`` around a command.
    :param sealed: it can only be read.
    :raises SandboxError: no root is found, or a file system cannot be mounted.
    """
    if spec.manual_mount_command:
        sandbox.mount_manually(wrap(render(spec.manual_mount_command)), path=path)
        return
    plan = discover.plan(
        sandbox,
        partition=spec.mount_partition,
        lvm_root_device=spec.lvm_root_device,
        options=spec.mount_options,
    )
    try:
        discover.mount_all(sandbox, plan, path=path, options=spec.mount_options, wrapper=wrap)
    except SandboxError as error:
        unclean = any(words in (error.why or "") for words in ("read-only", "write-protected"))  # mount(8), EROFS
        if sealed and error.hint is None and unclean:
            raise SandboxError(error.what, why=error.why, hint=_NOT_UNMOUNTED) from error
        raise
