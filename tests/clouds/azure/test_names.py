"""Names with templates in them: what images of one run publish is compared when it is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from .workshop import AzureWorkshop

pytestmark = pytest.mark.root

GROUP = "/subscriptions/{{ vm.subscription_id }}/resourceGroups/{{ vm.resource_group }}"
TEMPLATE = GROUP + "/providers/Microsoft.Compute/images/"


@pytest.fixture
def azure_emulator_images() -> dict[str, Path]:
    """The workshop fills it."""
    return {}


def test_one_template_may_be_two_names(azure_workshop: AzureWorkshop) -> None:
    for name in ("a", "b"):
        azure_workshop.image(name, image_resource_id=TEMPLATE + "{{ image.name }}")
    azure_workshop.run().assert_outcomes(passed=6)


def test_two_templates_may_be_one_name(azure_workshop: AzureWorkshop) -> None:
    azure_workshop.image("a", image_resource_id=TEMPLATE + "both")
    azure_workshop.image("b", image_resource_id=azure_workshop.image_id("both"))
    result = azure_workshop.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"b and a would both publish {azure_workshop.image_id('both').lower()}"])
    azure_workshop.nothing_is_left()


def test_a_source_of_the_run_may_be_in_the_subscription_of_the_machine(azure_workshop: AzureWorkshop) -> None:
    destination = azure_workshop.gallery()
    source = azure_workshop.version_id().replace(azure_workshop.azure.subscription_id, "{{ vm.subscription_id }}")
    azure_workshop.image("a", source=source)
    azure_workshop.image("b", shared_image_destination=destination)
    azure_workshop.run().assert_outcomes(passed=6)
    assert azure_workshop.read("/etc/marker", azure_workshop.image_id("a")) == "hello\n"
