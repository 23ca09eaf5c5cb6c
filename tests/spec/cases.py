"""Beginnings of image.yaml texts, right in themselves, for tests to add what is wrong."""

from __future__ import annotations

LOCAL = "cloud: local\nsource: a.vhd\noutput: b.vhd\n"
SUB = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute"
AZURE = f"source: Debian:debian-12:12-gen2:latest\nimage_resource_id: {SUB}/images/i\n"
SCRATCH = "cloud: local\noutput: b.vhd\nfrom_scratch: true\n"
GALLERY = "source: a:b:c:d\nshared_image_destination:\n  resource_group: g\n  gallery_name: n\n  image_name: i\n"
