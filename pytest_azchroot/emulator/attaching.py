"""Attaching and detaching: from a plan to the model, the disks and the devices."""

from __future__ import annotations

import time
import uuid

from . import datadisks, errors
from .azure import Azure, section
from .datadisks import Plan, Wish, disk_id
from .devices import DeviceBusyError
from .errors import ArmError
from .operations import COMPUTE, Work, now
from .state import Json, Resource
from .store import GIB, new_name
from .tiers import performance

_BUSY_POLL = 0.1


def entries(machine: Resource) -> list[Json]:
    """The data disks in a machine's model."""
    found: list[Json] = machine.properties["storageProfile"].setdefault("dataDisks", [])
    return found


def begun(azure: Azure, machine: Resource, plan: Plan, *, kind: str, state: str = "Updating") -> tuple[Resource, str]:
    """Write the goal into the model and begin to work on it; returns the machine and the operation.

    :raises ArmError: a disk cannot be attached.
    """
    disks = [(wish, _attachable(azure, wish, machine)) for wish in plan.add]
    model = [_marked(entry, plan) for entry in entries(machine)]
    model += [_entry(wish, disk) for wish, disk in disks]
    machine.properties["storageProfile"]["dataDisks"] = model
    machine.properties["provisioningState"] = state
    for wish, disk in disks:
        disk.body["managedBy"] = machine.id
        disk.hidden["lun"] = wish.lun
        azure.state.put(disk)
    underway = {} if plan.forced else _underway(machine)
    remove = [
        {"disk": key, "lun": entry["lun"], "force": key in plan.forced}
        for entry in model
        if (key := disk_id(entry).lower()) in plan.remove and key not in underway
    ]
    add = [{"disk": wish.key, "lun": wish.lun} for wish in plan.add]
    arguments = {"vm": machine.key, "add": add, "remove": remove}
    name = azure.operations.submit(kind, machine.id, arguments, segment=COMPUTE, location=machine.body["location"])
    machine.hidden["running"] = [*machine.hidden.get("running", []), name]
    machine.hidden["leaving"] = {**_underway(machine), **{each["disk"]: name for each in remove}}
    return azure.state.put(machine), name


def _underway(machine: Resource) -> dict[str, str]:
    """Disks that an operation takes away already, and its name."""
    running = machine.hidden.get("running", [])
    return {key: name for key, name in machine.hidden.get("leaving", {}).items() if name in running}


def with_disk(azure: Azure, machine: Resource, entry: Json) -> Json:
    """An entry of a PUT, with its disk made where it says ``Empty``.

    :raises ArmError: it names no disk.
    """
    if datadisks.is_leaving(entry) or disk_id(entry):
        if datadisks.is_leaving(entry) and not disk_id(entry):
            return {**entry, "managedDisk": {"id": _named(machine, entry.get("name"))}}
        return entry
    if known := _named(machine, entry.get("name")):
        return {**entry, "managedDisk": {"id": known}}
    if str(entry.get("createOption") or "").lower() != "empty":
        raise errors.missing("dataDisk.managedDisk.id")
    gigabytes = entry.get("diskSizeGB")
    if not isinstance(gigabytes, int) or gigabytes < 1:
        raise errors.missing("dataDisk.diskSizeGB")
    return {**entry, "managedDisk": {"id": _made_empty(azure, machine, entry, gigabytes).id}}


def _named(machine: Resource, name: object) -> str:
    return next((disk_id(each) for each in entries(machine) if each["name"] == name), "")


