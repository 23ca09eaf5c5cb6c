"""Virtual machines as resources. What their data disks do is in :mod:`.attaching`."""

from __future__ import annotations

import uuid

from . import attaching, datadisks, errors
from .attaching import entries
from .azure import Azure, Call, Routes, begin, items, listed, require_group, section
from .datadisks import Plan
from .disks import delete as delete_disk
from .http import Response
from .operations import COMPUTE, Work, now
from .paths import parse
from .sizes import size
from .state import Json, Resource

KIND = "virtualmachines"
TYPE = "Microsoft.Compute/virtualMachines"
UPDATE = "virtualMachines.update"
_NO_ATTACH = 8
"""Data disks of a size that we do not know."""


def get(azure: Azure, call: Call) -> Response:
    """A machine, with its etag; its power state with ``$expand=instanceView``."""
    require_group(azure, call.path)
    found = azure.resource(call.path.text)
    body = shown(found)
    if call.expands("instanceView"):
        body["properties"]["instanceView"] = _instance_view(found)
    return Response.of_json(200, body, {"ETag": body["etag"]})


def shown(machine: Resource) -> Json:
    """What clients see of a machine."""
    return {**machine.body, "etag": f'"{machine.etag}"'}


def put(azure: Azure, call: Call) -> Response:
    """Make a machine, or change one that is there. Without ``storageProfile`` its data disks stay."""
    old = azure.state.get(call.path.text)
    _check_conditions(call, old)
    body = begin(azure, call, type_=TYPE)
    if old is None:
        return _create(azure, call, body)
    return _update(azure, call, old, tags=call.body.get("tags"))


def patch(azure: Azure, call: Call) -> Response:
    """Change a machine; a list of data disks replaces the one that is there."""
    require_group(azure, call.path)
    old = azure.resource(call.path.text)
    _check_conditions(call, old)
    return _update(azure, call, old, tags=call.body.get("tags"))


def _check_conditions(call: Call, old: Resource | None) -> None:
    wanted, unwanted = call.request.header("If-Match"), call.request.header("If-None-Match")
    etag = None if old is None else f'"{old.etag}"'
    if wanted is not None and (etag is None or wanted not in {"*", etag}):
        raise errors.stale_etag()
    if unwanted is not None and etag is not None and unwanted in {"*", etag}:
        raise errors.stale_etag()


def _create(azure: Azure, call: Call, body: Json) -> Response:
    asked = section(call.body, "properties")
    name = section(asked, "hardwareProfile").get("vmSize")
    if not name:
        raise errors.missing("vmSize")
    limit = _limit(str(name))
    body["properties"] = model(body["name"], str(name), body["id"], asked=asked)
    machine = azure.state.put(Resource(call.path.text, KIND, body))
    wanted = items(section(asked, "storageProfile"), "dataDisks")
    wanted = [attaching.with_disk(azure, machine, each) for each in wanted]
    plan = datadisks.replaced([], wanted, vm=machine.name, limit=limit)
    machine, operation = attaching.begun(azure, machine, plan, kind="virtualMachines.create", state="Creating")
    headers = azure.operations.headers(operation, call.request, location=False)
    return Response.of_json(201, shown(machine), {**headers, "Azure-AsyncNotification": "Enabled"})


def _update(azure: Azure, call: Call, old: Resource, *, tags: object) -> Response:
    if azure.settings.overlap == "conflict" and old.hidden.get("running"):
        raise errors.concurrent()
    asked = section(call.body, "properties")
    name = str(section(asked, "hardwareProfile").get("vmSize") or old.properties["hardwareProfile"]["vmSize"])
    limit, profile = _limit(name), section(asked, "storageProfile")
    if isinstance(tags, dict):
        old.body["tags"] = tags
    old.properties["hardwareProfile"]["vmSize"] = name
    for kept in ("securityProfile", "additionalCapabilities", "diagnosticsProfile", "userData", "licenseType"):
        if asked.get(kept) is not None:
            old.properties[kept] = asked[kept]
    plan = Plan((), (), (), frozenset())
    if profile.get("dataDisks") is not None:
        wanted = [attaching.with_disk(azure, old, each) for each in items(profile, "dataDisks")]
        plan = datadisks.replaced(entries(old), wanted, vm=old.name, limit=limit)
    machine, operation = attaching.begun(azure, old, plan, kind=UPDATE)
    headers = azure.operations.headers(operation, call.request, location=False)
    return Response.of_json(
        200, shown(machine), {**headers, "Azure-AsyncNotification": "Enabled", "ETag": shown(machine)["etag"]}
    )


def attach_detach(azure: Azure, call: Call) -> Response:
    """``attachDetachDataDisks``: what it does not name stays as it is, so that many can call it at once."""
    require_group(azure, call.path)
    machine = azure.resource(call.resource_id)
    limit = _limit(machine.properties["hardwareProfile"]["vmSize"])
    attach, detach = items(call.body, "dataDisksToAttach"), items(call.body, "dataDisksToDetach")
    if not attach and not detach:
        raise errors.missing("dataDisksToAttach")
    plan = datadisks.changed(entries(machine), attach, detach, vm=machine.name, limit=limit)
    _, operation = attaching.begun(azure, machine, plan, kind="virtualMachines.attachDetach")
    return Response(202, azure.operations.headers(operation, call.request))


