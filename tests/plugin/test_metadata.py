"""Whether image.yaml's word on the metadata service reaches the sandbox."""

from __future__ import annotations

import pytest

from .conftest import CHECKS, Workshop

pytestmark = pytest.mark.root


@pytest.mark.parametrize("reaches", [False, True])
def test_the_metadata_service_is_refused_unless_it_is_wanted(workshop: Workshop, reaches: bool) -> None:
    step = f"""
        import pytest

        @pytest.mark.provision
        def test_group(chroot):
            chroot.write_text("/etc/motd", "hello\\n")
            # PID 1 is in a control group of its own if connections are looked at
            assert ("/azchroot-" in chroot.run_outside("cat /proc/1/cgroup").stdout) is {not reaches}
    """
    workshop.image(yaml="metadata_service: true" if reaches else "", test_10=step, test_90=CHECKS)
    assert workshop.run().ret == 0
