"""The command ``azchroot``. Each subcommand is one function that adds its parser and names what runs it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_azchroot import __version__, inspection, shell, sweeping
from pytest_azchroot.clouds import Order
from pytest_azchroot.disk.digest import PATTERN as DIGEST
from pytest_azchroot.disk.digest import digest_of
from pytest_azchroot.emulator import options as emulator_options
from pytest_azchroot.errors import AzchrootError
from pytest_azchroot.report import manifest
from pytest_azchroot.spec import BUILTIN_CLOUDS, ConfigError, Configuration, Problem, declared_variables, load
from pytest_azchroot.spec.reference import reference
from pytest_azchroot.spec.schema import json_schema

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

OK = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130

IMAGE_FILE = "image.yaml"

_STANDARD_INPUT = Path("-")

_RUNNING = frozenset({"shell", "emulator"})
"""Those that run a command, which follows ``--``."""


class UsageError(AzchrootError):
    """The command line asks for something that cannot be."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 1 a problem, 2 a wrong command line."""
    parser = argparse.ArgumentParser(
        prog="azchroot",
        description="Tools beside pytest-azchroot. Images are built by pytest: pytest DIRECTORY",
    )
    parser.add_argument("--version", action="version", version=f"azchroot {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in _COMMANDS:
        add(subparsers)
    own, command = _split(sys.argv[1:] if arguments is None else arguments)
    options, unknown = parser.parse_known_args(own, argparse.Namespace(command=command))
    if unknown:
        hint = "; a command to run stands behind --" if own[0] in _RUNNING else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except UsageError as error:
        print(f"azchroot: {error}", file=sys.stderr)
        return USAGE
    except AzchrootError as error:
        print(error, file=sys.stderr)
        return FAILED


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What is ours, and what follows ``--`` for a command to run: argparse takes options of that for its own."""
    if not _RUNNING & {*arguments[:1]} or "--" not in arguments:
        return arguments, ()
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _add_validate(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "validate",
        help="check image.yaml files, without root and without network",
        description="Check image.yaml files: names and values of options, templates, and what options must be to each "
        "other. Needs no root and no network, and touches nothing. With --online, on a virtual machine of Azure, also "
        "what a build there looks up before it begins: credentials, source, destination, room for a disk.",
        epilog="Exit status: 0 all are right, 1 something is wrong, 2 wrong usage.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="an image.yaml, or a directory that holds one or has some below",
    )
    parser.add_argument("--cloud", help="check for this cloud, in place of the one that the file names")
    parser.add_argument(
        "--var", action="append", default=[], metavar="NAME=VALUE", help="set a variable; can be repeated"
    )
    parser.add_argument(
        "--var-file",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="set the variables of a YAML file; can be repeated",
    )
    parser.add_argument("--online", action="store_true", help="ask Azure, too, about images of the cloud azure")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=_validate)


def _add_schema(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "schema",
        help="print the JSON Schema of image.yaml, for editors",
        description="Print the JSON Schema (draft 2020-12) of image.yaml. Save it, and begin a file with "
        "'# yaml-language-server: $schema=FILE'.",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--markdown", action="store_true", help="print the reference of all options instead")
    instead.add_argument("--manifest", action="store_true", help="print the JSON Schema of manifests instead")
    parser.set_defaults(run=_schema)


def _add_digest(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "digest",
        help="print the payload digest of disk image files, as the manifest has it",
        description="Print the payload digest of disk image files: SHA-256 over the disk's blocks that are not zero, "
        "so the same for a raw file, a VHD, a VHDX and a qcow2 of one disk. It is the digest in an image's manifest. "
        "Needs no root.",
        epilog="Exit status: 0 all is well, 1 a file cannot be read or differs, 2 wrong usage.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a raw, VHD, VHDX or qcow2 file")
    parser.add_argument(
        "-c",
        "--check",
        action="store_true",
        help="FILE holds lines of this command's output, - is standard input: compare what they name",
    )
    parser.set_defaults(run=_digest)


def _add_inspect(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "inspect",
        help="print what is in a disk image, and how a build would mount it",
        description="Print the partitions and file systems of a disk image file, and how a build would mount them: "
        "the root, and what its /etc/fstab adds. Nothing is written to the file. Root is needed only for the last "
        "part, for which file systems are mounted read-only in a namespace of their own.",
        epilog="Exit status: 0 all is well, 1 the file cannot be read or a build could not mount it, 2 wrong usage.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a raw, VHD, VHDX or qcow2 file")
    _add_root(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=_inspect)


def _add_root(parser: argparse.ArgumentParser) -> None:
    """The options that say which file system is the root."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--partition", type=int, metavar="NUMBER", help="the root, as `mount_partition` would name it; 0 is the disk"
    )
    either.add_argument("--lvm-root-device", metavar="DEVICE", help="the root, if it is a volume: /dev/rootvg/rootlv")