def delete(azure: Azure, call: Call) -> Response:
    """Delete a machine: its data disks are detached, and deleted where their entry says so."""
    require_group(azure, call.path)
    found = azure.state.get(call.path.text)
    if found is None:
        return Response(204)
    if found.key == azure.settings.machine_id.lower():
        raise errors.ArmError(409, "OperationNotAllowed", "The machine that this emulator plays cannot be deleted.")
    for entry in entries(found):
        disk = azure.state.get(datadisks.disk_id(entry))
        if disk is not None:
            attaching.freed(azure, disk)
            path = parse(disk.id)
            if entry.get("deleteOption") == "Delete" and path is not None:
                delete_disk(azure, Call(call.request, path))
    azure.state.remove(found.key)
    operation = azure.operations.submit(
        "virtualMachines.delete", found.id, {}, segment=COMPUTE, location=found.body["location"]
    )
    return Response(202, azure.operations.headers(operation, call.request))


def instance_view(azure: Azure, call: Call) -> Response:
    """GET of ``instanceView``."""
    require_group(azure, call.path)
    return Response.of_json(200, _instance_view(azure.resource(call.resource_id)))


def power(azure: Azure, call: Call) -> Response:
    """start, powerOff, restart, deallocate: answered, and nothing more. The machine here is this machine."""
    require_group(azure, call.path)
    found = azure.resource(call.resource_id)
    operation = azure.operations.submit(
        "virtualMachines.power", found.id, {}, segment=COMPUTE, location=found.body["location"]
    )
    return Response(202, azure.operations.headers(operation, call.request))


def model(name: str, vm_size: str, id_: str, *, asked: Json) -> Json:
    """The properties of a new machine."""
    profile = section(asked, "storageProfile")
    found = size(vm_size)
    os_disk = {
        "osType": "Linux",
        "name": f"{name}_OsDisk",
        "createOption": "FromImage",
        "caching": "ReadWrite",
        "managedDisk": {
            "id": f"{id_.rsplit('/', 2)[0]}/disks/{name}_OsDisk",
            "storageAccountType": "Premium_LRS",
        },
        "deleteOption": "Delete",
        "diskSizeGB": 30,
    }
    reference = {"publisher": "Debian", "offer": "debian-12", "sku": "12-gen2", "version": "latest"}
    return {
        "vmId": str(uuid.uuid4()),
        "hardwareProfile": {"vmSize": vm_size},
        "storageProfile": {
            "imageReference": section(profile, "imageReference") or {**reference, "exactVersion": "0.20250101.1"},
            "osDisk": {**os_disk, **{name: value for name, value in section(profile, "osDisk").items() if value}},
            "dataDisks": [],
            "diskControllerType": "SCSI" if found is None else found.controllers,
        },
        "osProfile": section(asked, "osProfile") or {"computerName": name, "adminUsername": "azureuser"},
        "networkProfile": section(asked, "networkProfile") or {"networkInterfaces": []},
        "provisioningState": "Succeeded",
        "timeCreated": now(),
    }


def _limit(name: str) -> int:
    found = size(name)
    return _NO_ATTACH if found is None else found.disks


def _instance_view(machine: Resource) -> Json:
    at = {"level": "Info", "time": now()}
    state = machine.properties["provisioningState"]
    disks = [
        {
            "name": entry["name"],
            "statuses": [{"code": "ProvisioningState/succeeded", "displayStatus": "Provisioning succeeded", **at}],
        }
        for entry in entries(machine)
    ]
    return {
        "computerName": machine.properties["osProfile"].get("computerName"),
        "hyperVGeneration": "V2",
        "disks": disks,
        "statuses": [
            {"code": f"ProvisioningState/{state.lower()}", "displayStatus": f"Provisioning {state.lower()}", **at},
            {"code": "PowerState/running", "displayStatus": "VM running", "level": "Info"},
        ],
    }


def works(azure: Azure) -> dict[str, Work]:
    """What the operations of machines do."""
    update = attaching.work(azure)
    return {
        "virtualMachines.create": update,
        UPDATE: update,
        "virtualMachines.attachDetach": update,
        "virtualMachines.delete": Work(),
        "virtualMachines.power": Work(),
    }


def _list(azure: Azure, call: Call) -> Response:
    return listed(azure, call)


def routes() -> Routes:
    """Of virtual machines."""
    found: Routes = {
        ("GET", KIND): get,
        ("GET", f"{KIND}/*"): _list,
        ("PUT", KIND): put,
        ("PATCH", KIND): patch,
        ("DELETE", KIND): delete,
        ("POST", f"{KIND}/attachdetachdatadisks/*"): attach_detach,
        ("GET", f"{KIND}/instanceview/*"): instance_view,
    }
    for action in ("start", "poweroff", "restart", "deallocate"):
        found["POST", f"{KIND}/{action}/*"] = power
    return found
