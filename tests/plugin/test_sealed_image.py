"""What was checked is what ships, from a real package manager's steps to the mounted artifact: whatever checks do."""

from __future__ import annotations

import hashlib
import json
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_azchroot.cli import main
from pytest_azchroot.sandbox import Sandbox, discover

from . import disks
from .conftest import Workshop

pytestmark = pytest.mark.root

STEPS = """
    import pytest

    @pytest.fixture(scope="package")
    def daemon(chroot):
        "Outlives the steps, and holds every file system at the seal."
        hold = "cd {0}; exec 9>{0}/held; trap '' TERM; while :; do sleep 0.1; done"
        for directory in ("/boot", "/var"):
            chroot.run("setsid", "sh", "-c", f"sh -c '{hold.format(directory).replace(chr(39), chr(34))}' &")

    @pytest.mark.provision
    def test_install(chroot, image, daemon):
        chroot.put(image.path / "shipped.deb", "/root/")
        chroot.put(image.path / "checked.deb", "/root/")
        chroot.run("dpkg -i /root/shipped.deb")
        chroot.write_text("/var/lib/made", "by a step\\n")
"""

RECORD = """
    import hashlib
    from pathlib import Path

    def test_record(host, image):
        "The bytes at the seal."
        with open(image.device, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        (image.path / "at_the_seal").write_text(digest.hexdigest())
        assert host.check_output("dpkg-query -W") == "shipped\\t1.0"
        assert host.file("/boot/shipped.img").content_string == "initrd\\n"
"""

HOSTILE = """
    def test_install(host):
        host.check_output("dpkg -i /root/checked.deb")
        assert "checked" in host.check_output("dpkg-query -W")

    def test_start_daemons(host):
        for directory in ("/boot", "/var", "/etc"):
            hold = f"cd {directory}; exec 9>{directory}/held_by_a_check; trap : TERM; while :; do sleep 0.1; done"
            host.run(f"setsid sh -c '{hold}' >/dev/null 2>&1 &")

    def test_write_to_the_disk(host, image, disk):
        nodes = host.check_output("ls -d /dev/image*").split()
        assert nodes[:2] == ["/dev/image", "/dev/image1"]
        nodes += [image.device, *(disk.partition(number) for number in range(1, len(nodes)))]
        for node in nodes:
            done = host.run("dd if=/dev/zero of=%s bs=4096 count=1 conv=notrunc", node)
            assert done.rc != 0 and "Operation not permitted" in done.stderr, node
            done = disk.run(f"dd if=/dev/zero of={node} bs=4096 count=1 conv=notrunc oflag=direct", check=False)
            assert done.code != 0 and "Operation not permitted" in done.output, node
            disk.run(f"blockdev --setrw {node}", check=False)
            assert disk.run(f"dd if=/dev/zero of={node} bs=4096 count=1 conv=notrunc", check=False).code != 0, node
            assert disk.run(f"blkdiscard {node}", check=False).code != 0, node

    def test_destroy(host):
        host.run("rm -rf /boot/* /var/lib /usr/share/shipped /etc; mkdir /etc; echo mine >/etc/passwd")
        assert not host.file("/etc/shipped.conf").exists
"""


