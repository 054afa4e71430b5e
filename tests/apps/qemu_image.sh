#!/bin/bash
# A disk image as clouds have them (partition table, boot loader's gap, ext4 with a system's files) is written in both of QEMU's
# formats, by each of its ways of asking, and must come back as it was.
PATH=$PATH:/usr/sbin:/sbin
. "$(dirname "$0")/lib/app.sh"
needs qemu-img mkfs.ext4 e2fsck sfdisk cmp python3

partition_at=$((1024 * 1024))
image_mib=384
[ -z "${BOUNCEIO_TEST_FULL:-}" ] || image_mib=2048

# cloud_image PATH: made without a mount, once.
cloud_image() {
    local root=$app_scratch/root image=$app_scratch/image
    if [ -e "$image" ]; then
        cp --sparse=always "$image" "$1"
        return
    fi
    mkdir -p "$root"/{etc,usr/lib,usr/share,var/log,tmp}
    cp -a /etc/passwd /etc/group /etc/hostname /etc/os-release "$root/etc/" 2>/dev/null || true
    # As much of this system as fits well: programs and libraries, many small files.
    find -L /bin /lib/x86_64-linux-gnu /usr/lib -maxdepth 1 -type f -size -4M 2>/dev/null | head -n $((image_mib * 2)) |
        xargs -d '\n' cp -t "$root/usr/lib" 2>/dev/null || true
    cp -a /usr/share/common-licenses /usr/share/perl5 /usr/share/zoneinfo "$root/usr/share/" 2>/dev/null || true
    ln -s ../usr/lib "$root/tmp/link"
    truncate -s ${image_mib}M "$image"
    printf 'label: gpt\nstart=2048, type=linux, name=root\n' | sfdisk -q "$image"
    mkfs.ext4 -q -F -d "$root" -E offset=$partition_at "$image" $(((image_mib - 2) * 1024))k
    rm -rf "$root"
    cloud_image "$1"
}

# The file systems's own opinion of the image.
image_is_sound() {
    natively e2fsck -f -n "$1?offset=$partition_at"
    natively sfdisk --verify -q "$1"
}

through_qcow2_and_back() {
    local directory=$2
    cloud_image "$directory/source"
    image_is_sound "$directory/source"
    # -m 8 -W: eight requests at once, out of order.
    for options in "" "-m 8 -W"; do
        # shellcheck disable=SC2086 # two options
        shimmed qemu-img convert -f raw -O qcow2 -t none -T none $options "$directory/source" "$directory/image.qcow2"
        writes_were_bounced
        natively qemu-img check -q -f qcow2 "$directory/image.qcow2"
        natively qemu-img compare -f raw -F qcow2 "$directory/source" "$directory/image.qcow2"
        shimmed qemu-img compare -T none -f raw -F qcow2 "$directory/source" "$directory/image.qcow2"
        reads_were_verified
        # shellcheck disable=SC2086
        shimmed qemu-img convert -f qcow2 -O raw -t none -T none $options "$directory/image.qcow2" "$directory/back"
        writes_were_bounced
        reads_were_verified
        same_data "$directory/source" "$directory/back"
        scrub_is_clean "$directory"
        rm "$directory/image.qcow2" "$directory/back"
    done
}

# node AIO FORMAT PATH: for --image-opts.
node() { echo "driver=$2,file.driver=file,file.filename=$3,file.aio=$1,cache.direct=on,file.cache.direct=on"; }

by_each_way_of_asking() {
    local directory=$2 aio seconds
    cloud_image "$directory/source"
    for aio in threads native io_uring; do
        natively qemu-img create -q -f qcow2 "$directory/image.qcow2" ${image_mib}M
        natively qemu-img create -q -f raw "$directory/back" ${image_mib}M
        shimmed timeout 120 qemu-img convert -n -m 8 -W --image-opts --target-image-opts \
            "$(node $aio raw "$directory/source")" "$(node $aio qcow2 "$directory/image.qcow2")"
        writes_were_bounced
        seconds=$app_seconds
        natively qemu-img check -q -f qcow2 "$directory/image.qcow2"
        natively qemu-img compare -f raw -F qcow2 "$directory/source" "$directory/image.qcow2"
        shimmed timeout 120 qemu-img convert -n -m 8 -W --image-opts --target-image-opts \
            "$(node $aio qcow2 "$directory/image.qcow2")" "$(node $aio raw "$directory/back")"
        writes_were_bounced
        reads_were_verified
        same_data "$directory/source" "$directory/back"
        image_is_sound "$directory/back"
        scrub_is_clean "$directory"
        echo "* image of $image_mib MiB, $aio on $app_filesystem: to qcow2 $seconds s, back $app_seconds s"
        rm "$directory/back"
        [ $aio = io_uring ] || rm "$directory/image.qcow2"
    done
    # Somewhere in the first half of the image lie the files.
    damage_is_found "$directory/image.qcow2" $((16 * 1024 * 1024 + 77)) timeout 60 qemu-img convert -n --image-opts \
        --target-image-opts "$(node io_uring qcow2 "$directory/image.qcow2")" "$(node io_uring raw "$directory/source")"
    grep -q 'Input/output error' "$app_scratch/output" || { cat "$app_scratch/output" >&2; fail "qemu-img was not told EIO"; }
}

on_filesystems "ext4 xfs btrfs-nocow" through_qcow2_and_back
on_filesystems "ext4 xfs btrfs-nocow" by_each_way_of_asking
