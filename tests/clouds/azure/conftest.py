"""Every test here has an emulator of its own, and nothing else of Azure can be reached."""

from __future__ import annotations

from pytest_azchroot.emulator.pytest_plugin import (
    azure_emulator,
    azure_emulator_accounts,
    azure_emulator_images,
    azure_emulator_isolation,
    azure_emulator_settings,
)

# pytest finds them here; a test module that defines one of its own overrides it
__all__ = [
    "azure_emulator",
    "azure_emulator_accounts",
    "azure_emulator_images",
    "azure_emulator_isolation",
    "azure_emulator_settings",
]
