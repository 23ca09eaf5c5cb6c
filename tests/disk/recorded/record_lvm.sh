#!/bin/sh
# Records the first MiB of physical volumes as the real tools of LVM write them (lvm2 2.03.16), without device-mapper.
# Not run by the tests, which read what it has left here: record_lvm.sh DIRECTORY
set -eu
if [ "$(hostname)" != recorder ]; then # LVM writes down by which machine it was
    exec unshare --uts sh -c 'hostname recorder && exec sh "$0" "$@"' "$0" "$@"
fi
out=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
work=$(mktemp -d)
cd "$work"
loops=
trap 'for loop in $loops; do losetup --detach "$loop" || true; done; rm -r "$work"' EXIT
export LVM_SUPPRESS_FD_WARNINGS=1

new() { # new N: N empty disks on loop devices, L1 L2 …, and a configuration that sees nothing else
    filter=
    loops=
    for number in $(seq "$1"); do
        truncate -s 64M "pv$number"
        loop=$(losetup --find --show "pv$number")
        eval "L$number=$loop"
        loops="$loops $loop"
        filter="$filter\"a|^$loop\$|\","
    done
    config="devices{use_devicesfile=0 filter=[$filter\"r|.*|\"]} backup{backup=0 archive=0}
        global{activation=0 use_lvmpolld=0 event_activation=0 locking_dir=\"$work/lock\"}
        activation{monitoring=0 udev_sync=0 udev_rules=0}"
}

l() { # a command of LVM
    name=$1
    shift
    lvm "$name" -qq --yes --config "$config" --driverloaded n "$@"
}

create() { # lvcreate, of what would else be activated to be wiped
    l lvcreate --activate n --zero n "$@"
}

keep() { # keep NAME: what each disk has now
    number=0
    for loop in $loops; do
        number=$((number + 1))
        sync "$loop"
        losetup --detach "$loop"
        while losetup --all | grep -q "^$loop:"; do sleep 0.1; done
        head -c 1M "pv$number" | xz -9e >"$out/lvm-$1-$number.xz"
        rm "pv$number"
    done
    loops=
}

new 1
l pvcreate "$L1" && l vgcreate rootvg "$L1"
create -n rootlv -L 16M rootvg
keep linear

new 1
l pvcreate "$L1" && l vgcreate my-vg "$L1"
create -n root-lv -L 16M my-vg && create -n var -L 8M my-vg && l lvextend -L +8M my-vg/root-lv
create -n swap -L 4M my-vg && l lvextend -L +4M my-vg/swap
keep segments

new 2
l pvcreate "$L1" "$L2" && l vgcreate -s 1M vg "$L1" "$L2"
create -n striped -i 2 -I 64k -L 8M vg && create -n both -l 100%FREE vg
keep striped

# what LVM makes only with the kernel's help, it writes here from a description
new 1
l pvcreate "$L1" && l vgcreate vg "$L1"
create -n plain -L 4M vg && create -n origin -L 4M vg && create -n cow -L 4M vg
create -n data -L 16M vg && create -n meta -L 4M vg && for half in 0 1; do
    create -n rimage$half -L 4M vg && create -n rmeta$half -L 4M vg
done
l vgcfgbackup -f before vg
python3 "$here/special_volumes.py" before after
l vgcfgrestore --force -f after vg
keep special

new 1
l pvcreate --metadatacopies 2 --dataalignment 2M "$L1" && l vgcreate vg "$L1"
create -n root -L 4M vg
keep copies

new 1
l pvcreate --metadatasize 32k --dataalignment 64k "$L1" && l vgcreate vg "$L1"
create -n root -L 4M vg && l vgchange --addtag "$(head -c 1000 /dev/zero | tr '\0' x)" vg
for round in $(seq 12); do
    l vgchange --addtag "round$round" vg
    [ "$round" -lt 4 ] || l vgchange --deltag "round$((round - 3))" vg
done
l vgchange --addtag last vg # its text begins at the end of the ring and ends at its beginning
keep wrapped

new 1
l pvcreate "$L1"
keep orphan
