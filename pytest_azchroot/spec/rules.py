"""What options must be to each other. Pure: a spec in, what is wrong with it out.

The rules of azure-chroot, and those that its documents state and its code does not check.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pytest_azchroot.spec import azure_ids
from pytest_azchroot.spec.model import ImageSpec
from pytest_azchroot.spec.problems import Place, near

OUTPUT_SUFFIXES = (".vhd", ".raw", ".vhdx", ".qcow2")


@dataclass(frozen=True)
class Broken:
    """A rule that a spec breaks."""

    place: Place
    message: str
    hint: str | None = None
    about: tuple[str, ...] = ()
    """Other options that the rule looked at: where one of them is wrong itself, the rule says nothing."""


@dataclass(frozen=True)
class Subject:
    """What rules look at."""

    spec: ImageSpec
    given: frozenset[str]
    """Options that somebody gave, even if with their default."""
    pending: frozenset[Place]
    """Texts that are still templates with unknown values."""
    directory: Path


Rule: TypeAlias = Callable[[Subject], Iterator[Broken]]


def broken_rules(subject: Subject) -> list[Broken]:
    """Every rule that the spec breaks: those for all clouds and those for its own."""
    rules = (*_COMMON, *_BY_CLOUD.get(subject.spec.cloud, ()))
    return [broken for rule in rules for broken in rule(subject)]


def _from_scratch(subject: Subject) -> Iterator[Broken]:
    spec = subject.spec
    if not spec.from_scratch:
        return
    scratch = ("from_scratch",)
    if spec.source is not None:
        yield Broken(("source",), "cannot be set together with from_scratch", "remove one of them", scratch)
    if spec.os_disk_size_gb == 0:
        yield Broken(("os_disk_size_gb",), "is required with from_scratch", "the disk's size in GiB", scratch)
    if not spec.pre_mount_commands:
        message = "is required with from_scratch"
        yield Broken(("pre_mount_commands",), message, "an empty disk must be partitioned and filled", scratch)
    if spec.lvm_root_device is not None:
        message = "cannot be set together with from_scratch"
        hint = "it is found, if pre_mount_commands have deactivated its volume group in the end: vgchange -an"
        yield Broken(("lvm_root_device",), message, hint, scratch)


def _root_device(subject: Subject) -> Iterator[Broken]:
    spec = subject.spec
    if spec.lvm_root_device is not None and spec.mount_partition is not None:
        message = "has no effect together with lvm_root_device"
        yield Broken(("mount_partition",), message, "remove one of them", ("lvm_root_device",))
    if spec.manual_mount_command is not None:
        for name in ("lvm_root_device", "mount_options", "mount_partition"):
            if name in subject.given and getattr(spec, name) not in (None, ()):
                message = "has no effect together with manual_mount_command"
                yield Broken((name,), message, "say it in that command", ("manual_mount_command",))


def _local_source(subject: Subject) -> Iterator[Broken]:
    if subject.spec.source is None and not subject.spec.from_scratch:
        yield Broken(
            ("source",),
            "is required, unless from_scratch is true",
            "the path of a disk file, relative to the image's directory",
            ("from_scratch",),
        )
    elif subject.spec.source is not None and _looks_like_azure(subject.spec.source):
        message = f"{subject.spec.source!r} is Azure's name of an image, and this is built on local"
        yield Broken(("source",), message, "give each cloud its own, under clouds:")


def _local_output(subject: Subject) -> Iterator[Broken]:
    spec = subject.spec
    if not spec.output and not spec.skip_create_image:
        hint = "the path of a .vhd, .raw, .vhdx or .qcow2 file, relative to the image's directory"
        yield Broken(("output",), "is required, unless skip_create_image is true", hint, ("skip_create_image",))
    seen: dict[str, str] = {}
    for index, text in enumerate(spec.output):
        place: Place = ("output", index) if len(spec.output) > 1 else ("output",)
        suffix = os.path.splitext(text)[1]
        if suffix not in OUTPUT_SUFFIXES:
            meant = near(suffix, OUTPUT_SUFFIXES)
            advice = None if meant is None else f"did you mean {meant}?"
            yield Broken(place, f"{text!r} does not end in {', '.join(OUTPUT_SUFFIXES)}", advice)
        path = os.path.normpath(subject.directory / text)
        if path in seen:
            yield Broken(place, f"{text!r} is the same file as {seen[path]!r}")
        seen.setdefault(path, text)
        if spec.source is not None and path == os.path.normpath(subject.directory / spec.source):
            yield Broken(place, f"{text!r} is the source itself", None, ("source",))


def _azure_source(subject: Subject) -> Iterator[Broken]:
    source = subject.spec.source
    if source is None:
        if not subject.spec.from_scratch:
            hint = azure_ids.SOURCE_FORMS
            yield Broken(("source",), "is required, unless from_scratch is true", hint, ("from_scratch",))
    elif ("source",) not in subject.pending:
        try:
            azure_ids.parse_source(source)
        except ValueError as error:
            yield Broken(("source",), f"{source!r} names nothing on Azure: {error}", f"give {azure_ids.SOURCE_FORMS}")


def _azure_destination(subject: Subject) -> Iterator[Broken]:
    spec = subject.spec
    if spec.image_resource_id is None and spec.shared_image_destination is None and not spec.skip_create_image:
        yield Broken(
            ("image_resource_id",),
            "this or shared_image_destination is required, unless skip_create_image is true",
            "say what to publish",
            ("shared_image_destination", "skip_create_image"),
        )


_CREDENTIALS = ("client_secret", "client_cert_path", "client_jwt", "oidc_request_token")


def _azure_credentials(subject: Subject) -> Iterator[Broken]:
    spec = subject.spec
    given = [name for name in _CREDENTIALS if getattr(spec, name) is not None]
    for name in given[1:]:
        yield Broken((name,), f"cannot be set together with {given[0]}", "one of them says who you are", (given[0],))
    for name, other in (("oidc_request_token", "oidc_request_url"), ("oidc_request_url", "oidc_request_token")):
        if getattr(spec, name) is not None and getattr(spec, other) is None:
            yield Broken((other,), f"is required with {name}", None, (name,))
    if spec.client_cert_password is not None and spec.client_cert_path is None:
        yield Broken(("client_cert_password",), "has no effect without client_cert_path", None, ("client_cert_path",))
    if spec.use_azure_cli_auth:
        for name in (*given, "client_id"):
            if getattr(spec, name) is not None:
                message = "cannot be set together with use_azure_cli_auth"
                yield Broken((name,), message, "the login of the Azure CLI is used", ("use_azure_cli_auth",))
        return
    if given:
        # Not subscription_id, which azure-chroot wants too: the build machine's own is known.
        if spec.client_id is None:
            hint = "the application's id, which its secret belongs to"
            yield Broken(("client_id",), f"is required with {given[0]}", hint, (given[0],))
    elif spec.tenant_id is not None and spec.oidc_request_url is None:
        message = "says where to log in, but nothing says as whom"
        hint = f"add {', '.join(_CREDENTIALS)} or use_azure_cli_auth"
        yield Broken(("tenant_id",), message, hint, (*_CREDENTIALS, "use_azure_cli_auth"))


AZURE_ENVIRONMENTS = {
    "Public": ("Public", "PublicCloud", "AzurePublicCloud", "AzureCloud"),
    "China": ("China", "ChinaCloud", "AzureChinaCloud"),
    "USGovernment": ("USGovernment", "USGovernmentCloud", "AzureUSGovernmentCloud", "AzureUSGovernment"),
}
"""Azure's clouds, and the names by which Packer and Azure's tools call each."""


def _azure_environment(subject: Subject) -> Iterator[Broken]:
    name = subject.spec.cloud_environment_name
    if name is None or subject.spec.metadata_host is not None or ("cloud_environment_name",) in subject.pending:
        return
    known = {alias for aliases in AZURE_ENVIRONMENTS.values() for alias in aliases}
    if name not in known:
        meant = near(name, known)
        hint = f"one of {', '.join(AZURE_ENVIRONMENTS)}" if meant is None else f"did you mean {meant}?"
        yield Broken(("cloud_environment_name",), f"{name!r} is no Azure that is known", hint, ("metadata_host",))


def _looks_like_azure(text: str) -> bool:
    try:
        azure_ids.parse_source(text)
    except ValueError:
        return False
    return True


_COMMON: tuple[Rule, ...] = (_from_scratch, _root_device)
_BY_CLOUD: dict[str, tuple[Rule, ...]] = {
    "local": (_local_source, _local_output),
    "azure": (_azure_source, _azure_destination, _azure_credentials, _azure_environment),
}