@pytest.fixture(scope="session")
def userland(base_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dpkg") / "root"
    shutil.copytree(base_image.parent / "root", root, symlinks=True)
    disks.dpkg(root)
    return root


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("packages")
    for name in ("shipped", "checked"):
        disks.package(name, directory)
    return directory


@pytest.fixture(scope="module", params=disks.LAYOUTS)
def source(request: pytest.FixtureRequest, userland: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("layout") / "source.raw"
    yield disks.make(path, disks.LAYOUTS[request.param], userland)
    path.unlink()  # pytest would keep it


@pytest.fixture
def suite(workshop: Workshop, source: Path, packages: Path) -> Workshop:
    workshop.source = source
    return workshop


def image(suite: Workshop, packages: Path, *, mode: str, hostile: bool) -> Path:
    files = {"test_10": STEPS, "test_90": RECORD, **({"test_95": HOSTILE} if hostile else {})}
    directory = suite.image(yaml=f"verify_writes: {mode}", **files)
    for package in packages.iterdir():
        shutil.copy(package, directory)
    return directory


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def assert_ships_as_sealed(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = directory / "x.raw"
    assert sha256(artifact) == (directory / "at_the_seal").read_text()
    manifest = json.loads((directory / "x.raw.manifest.json").read_text())
    capsys.readouterr()
    assert main(["digest", str(artifact)]) == 0
    assert capsys.readouterr().out.split()[0] == manifest["artifacts"][0]["digest"] == manifest["disk"]["digest"]


def assert_holds_what_steps_made(artifact: Path) -> None:
    """Mounted, by a reader that cannot change it."""
    with Sandbox.start(artifact, hostname="reader", read_only=True) as sandbox:
        discover.mount_all(sandbox, discover.plan(sandbox, partition=None), options=["ro"])
        assert sandbox.inside(["dpkg-query", "-W"]).stdout == "shipped\t1.0\n"
        files = ("/etc/shipped.conf", "/boot/shipped.img", "/usr/share/shipped", "/var/lib/made")
        assert [sandbox.read(file).decode() for file in files] == [
            "configured\n",
            "initrd\n",
            "content\n",
            "by a step\n",
        ]
        assert sandbox.read("/etc/passwd").startswith(b"root:")
        assert sandbox.read("/boot/held") == sandbox.read("/var/held") == b"", "the daemon of the steps was there"
        left = sandbox.inside("find / -xdev -name '*checked*' -o -xdev -name '*azchroot*' -o -xdev -name 'held_by*'")
        assert left.stdout == "/root/checked.deb\n"
        sandbox.unmount()
        sandbox.close()


def test_hostile_checks_do_not_change_what_ships(
    suite: Workshop, packages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = image(suite, packages, mode="discard", hostile=True)
    result = suite.run()
    result.assert_outcomes(passed=7, warnings=result.parseoutcomes().get("warnings", 0))
    assert (result.ret, suite.published()) == (0, True)
    assert_ships_as_sealed(directory, capsys)
    assert_holds_what_steps_made(directory / "x.raw")


def test_hostile_checks_fail_by_default(suite: Workshop, packages: Path) -> None:
    image(suite, packages, mode="fail", hostile=True)
    result = suite.run()
    assert (result.ret, suite.published()) == (1, False)
    text = " ".join(result.outlines)
    for written in ("wrote /boot/checked.img", "wrote /etc/checked.conf", "replaced /etc", "deleted /var/lib"):
        assert written in text, text
    result.stdout.fnmatch_lines(["*not published: a check *(test_95.py::test_install)*: mark it provision*"])


def test_checks_that_only_look_ship_what_they_saw(
    suite: Workshop, packages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = image(suite, packages, mode="fail", hostile=False)
    result = suite.run()
    assert (result.ret, suite.published()) == (0, True)
    result.stdout.fnmatch_lines(["*still running before test_record, ended: *"])
    assert_ships_as_sealed(directory, capsys)
    assert_holds_what_steps_made(directory / "x.raw")


@pytest.mark.parametrize("how", ["by its path", "by a device of its own"])
def test_a_disk_that_is_written_to_behind_the_seal_is_not_published(workshop: Workshop, how: str) -> None:
    """Code of a check runs on the build machine, as root: it can reach the file below the loop device."""
    write = {
        "by its path": "subprocess.run(['dd', 'if=/dev/zero', f'of={disk.id}', *words], check=True)",
        "by a device of its own": """
        loop = subprocess.run(["losetup", "--find", "--show", disk.id], check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run(["dd", "if=/dev/zero", f"of={loop}", *words, "conv=notrunc,fsync"], check=True)
        subprocess.run(["losetup", "--detach", loop], check=True)""",
    }[how]
    check = f"""
    import subprocess

    def test_write(host, disk):
        words = ["bs=4096", "count=1", "seek=5000", "conv=notrunc"]
        {write}
    """
    step = "import pytest\n@pytest.mark.provision\ndef test_step(chroot): chroot.write_text('/etc/motd', 'hello')"
    workshop.image(yaml="verify_writes: discard", test_10=step, test_90=textwrap.dedent(check))
    result = workshop.run()
    assert (result.ret, workshop.published()) == (1, False)
    result.stdout.fnmatch_lines(["*DirtyImageError: * was written to after its seal*"])