def _made_empty(azure: Azure, machine: Resource, entry: Json, gigabytes: int) -> Resource:
    name = str(entry.get("name") or f"{machine.name}_disk_{uuid.uuid4().hex}")
    id_ = f"{machine.id.rsplit('/', 2)[0]}/disks/{name}"
    if azure.state.get(id_) is not None:
        text = (
            f"Disk {name} already exists in resource group {id_.split('/')[4]}. Only CreateOption.Attach is supported."
        )
        raise ArmError(409, "ConflictingUserInput", text, "/dataDisks")
    sku = section(entry, "managedDisk").get("storageAccountType") or "Standard_LRS"
    file = new_name()
    azure.store.create(file, gigabytes * GIB)
    properties = {
        "creationData": {"createOption": "Empty"},
        "diskSizeGB": gigabytes,
        "diskSizeBytes": gigabytes * GIB,
        "provisioningState": "Succeeded",
        "diskState": "Unattached",
        "timeCreated": now(),
        "uniqueId": str(uuid.uuid4()),
        "encryption": {"type": "EncryptionAtRestWithPlatformKey"},
        "networkAccessPolicy": "AllowAll",
        "publicNetworkAccess": "Enabled",
        **performance(sku, gigabytes),
    }
    body = {
        "name": name,
        "id": id_,
        "type": "Microsoft.Compute/disks",
        "location": machine.body["location"],
        "tags": {},
        "sku": {"name": sku, "tier": sku.split("_")[0].removesuffix("SSD")},
        "properties": properties,
    }
    return azure.state.put(Resource(id_, "disks", body, {"file": file, "ready": True}))


def _attachable(azure: Azure, wish: Wish, machine: Resource) -> Resource:
    disk = azure.resource(wish.disk)
    if disk.kind != "disks":
        raise errors.invalid("dataDisk.managedDisk.id", wish.disk)
    owner = disk.body.get("managedBy")
    if owner:
        raise errors.owned(disk.id, owner)
    if disk.properties.get("diskState") in {"ActiveSAS", "ActiveUpload"}:
        raise errors.lent("disk", disk.name)
    if not disk.hidden.get("ready"):
        raise errors.busy("disk", disk.name)
    _check_place(disk, machine)
    return disk


def _check_place(disk: Resource, machine: Resource) -> None:
    """:raises ArmError: they are apart."""
    start = f"Disk {disk.id} cannot be attached to the VM because it is not in"
    here, there = disk.body["location"], machine.body["location"]
    if here != there:  # worded after the refusals below; unsure
        text = f"{start} the same location as the VM. VM location: '{there}'. Disk location: '{here}'."
        raise ArmError(400, "BadRequest", text)
    zone, other = ((each.body.get("zones") or [""])[0] for each in (machine, disk))
    if zone == other or str(disk.body["sku"]["name"]).endswith("_ZRS"):
        return
    if not other:  # jrudlin/Azure#7
        raise ArmError(400, "BadRequest", f"{start} zone '{zone}'.")
    # jenkins-infra/azure#1406; unsure where the machine has none
    raise ArmError(400, "BadRequest", f"{start} the same zone as the VM. VM zone: '{zone}'. Disk zone: '{other}'.")


def _marked(entry: Json, plan: Plan) -> Json:
    key = disk_id(entry).lower()
    if key in plan.remove:
        return {**entry, "toBeDetached": True}
    options = next((wish.options for wish in plan.change if wish.key == key), {})
    return {**entry, **options}


def _entry(wish: Wish, disk: Resource) -> Json:
    return {
        "lun": wish.lun,
        "name": disk.name,
        "createOption": "Attach",
        "caching": "None",
        "writeAcceleratorEnabled": False,
        "managedDisk": {"storageAccountType": disk.body["sku"]["name"], "id": disk.id},
        "deleteOption": "Detach",
        "diskSizeGB": disk.properties["diskSizeGB"],
        "toBeDetached": False,
        **wish.options,
    }


# -- what the operation does


def work(azure: Azure) -> Work:
    """Of an update of a machine, whatever asked for it."""
    return Work(
        effect=lambda arguments: _move(azure, arguments),
        finish=lambda arguments: _settle(azure, arguments, failed=False),
        failed=lambda arguments, error: _give_up(azure, arguments),
        late=True,
    )


def _is_here(azure: Azure, arguments: Json) -> bool:
    return bool(arguments["vm"] == azure.settings.machine_id.lower()) and not arguments.get("noDevice")


