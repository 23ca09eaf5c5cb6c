"""Turns plain volumes of a description of LVM's into parts of a thin pool, a snapshot and a mirror of RAID."""

from __future__ import annotations

import re
import sys
from pathlib import Path

_PLAIN = """
\t\t{name} {{
\t\t\tid = "{id}"
\t\t\tstatus = [{status}]
\t\t\tflags = []
\t\t\tsegment_count = 1

\t\t\tsegment1 {{
\t\t\t\tstart_extent = 0
\t\t\t\textent_count = {extents}
\t\t\t\t{rest}
\t\t\t}}
\t\t}}
"""
_SHOWN = '"READ", "WRITE", "VISIBLE"'
_HIDDEN = '"READ", "WRITE"'


def _added(name: str, status: str, extents: int, rest: str, *, number: int) -> str:
    identity = f"aaaaaa-bbbb-cccc-dddd-eeee-ffff-gggg{number:02}"
    return _PLAIN.format(name=name, id=identity, status=status, extents=extents, rest=rest)


def main(before: str, after: str) -> None:
    text = Path(before).read_text()
    renamed = {"data": "pool_tdata", "meta": "pool_tmeta"}
    for number in (0, 1):
        renamed |= {f"rimage{number}": f"mirrored_rimage_{number}", f"rmeta{number}": f"mirrored_rmeta_{number}"}
    for old, new in renamed.items():
        shown = rf'\t\t{old} {{(.*?)status = \["READ", "WRITE", "VISIBLE"'
        text = re.sub(shown, rf'\t\t{new} {{\1status = ["READ", "WRITE"', text, count=1, flags=re.DOTALL)
    pool = (
        'type = "thin-pool"\nmetadata = "pool_tmeta"\npool = "pool_tdata"\ntransaction_id = 1\n'
        'chunk_size = 128\ndiscards = "passdown"\nzero_new_blocks = 1'
    )
    thin = 'type = "thin"\nthin_pool = "pool"\ntransaction_id = 0\ndevice_id = 1'
    snap = 'type = "snapshot"\nchunk_size = 8\norigin = "origin"\ncow_store = "cow"'
    halves = ", ".join(f'"mirrored_rmeta_{number}", "mirrored_rimage_{number}"' for number in (0, 1))
    raid = f'type = "raid1"\ndevice_count = 2\nregion_size = 4096\nraids = [{halves}]'
    added = [
        _added("pool", _SHOWN, 4, pool, number=1),
        _added("thin", _SHOWN, 8, thin, number=2),
        _added("mirrored", _SHOWN, 1, raid, number=4),
        _added("snapshot0", _HIDDEN, 1, snap, number=3),
    ]
    volumes = text.index("logical_volumes {") + len("logical_volumes {")
    Path(after).write_text(text[:volumes] + "".join(added) + text[volumes:])


main(*sys.argv[1:])