def _add_shell(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "shell",
        usage="azchroot shell [-h] [--partition NUMBER | --lvm-root-device DEVICE] [--write] [--pid PID] PATH "
        "[-- COMMAND...]",
        help="a shell in a disk image, or in an image that is being built",
        description="Mount a disk image file in a sandbox of its own and give a shell in it, or run a command, held as "
        "the steps of a build are. What is written is dropped at the end; with --write it changes the file. With a "
        "directory that holds an image.yaml, enter the running build of that image. Needs root.",
        epilog="Exit status: that of the shell or command, 128 and the number of a signal that ended it; 1 if the "
        "image cannot be entered, or with --write does not close well; 2 wrong usage.",
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="a raw, VHD, VHDX or qcow2 file, or a directory")
    _add_root(parser)
    parser.add_argument("--write", action="store_true", help="change the file, which must be raw or a fixed VHD")
    parser.add_argument("--pid", type=int, help="of the pytest, if several build the image")
    parser.set_defaults(run=_shell)


def _add_emulator(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "emulator",
        usage="azchroot emulator [options] DIRECTORY [-- COMMAND...]",
        help="an Azure for this machine alone, to try builds and tools without an account",
        description="Run an emulator of Azure on loopback: Resource Manager with disks, snapshots, images and "
        "galleries, instance metadata, and tokens. Attached disks are block devices of this machine, which takes root; "
        "the rest does not. It prints the variables that lead clients to it, and runs until Ctrl-C or SIGTERM; with a "
        "COMMAND it runs that with the variables set, and ends with it.",
        epilog="Exit status: 0 it was stopped, that of the command, 1 it cannot start, 2 wrong usage.",
    )
    emulator_options.add_to(parser)
    parser.set_defaults(run=_emulator)


def _add_sweep(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "sweep",
        help="remove what builds left that were killed",
        description="Remove what dead builds left: what their journals on this machine name, disks and snapshots in "
        "Azure whose tags say that they have expired, and devices and control groups of this machine. Nothing of a "
        "living build is touched.",
        epilog="Exit status: 0 all is well, 1 something could not be removed or looked at, 2 wrong usage.",
    )
    sweeping.add_to(parser)
    parser.set_defaults(run=lambda options: OK if sweeping.run(options) else FAILED)


_COMMANDS: tuple[Callable[[Subparsers], None], ...] = (
    _add_validate,
    _add_schema,
    _add_digest,
    _add_inspect,
    _add_shell,
    _add_sweep,
    _add_emulator,
)


@dataclass(frozen=True)
class _Checked:
    path: Path
    configuration: Configuration | None
    problems: tuple[Problem, ...]


def _validate(options: argparse.Namespace) -> int:
    files = _image_files(options.paths)
    checked = [_check(file, options, alone=len(files) == 1) for file in files]
    if options.online:
        checked = _check_online(checked)
    stray = [] if len(files) == 1 else _stray_variables(files, options.var)
    if options.json:
        print(json.dumps([_as_data(each) for each in checked], indent=2))
    else:
        for each in checked:
            if each.configuration is not None:
                print(f"ok  {each.path}  (cloud {each.configuration.spec.cloud})")
    for problem in [] if options.json else [problem for each in checked for problem in each.problems]:
        print(problem, file=sys.stderr)
    for name in stray:
        print(f"--var {name}: no image declares this variable", file=sys.stderr)
    return FAILED if stray or any(each.problems for each in checked) else OK


def _check(file: Path, options: argparse.Namespace, *, alone: bool) -> _Checked:
    try:
        configuration = load(
            file,
            clouds=BUILTIN_CLOUDS,
            cloud=options.cloud,
            variables=options.var,
            variable_files=options.var_file,
            # With several images a variable may be another's.
            unknown_variables="error" if alone else "ignore",
        )
    except ConfigError as error:
        return _Checked(file, None, error.problems)
    return _Checked(file, configuration, ())


