"""One build without pytest: disk made, attached, marked, detached, published; in a process that may be killed."""

from __future__ import annotations

import json
import os
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_azchroot.build import Build
from pytest_azchroot.clouds import Order
from pytest_azchroot.clouds.azure import cloud as azure_cloud
from pytest_azchroot.clouds.azure import metadata, retries, session, shared
from pytest_azchroot.clouds.azure.client import Azure
from pytest_azchroot.clouds.azure.pace import Pace
from pytest_azchroot.clouds.azure.transport import Transport
from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.gate import Ledger
from pytest_azchroot.image import Image
from pytest_azchroot.leaving import Leaving
from pytest_azchroot.report.timeline import Timeline
from pytest_azchroot.spec import BUILTIN_CLOUDS, load

MARK_AT = 3 * 1024**2
"""Where on the disk the build writes what is looked for in the artifacts."""
IMPATIENCE = 3.0
"""Seconds that an operation may take; Azure gives minutes, and hours."""


@dataclass(frozen=True)
class Result:
    """How a build ended, by its own words."""

    artifacts: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    """``kind``, ``what``, ``why``, ``hint`` and ``text``."""


def hurry(state: Path) -> None:
    """In this process nobody waits for long, and builds of other processes of this machine are none of its business."""
    os.environ["AZCHROOT_STATE_DIR"] = str(state)
    shared.SYSTEM = state / "run"
    sleep = Transport.sleep
    Transport.sleep = lambda self, duration: sleep(self, min(duration, 0.05))  # type: ignore[method-assign]
    retries.PAUSES = (0.01, 0.02, 0.05, 0.1)
    session._AGAIN, session._INSISTING = 0.05, 2.0
    azure_cloud._ATTACHING = IMPATIENCE
    defaults: Any = Azure.begin.__kwdefaults__
    defaults["pace"] = Pace(floor=0.03, share=0.0)
    metadata._PAUSES = (0.01, 0.02, 0.05, 0.1, 0.1, 0.1)
    waiting: Any = metadata.machine.__kwdefaults__
    waiting["timeout"] = IMPATIENCE


def image_yaml(**options: Any) -> str:
    """Both destinations at once, and little patience."""
    return json.dumps(
        {
            "cloud": "azure",
            "polling_duration_timeout": IMPATIENCE,
            "shared_image_gallery_timeout": IMPATIENCE,
            **options,
        }
    )


def build(directory: Path, mark: str) -> Result:
    """Build the image of a directory."""
    artifacts: list[str] = []
    try:
        _build(directory, mark, artifacts)
        return Result(artifacts)
    except AzchrootError as error:
        told = {"what": error.what, "why": error.why, "hint": error.hint, "text": str(error)}
        return Result(artifacts, error={"kind": type(error).__name__, **told})
    except BaseException as error:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        return Result(artifacts, {"kind": type(error).__name__, "what": "", "why": None, "hint": None, "text": text})


def _build(directory: Path, mark: str, artifacts: list[str]) -> None:
    cloud = azure_cloud.AzureCloud()
    configuration = load(directory / "image.yaml", clouds=BUILTIN_CLOUDS, environ={})
    order = Order(directory.name, directory, configuration)
    image = Image(directory.name, directory, configuration)
    build = Build(image, cloud, order=order, ledger=Ledger(), timeline=Timeline(image.name))
    with Leaving() as stack:
        stack.callback(cloud.close)
        build.introduce()
        build.sent = cloud.sent(build.order)
        if build.sent is None:
            if problems := [*cloud.preflight(build.order)]:
                raise AzchrootError("nothing was begun", why="\n".join(problems), hint="see each of them")
            stack.callback(build.close)
            build.begin()
            disk = build.attach()
            disk.run(f"printf {mark} | dd of={disk.device} seek={MARK_AT} oflag=seek_bytes conv=notrunc status=none")
            build.detach()
        artifacts += [artifact.id for artifact in build.publish()]
