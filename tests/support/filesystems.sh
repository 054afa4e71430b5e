#!/bin/bash
# Run a command with fresh file systems of every kind the suite cares about.
#
#   filesystems.sh [--only "ext4 xfs"] COMMAND [ARGUMENT...]
#
# Mounts ext4, XFS, btrfs (data checksums) and tmpfs, plus btrfs-nocow, a directory of the btrfs without copy-on-write
# and so without data checksums, and exports
#   BOUNCEIO_TEST_FS="ext4:/path xfs:/path btrfs:/path btrfs-nocow:/path tmpfs:/path"
# The exit status is the command's.
#
# Nothing outlives the command, even after SIGKILL: the mounts belong to a private mount namespace, the loop devices
# detach with their last mount, and the backing files are unlinked as soon as they are attached. Any number of runs may
# go on at once. Without root, or where loop devices are refused, the reason is printed and what remains is
# tmpfs (a directory of /dev/shm) and the present directory's file system as "disk".
# shellcheck disable=SC2317 # stop and clean are reached through traps
set -u

program=$0
# Private, sparse, and large enough for XFS to choose the layout it has on real disks.
backing_bytes=3G
every_kind="ext4 xfs btrfs btrfs-nocow tmpfs"

say() { printf '%s: %s\n' "${program##*/}" "$*" >&2; }
die() { say "$*"; exit 2; }

wanted() { case " $kinds " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

# backing_directory: memory where there is some, because the suite fills these devices many times over.
backing_directory() {
    if [ -d /dev/shm ] && [ -w /dev/shm ]; then echo /dev/shm; else echo "${TMPDIR:-/tmp}"; fi
}

# attach NAME: a loop device over a new sparse file; prints the device.
attach() {
    local file device try
    file=$(mktemp "$(backing_directory)/bounceio-$1.XXXXXX") || return 1
    truncate -s "$backing_bytes" "$file" || { rm -f "$file"; return 1; }
    # Another process may take the free device between the look-up and the attachment.
    for try in 1 2 3 4 5 6 7 8 9 10; do
        device=$(losetup --show --find --direct-io=on --sector-size 512 "$file" 2>/dev/null) && break
        device=$(losetup --show --find "$file" 2>/dev/null) && break
        device=
        sleep "0.$try"
    done
    rm -f "$file"
    [ -n "$device" ] && echo "$device"
}

# mount_on_loop NAME MKFS...: make a file system on a new loop device and mount it on $root/NAME.
mount_on_loop() {
    local name=$1 device
    shift
    device=$(attach "$name") || { say "no $name: cannot attach a loop device"; return 1; }
    if ! "$@" "$device" >/dev/null; then
        say "no $name: $1 failed"
        losetup --detach "$device"
        return 1
    fi
    mkdir "$root/$name"
    if ! mount -t "$name" "$device" "$root/$name"; then
        say "no $name: mount failed"
        losetup --detach "$device"
        return 1
    fi
    # A device in use is detached by the kernel when the last mount of it is gone.
    losetup --detach "$device"
    chmod 1777 "$root/$name"
}

offer() { BOUNCEIO_TEST_FS="${BOUNCEIO_TEST_FS:+$BOUNCEIO_TEST_FS }$1:$2"; }

# Inside the private mount namespace: mount everything on $1, then become the command.
inside() {
    root=$1
    kinds=$2
    shift 2
    # Mount points in a file system of the namespace's own: the directory outside stays empty.
    mount -t tmpfs -o size=1m,mode=755 bounceio-mounts "$root" || die "cannot mount on $root"
    BOUNCEIO_TEST_FS=
    if wanted ext4 && mount_on_loop ext4 mkfs.ext4 -q -F -m 0 -i 65536 -E lazy_itable_init=0,lazy_journal_init=0; then
        offer ext4 "$root/ext4"
    fi
    if wanted xfs && mount_on_loop xfs mkfs.xfs -q -f; then
        offer xfs "$root/xfs"
    fi
    if { wanted btrfs || wanted btrfs-nocow; } && mount_on_loop btrfs mkfs.btrfs -q -f; then
        mkdir -m 1777 "$root/btrfs/checksummed" "$root/btrfs/nocow"
        wanted btrfs && offer btrfs "$root/btrfs/checksummed"
        if wanted btrfs-nocow && chattr +C "$root/btrfs/nocow"; then
            offer btrfs-nocow "$root/btrfs/nocow"
        fi
    fi
    if wanted tmpfs && mkdir "$root/tmpfs" && mount -t tmpfs -o size=2g bounceio-tmpfs "$root/tmpfs"; then
        offer tmpfs "$root/tmpfs"
    fi
    [ -n "$BOUNCEIO_TEST_FS" ] || die "no file system could be made"
    export BOUNCEIO_TEST_FS
    exec "$@"
}

# Without mounts: directories of file systems that are there anyway.
plain() {
    BOUNCEIO_TEST_FS=
    if wanted tmpfs && [ "$(stat -f -c %T /dev/shm 2>/dev/null)" = tmpfs ] && shm=$(mktemp -d /dev/shm/bounceio-fs.XXXXXX); then
        offer tmpfs "$shm"
    fi
    disk=$(mktemp -d "$PWD/bounceio-fs.XXXXXX") || die "cannot make a directory in $PWD"
    offer disk "$disk"
    export BOUNCEIO_TEST_FS
    run "$@"
}

# Run the command in a process group of its own, so that a signal to us ends all of it.
run() {
    set -m
    "$@" <&0 &
    child=$!
    set +m
    local status
    wait "$child"
    status=$?
    # A trapped signal ends the wait early; the command is on its way out, and its status is what counts.
    while kill -0 "$child" 2>/dev/null; do
        wait "$child"
        status=$?
    done
    return "$status"
}

child=
root=
shm=
disk=

stop() { [ -n "$child" ] && kill -TERM -- "-$child" 2>/dev/null; }

clean() {
    # What the command left running would keep the mounts, and with them the loop devices, alive.
    [ -n "$child" ] && kill -KILL -- "-$child" 2>/dev/null
    [ -n "$root" ] && rmdir "$root" 2>/dev/null
    [ -n "$shm" ] && rm -rf "$shm"
    [ -n "$disk" ] && rm -rf "$disk"
}

why_not() {
    if [ "$(id -u)" -ne 0 ]; then
        echo "not root"
    elif ! unshare --mount true 2>/dev/null; then
        echo "no private mount namespace"
    elif ! losetup --find >/dev/null 2>&1; then
        echo "no free loop device"
    fi
}

if [ "${1-}" = --inside ]; then
    shift
    inside "$@"
fi

kinds=$every_kind
if [ "${1-}" = --only ]; then
    [ $# -ge 2 ] || die "--only needs a list of file systems"
    kinds=$2
    shift 2
fi
for kind in $kinds; do
    case " $every_kind " in *" $kind "*) ;; *) die "unknown file system '$kind' (there are: $every_kind)" ;; esac
done
[ $# -ge 1 ] || die "usage: ${program##*/} [--only \"ext4 xfs\"] COMMAND [ARGUMENT...]"

trap clean EXIT
trap stop INT TERM HUP

reason=$(why_not)
if [ -n "$reason" ]; then
    say "no loop devices ($reason): testing on tmpfs and on the present directory only"
    plain "$@"
    exit
fi
root=$(mktemp -d "${TMPDIR:-/tmp}/bounceio-fs.XXXXXX") || die "cannot make a directory in ${TMPDIR:-/tmp}"
run unshare --mount "$0" --inside "$root" "$kinds" "$@"
exit
