"""What image.yaml says: its options, checked offline, and the values of its templates. Pure but for :func:`load`."""

from __future__ import annotations

from pytest_azchroot.spec.configuration import Configuration
from pytest_azchroot.spec.destination import SharedImageDestination, TargetRegion
from pytest_azchroot.spec.loader import DEFAULT_CLOUD, declared_variables, load
from pytest_azchroot.spec.model import ImageSpec
from pytest_azchroot.spec.options import BUILTIN_CLOUDS, COMMON
from pytest_azchroot.spec.problems import ConfigError, Problem
from pytest_azchroot.spec.templates import TemplateError, clean_resource_name

__all__ = [
    "BUILTIN_CLOUDS",
    "COMMON",
    "DEFAULT_CLOUD",
    "ConfigError",
    "Configuration",
    "ImageSpec",
    "Problem",
    "SharedImageDestination",
    "TargetRegion",
    "TemplateError",
    "clean_resource_name",
    "declared_variables",
    "load",
]
