#!/usr/bin/env bash
# Installs by name the system packages that the test suites need beside the toolchains, and prints the versions that apt
# resolves on this machine. A list by purpose; only what is missing is installed. Without root, or without apt, it names
# what is missing: the tests that need it then say that they were skipped.
#
# `setup-system.sh --list` prints purpose and package, one pair a line.
set -euo pipefail

# Purpose | the packages | a program of each that shows that it is there
purposes=(
    "small file systems on loop devices|e2fsprogs xfsprogs btrfs-progs|mkfs.ext4 mkfs.xfs mkfs.btrfs"
    "mount namespaces|util-linux mount|unshare mount"
    "nodes of test clusters|containerd runc containernetworking-plugins nftables iproute2|ctr runc /usr/lib/cni/bridge nft ip"
)

packages=() missing=()
for purpose in "${purposes[@]}"; do
    IFS='|' read -r name of programs <<<"$purpose"
    read -ra of <<<"$of"
    read -ra programs <<<"$programs"
    for i in "${!of[@]}"; do
        packages+=("${of[i]}")
        if [[ ${1:-} == --list ]]; then
            echo "$name: ${of[i]}"
        elif ! PATH=$PATH:/usr/sbin:/sbin command -v "${programs[i]}" >/dev/null; then
            missing+=("${of[i]}")
        fi
    done
done
[[ ${1:-} == --list ]] && exit

if ((${#missing[@]})); then
    if ((EUID)) || ! command -v apt-get >/dev/null; then
        echo "setup-system: missing: ${missing[*]}; tests that need them are skipped" >&2
        exit
    fi
    echo "setup-system: installing ${missing[*]}" >&2
    # A list of packages that is too old may name versions that are gone.
    install=(apt-get install --yes --no-install-recommends "${missing[@]}")
    export DEBIAN_FRONTEND=noninteractive
    "${install[@]}" >&2 || { apt-get update >&2 && "${install[@]}" >&2; }
fi
if command -v dpkg-query >/dev/null; then
    dpkg-query --show --showformat='${Package} ${Version}\n' "${packages[@]}" 2>/dev/null || true
fi
