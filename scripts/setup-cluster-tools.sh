#!/usr/bin/env bash
# Builds the programs of the test cluster from the Go modules pinned in tests/cluster/tools, once per machine, and
# prints the folder that holds them: kube (etcd, the control plane, kubelet, kube-proxy and kubectl in one binary, with
# a link per name), helm and coredns. What is built depends only on the committed files, the flags below and Go's
# version, so it is kept in the user's cache under a hash of these. With --cached: prints the folder or fails, builds
# nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

kubernetes=v1.37.2
helm=v3.20.2
minutes="7 to 12"
disk_gib=7

say() { echo "setup-cluster-tools: $*" >&2; }
fail() { say "$*"; exit 1; }

command -v go >/dev/null || fail "Go is needed to build the test cluster (golang.org, 1.26 or later)"

# Nothing of the user's settings may reach the binaries, or the checksums would differ from machine to machine.
export CGO_ENABLED=0 GOOS=linux GOAMD64=v1 GOARM64=v8.0 GOEXPERIMENT='' GOGC=400 GOWORK=off
export GOFLAGS="-mod=readonly -modcacherw -buildvcs=false -trimpath"

source=$PWD/tests/cluster/tools
arch=$(go env GOARCH)
go_version=$(cd "$source/kube" && go env GOVERSION)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/walstorage/cluster-tools

# Kubernetes takes its version, and with it which versions it can emulate, from the linker; helm the version that
# charts are rendered for when no cluster is asked.
version=k8s.io/component-base/version
rules=helm.sh/helm/v3/pkg
declare -A package=([kube]=. [helm]=helm.sh/helm/v3/cmd/helm [coredns]=.)
declare -A set_by_linker=(
    [kube]="-X $version.gitVersion=$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=37
        -X $version.gitCommit=0000000000000000000000000000000000000000 -X $version.gitTreeState=clean
        -X $version.buildDate=2026-01-01T00:00:00Z"
    [helm]="-X helm.sh/helm/v3/internal/version.version=$helm
        -X $rules/lint/rules.k8sVersionMajor=1 -X $rules/lint/rules.k8sVersionMinor=37
        -X $rules/chartutil.k8sVersionMajor=1 -X $rules/chartutil.k8sVersionMinor=37"
    [coredns]=""
)

declare -A key
for tool in kube helm coredns; do
    key[$tool]=$( (
        echo "$tool ${package[$tool]} ${set_by_linker[$tool]} $GOFLAGS $go_version $arch"
        cd "$source/$tool" && find . -type f | LC_ALL=C sort | xargs sha256sum
    ) | sha256sum | cut -c1-16)
done
folder=$cache/tools-$(echo "${key[@]}" | sha256sum | cut -c1-16)
if [[ -e $folder ]]; then
    echo "$folder"
    exit
fi
[[ ${1:-} != --cached ]] || fail "not built yet; scripts/setup-cluster-tools.sh builds them ($minutes minutes)"

mkdir -p "$cache"
exec 9>"$cache/lock"
flock --nonblock 9 || { say "waiting for another build"; flock 9; }
if [[ -e $folder ]]; then # by that other build
    echo "$folder"
    exit
fi

free_gib=$(($(df --output=avail -k "$cache" | tail -n 1) / 1048576))
((free_gib >= disk_gib)) || fail "$disk_gib GiB of disk are needed below $cache; $free_gib are free"
say "building Kubernetes $kubernetes, helm $helm and coredns: $minutes minutes on two cores, once; up to 4 GiB of" \
    "memory and $disk_gib GiB of disk meanwhile, 0.3 GiB after"

# Kept when a build fails, so that the next one goes on where it ended.
work=$cache/build
export GOCACHE=$work/cache GOMODCACHE=$work/modules
mkdir -p "$work"

# Reads `go build -v`: a line for each package compiled. Anything else is an error of the compiler's.
show() {
    local tool=$1 total=$2 count=0 next=0 line
    while IFS= read -r line; do
        if [[ $line == *[[:space:]:]* ]]; then
            say "$tool: $line"
        else
            ((count += 1))
            if ((count * 10 >= next * total)); then
                say "$tool: $count of about $total packages, $SECONDS s"
                ((next += 1))
            fi
        fi
    done
}

for tool in kube helm coredns; do
    built=$cache/$tool-${key[$tool]}
    if [[ ! -e $built ]]; then
        cd "$source/$tool"
        say "$tool: fetching modules"
        total=$(go list -deps "${package[$tool]}" 2>/dev/null | wc -l) || fail "$tool: cannot fetch its modules: $(
            go list -deps "${package[$tool]}" 2>&1 >/dev/null | tail -n 3)"
        rm -rf "$work/out"
        nice -n 5 go build -v -ldflags "-s -w $(tr '\n' ' ' <<<"${set_by_linker[$tool]}")" -o "$work/out/$tool" \
            "${package[$tool]}" 2> >(show "$tool" "$total")
        expected=$(awk -v name="$tool" -v go="$go_version" -v arch="$arch" \
            '$2 == name && $3 == go && $4 == arch { print $1 }' "$source/SHA256SUMS")
        actual=$(sha256sum "$work/out/$tool" | cut -d' ' -f1)
        if [[ -z $expected ]]; then
            say "$tool: no checksum is committed for $go_version on $arch; this one has $actual"
        elif [[ $actual != "$expected" ]]; then
            fail "$tool: sha256 is $actual, tests/cluster/tools/SHA256SUMS says $expected"
        fi
        mv "$work/out" "$built"
    fi
done

rm -rf "$folder.new"
mkdir "$folder.new"
for tool in kube helm coredns; do
    ln -s "../$tool-${key[$tool]}/$tool" "$folder.new/$tool"
done
for name in etcd kubectl kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet; do
    ln -s kube "$folder.new/$name"
done
mv -T "$folder.new" "$folder"
rm -rf "$work"
say "done after $SECONDS s"
echo "$folder"