def _check_online(checked: Sequence[_Checked]) -> list[_Checked]:
    """The same with what Azure has to say."""
    found = {
        each.path: Order(configuration.directory.name, configuration.directory, configuration)
        for each in checked
        if (configuration := each.configuration) is not None and configuration.spec.cloud == "azure"
    }
    if not found:
        return [*checked]
    from pytest_azchroot.clouds.azure import online  # noqa: PLC0415 - slow to import, and of no use to the others

    said = dict(zip(found, online.problems([*found.values()]), strict=True))
    return [_Checked(each.path, None, tuple(said[each.path])) if said.get(each.path) else each for each in checked]


def _image_files(paths: Iterable[Path]) -> list[Path]:
    """The files that the paths stand for, each once, in order."""
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            own = path / IMAGE_FILE
            found = [own] if own.is_file() else sorted(path.rglob(IMAGE_FILE))
            if not found:
                raise UsageError(f"there is no {IMAGE_FILE} in {path} or below it")
            files.update(dict.fromkeys(found))
        elif path.exists():
            files[path] = None
        else:
            raise UsageError(f"there is no {path}")
    return list(files)


def _stray_variables(files: Iterable[Path], texts: Iterable[str]) -> list[str]:
    declared = frozenset().union(*map(declared_variables, files))
    return sorted({name for name in (text.partition("=")[0] for text in texts) if name not in declared})


def _as_data(checked: _Checked) -> dict[str, object]:
    return {
        "path": str(checked.path),
        "ok": checked.configuration is not None,
        "cloud": None if checked.configuration is None else checked.configuration.spec.cloud,
        "problems": [
            {
                "path": str(each.path),
                "line": each.line,
                "field": each.field,
                "message": each.message,
                "hint": each.hint,
            }
            for each in checked.problems
        ],
    }


def _schema(options: argparse.Namespace) -> int:
    if options.markdown:
        print(reference(), end="")
    else:
        print(json.dumps(manifest.json_schema() if options.manifest else json_schema(), indent=2))
    return OK


def _digest(options: argparse.Namespace) -> int:
    wanted = [line for file in options.files for line in _digest_lines(file)] if options.check else None
    results = []
    for expected, path in wanted if wanted is not None else [(None, file) for file in options.files]:
        try:
            found = digest_of(path)
        except AzchrootError as error:
            print(error, file=sys.stderr)
            results.append(False)
            continue
        results.append(expected in (None, found))
        print(f"{found}  {path}" if expected is None else f"{path}: {'OK' if results[-1] else 'FAILED'}")
    return OK if all(results) else FAILED


def _digest_lines(file: Path) -> list[tuple[str, Path]]:
    """The digests and paths that a file of this command's output holds."""
    name = "standard input" if file == _STANDARD_INPUT else str(file)
    try:
        data = sys.stdin.buffer.read() if file == _STANDARD_INPUT else file.read_bytes()
    except OSError as error:
        raise AzchrootError(f"{name} cannot be read", why=error.strerror) from error
    lines = data.decode("utf-8", errors="surrogateescape").splitlines()
    parts = [line.partition("  ") for line in lines]
    if not parts or not all(DIGEST.fullmatch(digest) and path for digest, _, path in parts):
        raise UsageError(f"{name} holds no lines of `azchroot digest`")
    return [(digest, Path(path)) for digest, _, path in parts]


def _inspect(options: argparse.Namespace) -> int:
    found = inspection.inspect(options.file, partition=options.partition, lvm_root_device=options.lvm_root_device)
    print(json.dumps(inspection.as_data(found), indent=2) if options.json else inspection.as_text(found))
    if found.refusal is not None and not options.json:
        print(f"\n{found.refusal}", file=sys.stderr)
    return FAILED if found.failed else OK


def _shell(options: argparse.Namespace) -> int:
    path: Path = options.path
    try:
        if path.is_dir() or path.name == IMAGE_FILE:
            if options.write or (options.partition, options.lvm_root_device) != (None, None):
                raise UsageError("--write, --partition and --lvm-root-device are for disk image files")
            return shell.in_build(path if path.is_dir() else path.parent, command=options.command, pid=options.pid)
        if options.pid is not None:
            raise UsageError("--pid is for directories")
        root = shell.Root(options.partition, options.lvm_root_device)
        return shell.in_file(path, command=options.command, root=root, write=options.write)
    except KeyboardInterrupt:
        return INTERRUPTED


def _emulator(options: argparse.Namespace) -> int:
    from pytest_azchroot.emulator import command  # noqa: PLC0415 - slow to import, and of no use to the others

    return command.run(options, options.command)


if __name__ == "__main__":
    sys.exit(main())