def _move(azure: Azure, arguments: Json) -> None:
    """Take devices away, then make others. One that fails does not keep the others."""
    if not _is_here(azure, arguments):
        return
    problems: list[ArmError] = []
    for each in arguments["remove"]:
        try:
            _take_away(azure, arguments["vm"], each)
        except ArmError as error:
            problems.append(error)
    for each in arguments["add"]:
        # With the state held still: who asks for the disk's detachment meanwhile finds the device there, or the
        # entry marked before it is made.
        with azure.state.change():
            if _is(azure, arguments["vm"], each, leaving=False):
                disk = azure.resource(each["disk"])
                azure.devices.attach(each["lun"], azure.store.path(disk.hidden["file"]))
    if problems:
        raise problems[0]


def _is(azure: Azure, vm: str, part: Json, *, leaving: bool) -> bool:
    """Whether the model still says what the operation began with: a later one may have changed it."""
    machine = azure.state.get(vm)
    return machine is not None and any(
        disk_id(entry).lower() == part["disk"]
        and entry["lun"] == part["lun"]
        and datadisks.is_leaving(entry) == leaving
        for entry in entries(machine)
    )


def _take_away(azure: Azure, vm: str, part: Json) -> None:
    """:raises ArmError: somebody has the device open, for longer than we wait."""
    deadline = time.monotonic() + azure.settings.profile.detach_patience
    while True:
        try:
            with azure.state.change():
                if _is(azure, vm, part, leaving=True):
                    azure.devices.detach(part["lun"])
            return
        except DeviceBusyError as error:
            if part["force"]:
                _tear_away(azure, part)
                return
            if time.monotonic() > deadline or azure.operations.wait(_BUSY_POLL):
                raise errors.stuck(part["disk"].rsplit("/", 1)[-1], str(error)) from error


def _tear_away(azure: Azure, part: Json) -> None:
    """ForceDetach: the disk goes on with what has reached it; what the machine still writes does not count."""
    with azure.state.change():
        disk = azure.resource(part["disk"])
        old, new = disk.hidden["file"], new_name()
        azure.store.duplicate(old, new)
        disk.hidden["file"] = new
        azure.state.put(disk)
    azure.devices.abandon(part["lun"])
    azure.store.remove(old)


def _settle(azure: Azure, arguments: Json, *, failed: bool) -> Json:
    """Write into model and disks what has become of them; returns the storage profile.

    :param failed: go by the devices that are there, not by what was asked for.
    """
    machine = azure.resource(arguments["vm"])
    vm = machine.key
    gone = [each for each in arguments["remove"] if not (failed and azure.devices.node(each["lun"]))]
    gone = [each for each in gone if _is(azure, vm, each, leaving=True)]
    came = [each for each in arguments["add"] if not failed or azure.devices.node(each["lun"])]
    lost = [each for each in arguments["add"] if each not in came and _is(azure, vm, each, leaving=False)]
    dropped = {each["disk"] for each in (*gone, *lost)}
    machine.properties["storageProfile"]["dataDisks"] = [
        entry for entry in entries(machine) if disk_id(entry).lower() not in dropped
    ]
    for key in dropped:
        disk = azure.state.get(key)
        if disk is not None and disk.body.get("managedBy", "").lower() == vm:
            freed(azure, disk)
    for each in came:
        disk = azure.state.get(each["disk"])
        if disk is not None and disk.body.get("managedBy", "").lower() == machine.key:
            disk.properties["diskState"] = "Attached"
            azure.state.put(disk)
    running = [name for name in machine.hidden.get("running", []) if name != arguments["operation"]]
    machine.hidden["running"] = running
    machine.properties["provisioningState"] = "Failed" if failed else "Updating" if running else "Succeeded"
    profile: Json = azure.state.put(machine).properties["storageProfile"]
    return profile


def _give_up(azure: Azure, arguments: Json) -> None:
    _settle(azure, arguments, failed=True)


def freed(azure: Azure, disk: Resource) -> None:
    """The disk belongs to no machine any more."""
    disk.body.pop("managedBy", None)
    disk.hidden.pop("lun", None)
    disk.properties["diskState"] = "Unattached"
    azure.state.put(disk)
