"""The options of image.yaml that say what steps may do, and what is done for them at the end."""

from __future__ import annotations

import pytest

from .conftest import CHECKS, Workshop

pytestmark = pytest.mark.root

KERNEL = """
    import pytest

    @pytest.mark.provision
    def test_kernel(chroot):
        chroot.write_text("/etc/motd", "hello\\n")
        chroot.write_text("/bin/update-initramfs", "#!/bin/sh\\n[ ! -e /etc/broken ] || { echo no space; exit 3; }\\n"
                          "echo made $* >> /etc/made\\n", mode=0o755)
        for _ in range(3):
            assert "put off" in chroot.run("/bin/busybox env update-initramfs -u").stderr
"""
BREAK = KERNEL + '        chroot.write_text("/etc/broken", "")\n'


def test_an_initramfs_is_made_once_before_the_checks(workshop: Workshop) -> None:
    check = CHECKS + '        assert host.file("/etc/made").content_string == "made -u\\n"\n'
    workshop.image(yaml="defer_initramfs: true", test_10=KERNEL, test_90=check)
    assert workshop.run().ret == 0
    assert workshop.read("/etc/made") == "made -u\n"


def test_an_initramfs_that_cannot_be_made_fails_the_build(workshop: Workshop) -> None:
    workshop.image(yaml="defer_initramfs: true", test_10=BREAK, test_90=CHECKS)
    result = workshop.run()
    result.stdout.fnmatch_lines(["*update-initramfs -u*exited with 3*", "*no space*"])
    assert (result.ret, workshop.published()) == (1, False)


@pytest.mark.parametrize("given", ["", "unconfined: [CAP_SYS_ADMIN]"])
def test_a_step_has_the_capabilities_that_are_given_back(workshop: Workshop, given: str) -> None:
    step = f"""
        import pytest

        @pytest.mark.provision
        def test_mount(chroot):
            chroot.write_text("/etc/motd", "hello\\n")
            assert chroot.run("mount -t tmpfs none /tmp", check=False).code == {0 if given else 1}
    """
    workshop.image(yaml=given, test_10=step, test_90=CHECKS)
    assert workshop.run().ret == 0


@pytest.mark.parametrize("fast", [True, False])
def test_syncs_are_carried_out_if_wanted(workshop: Workshop, fast: bool) -> None:
    # fdatasync of a pipe is an error, unless nobody looks
    step = f"""
        import pytest

        @pytest.mark.provision
        def test_sync(chroot):
            chroot.write_text("/etc/motd", "hello\\n")
            assert chroot.run("true | sync -d /proc/self/fd/0", check=False).code == {0 if fast else 1}
    """
    workshop.image(yaml="" if fast else "fast_sync: false", test_10=step, test_90=CHECKS)
    assert workshop.run().ret == 0
