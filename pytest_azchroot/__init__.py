"""Build, test and publish OS images as pytest suites."""

__version__ = "0.1.0"
