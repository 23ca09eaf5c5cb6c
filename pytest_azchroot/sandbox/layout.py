"""Where things are in the sandbox's own mount namespace.

``/run/azchroot`` on the build machine is an empty directory over which each sandbox mounts a tmpfs of its own. It is
left there: removing a directory detaches what other namespaces have mounted on it.
"""

from __future__ import annotations

BASE = "/run/azchroot"
ROOT = f"{BASE}/root"
"""Where the image is mounted unless ``mount_path`` says otherwise."""
DEV = f"{BASE}/dev"
"""The private /dev, also bound over /dev."""
HOST_DEV = f"{BASE}/host-dev"
"""The build machine's /dev."""
NODES = f"{BASE}/nodes"
"""Nodes that exist for the moment in which they are opened."""
LENT = f"{BASE}/lent"
"""Private copies of files that the image is lent."""
STUBS = f"{LENT}/stubs"
"""Programs that stand before the image's own."""
LOWER = f"{BASE}/lower"
"""File systems of the sealed image, read-only, and each as the lower layer of an overlay."""
UPPER = f"{BASE}/upper"
"""A tmpfs with the upper layers."""
MERGED = f"{BASE}/merged"
"""Where an image is that is covered by overlays."""
DOOR = f"{BASE}/door"
"""The socket at which visitors knock."""
ABOUT = f"{BASE}/about"
"""A file for visitors who look for a build: which one this is."""
