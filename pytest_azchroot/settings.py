"""The options and ini settings of the plugin, and where each came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

KEEP = ("never", "failed", "always")
"""When the disk of an image outlives the session."""


def add_options(parser: pytest.Parser) -> None:
    """Declare options and ini settings; ``pytest --help`` shows them in this order."""
    group = parser.getgroup("azchroot", "OS images as test suites (pytest-azchroot)")
    group.addoption(
        "--azchroot-cloud",
        metavar="NAME",
        help="Build on this cloud, whatever `cloud:` in image.yaml says (ini: azchroot_cloud).",
    )
    group.addoption(
        "--azchroot-var",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="Set a variable that image.yaml declares. Repeatable; goes before --azchroot-var-file, which goes before "
        "the environment (AZCHROOT_VAR_NAME) and the default.",
    )
    group.addoption(
        "--azchroot-var-file",
        metavar="FILE",
        action="append",
        default=[],
        help="Set variables from a YAML file of names and values. Repeatable; the last file wins.",
    )
    group.addoption(
        "--azchroot-no-publish",
        action="store_true",
        help="Build and check the images but publish none.",
    )
    group.addoption(
        "--azchroot-require-publish",
        action="store_true",
        help="Fail, instead of skip, the publish item of an image that is not published, whatever the reason. For CI.",
    )
    group.addoption(
        "--azchroot-overwrite",
        action="store_true",
        help="Replace artifacts that exist, once the new ones are complete; on Azure, where no two have one name, the "
        "old ones are deleted when all tests have passed.",
    )
    group.addoption(
        "--azchroot-output",
        metavar="DIR",
        type=Path,
        help="Write the manifest of each image to DIR/IMAGE/manifest.json, published or not. Beside each published "
        "file there is one anyway.",
    )
    group.addoption(
        "--azchroot-verify",
        metavar="SOURCE",
        help="Run only the checks of one image's suite, on an image that exists already: a disk file, or what "
        "`source:` may be. It is only read, and nothing is published.",
    )
    group.addoption(
        "--azchroot-keep",
        choices=KEEP,
        default="never",
        help="Keep the disk, unmounted, of images that failed, or of all, and print the commands that enter and remove "
        "it (default: %(default)s).",
    )
    group.addoption(
        "--azchroot-ahead",
        action="store_true",
        help="While the checks of an image run, begin to make the disk of the next one, where that takes long "
        "(on Azure). It is made for nothing if the run stops before it.",
    )
    parser.addini("azchroot_cloud", "Build on this cloud, whatever `cloud:` in image.yaml says.")
    parser.addini(
        "azchroot_strict", "Skipped and xfailed tests keep an image from being published.", type="bool", default=False
    )
    parser.addini("azchroot_command_timeout", "Seconds that a command in an image may take. No limit by default.")


@dataclass(frozen=True)
class Settings:
    """What the user asked of this session."""

    cloud: str | None = None
    cloud_origin: str = "image.yaml"
    variables: tuple[str, ...] = ()
    variable_files: tuple[Path, ...] = ()
    no_publish: bool = False
    require_publish: bool = False
    overwrite: bool = False
    output: Path | None = None
    verify: str | None = None
    """The image that the checks are to look at, in place of one that is built."""
    keep: str = "never"
    ahead: bool = False
    """Whether to make the disk of the next image while one is checked."""
    directory: Path = Path()
    """Where pytest was started."""
    strict: bool = False
    command_timeout: float | None = None

    @classmethod
    def of(cls, config: pytest.Config) -> Settings:
        """Read them.

        :raises pytest.UsageError: they contradict each other, or a value makes no sense.
        """
        option = config.option
        if option.azchroot_no_publish and option.azchroot_require_publish:
            raise pytest.UsageError("--azchroot-no-publish and --azchroot-require-publish contradict each other")
        if option.azchroot_verify is not None:
            if not option.azchroot_verify:
                raise pytest.UsageError("--azchroot-verify: names no image")
            for other in ("require_publish", "overwrite"):
                if getattr(option, f"azchroot_{other}"):
                    words = f"--azchroot-{other.replace('_', '-')}"
                    raise pytest.UsageError(f"--azchroot-verify publishes nothing, so {words} makes no sense with it")
            if option.azchroot_keep != "never":
                raise pytest.UsageError("--azchroot-verify makes no disk, so there is none to keep: --azchroot-keep")
        cloud, origin = option.azchroot_cloud, "--azchroot-cloud"
        if cloud is None:
            cloud, origin = config.getini("azchroot_cloud") or None, "ini: azchroot_cloud"
        return cls(
            cloud=cloud,
            cloud_origin=origin if cloud else "image.yaml",
            variables=tuple(option.azchroot_var),
            variable_files=tuple(config.invocation_params.dir / file for file in option.azchroot_var_file),
            no_publish=option.azchroot_no_publish,
            require_publish=option.azchroot_require_publish,
            overwrite=option.azchroot_overwrite,
            output=config.invocation_params.dir / option.azchroot_output if option.azchroot_output else None,
            verify=option.azchroot_verify,
            keep=option.azchroot_keep,
            ahead=option.azchroot_ahead,
            directory=config.invocation_params.dir,
            strict=config.getini("azchroot_strict"),
            command_timeout=_positive_seconds(config.getini("azchroot_command_timeout")),
        )


def _positive_seconds(text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if value <= 0:
        raise pytest.UsageError(f"ini azchroot_command_timeout: {text!r} is not a positive number of seconds")
    return value
