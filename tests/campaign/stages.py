"""The stages of a build, as it says them itself while it is traced: see :mod:`markers`."""

from __future__ import annotations

PREFIX = "/azchroot-campaign/"
"""access(2) of this and a stage: there is no such file, and nobody else asks for it."""
BEFORE = "before"
"""Collection and preflight, and what lies between stages."""
STAGES = (
    "create", "attach", "pre_mount_commands", "mount", "packages", "steps", "overlay", "seal", "checks",
    "close", "digest", "publish", "finish",
)  # fmt: skip
SEALED = "sealed"
"""The file in which the build leaves the digest that every artifact must have."""
NAMED = "AZCHROOT_CAMPAIGN_NAMED"
"""Set in the environment of a build that shall do as on a file system without O_TMPFILE."""
