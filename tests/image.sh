#!/usr/bin/env bash
# Builds the Dockerfile's image without a container engine, and tries it as an engine would run it: as its user, on a
# read-only root file system with its volumes, in namespaces of its own. `./dev image` runs it. It needs root.
#
#   tests/image.sh            compiles weir in the image's build stage, from what git has, with the host's Rust toolchain
#   tests/image.sh PROGRAM    has PROGRAM in the place of what the build stage compiles; all other steps are the same
#
# buildah runs the steps (chroot isolation). The two images that the Dockerfile is FROM are replaced with one that
# debootstrap makes from the Debian mirror of this host. Everything is below one folder in TMPDIR, about 3 GB, and is
# removed at the end.
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

say() { printf 'image: %s\n' "$*"; }
die() {
  printf 'image: %s\n' "$*" >&2
  exit 1
}

program=${1:-}
[[ -z $program ]] || program=$(realpath -e -- "$program")
((EUID == 0)) || die "namespaces and debootstrap need root: sudo tests/image.sh"
for tool in buildah debootstrap ffmpeg ffprobe curl ip nsenter unshare setpriv git; do
  command -v "$tool" >/dev/null || die "$tool is missing: apt-get install buildah debootstrap ffmpeg curl iproute2 util-linux git"
done

folder=$(mktemp -d "${TMPDIR:-/tmp}/weir-image.XXXXXX")
export TMPDIR=$folder
inside=''

build() { buildah --root "$folder/storage" --runroot "$folder/run" --storage-driver "$driver" "$@"; }

end() {
  local status=$?
  set +e
  [[ -z $inside ]] || kill -KILL "$inside" 2>/dev/null
  build rm --all >/dev/null 2>&1
  # What is still mounted below belongs to nobody any more.
  awk -v folder="$folder/" 'index($2, folder) == 1 {print $2}' /proc/mounts | sort -r | while read -r mounted; do
    umount --lazy "$mounted"
  done
  rm -rf --one-file-system -- "$folder"
  exit "$status"
}
trap end EXIT
trap 'exit 130' INT TERM HUP

# Layers share what they have in common where the kernel lets them.
mkdir "$folder/"{lower,upper,work,both}
driver=vfs
if unshare --mount mount -t overlay try \
  -o "lowerdir=$folder/lower,upperdir=$folder/upper,workdir=$folder/work" "$folder/both" 2>/dev/null; then
  driver=overlay
fi

# ---------------------------------------------------------------------------------------------------------------------
# The base: Debian of the release that the Dockerfile names.

release=$(sed -n 's/^ARG RUST=rust:.*-slim-\(.*\)$/\1/p' Dockerfile)
[[ -n $release ]] || die "the Dockerfile's ARG RUST names no Debian release"
# shellcheck disable=SC2016  # the dollars are apt-get's
mirror=$(apt-get indextargets --format '$(SITE) $(CODENAME)' | awk -v release="$release" '$2 == release && !n++ {print $1}')
say "base: Debian $release by debootstrap"
debootstrap --variant=minbase --include=ca-certificates "$release" "$folder/base" "${mirror:-http://deb.debian.org/debian}" \
  >"$folder/debootstrap.log" 2>&1 || {
  tail -n 20 "$folder/debootstrap.log"
  die "debootstrap failed"
}
rm -rf "$folder/base/var/cache/apt/archives/"*.deb
container=$(build from scratch)
build copy --quiet "$container" "$folder/base" / >/dev/null
rm -rf "$folder/base"
build commit --quiet "$container" base >/dev/null

# The image with the Rust toolchain: the same, with the host's toolchain mounted into it while it builds.
rust=/usr/local/rust
volumes=()
if [[ -n $program ]]; then
  # In the toolchain's place stands a program that puts there what is compiled already.
  mkdir -p "$folder/toolchain/bin"
  printf '#!/bin/sh\nset -e\n[ "$*" = "build --release --locked --bin weir" ]\nmkdir -p target/release\ncp %s/weir target/release/weir\n' \
    "$rust" >"$folder/toolchain/bin/cargo"
  chmod +x "$folder/toolchain/bin/cargo"
  cp -- "$program" "$folder/toolchain/weir"
  volumes+=(--volume "$folder/toolchain:$rust:ro")
else
  volumes+=(--volume "$(rustc --print sysroot):$rust:ro")
  # The certificates that this host reaches the crates with.
  volumes+=(--volume /etc/ssl/certs:/etc/ssl/certs:ro)
fi
build config --env "PATH=$rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
  --env CARGO_HOME=/usr/local/cargo "$container"
build commit --quiet "$container" rust >/dev/null
build rm "$container" >/dev/null

# ---------------------------------------------------------------------------------------------------------------------
# The image, from a clean checkout.

mkdir "$folder/checkout"
git archive HEAD | tar -x -C "$folder/checkout"
say "building the image of $(git rev-parse --short HEAD) (storage: $driver)"
began=$SECONDS
build bud --isolation chroot --pull-never --format docker --build-arg BASE=localhost/base --build-arg RUST=localhost/rust \
  "${volumes[@]}" --tag weir "$folder/checkout" >"$folder/build.log" 2>&1 || {
  tail -n 40 "$folder/build.log"
  die "the image does not build"
}
grep -E '^(\[./.\] )?STEP|^[a-z0-9-]+: (ok|.* instead)' "$folder/build.log" | sed 's/^/  /'
say "built in $((SECONDS - began)) s"

# What an engine reads from the image.
fact() { build inspect --type image --format "{{$1}}" weir; }
user=$(fact .Docker.Config.User)
[[ $user == 10001:10001 ]] || die "the image's user is $user"
home=$(fact .Docker.Config.WorkingDir)
mapfile -t command < <(fact 'range .Docker.Config.Entrypoint}}{{println .}}{{end}}{{range .Docker.Config.Cmd}}{{println .}}{{end' | grep .)
mapfile -t health < <(fact 'range .Docker.Config.Healthcheck.Test}}{{println .}}{{end' | grep . | tail -n +2)
mapfile -t environment < <(fact 'range .Docker.Config.Env}}{{println .}}{{end' | grep .)
[[ ${command[*]} == "weir serve "* && ${health[*]} == "weir health "* ]] || die "runs '${command[*]}', checks '${health[*]}'"

container=$(build from --pull-never weir)
root=$(build mount "$container")
say "size of the image: $(du -sm --one-file-system "$root" | cut -f1) MB"

# ---------------------------------------------------------------------------------------------------------------------
# Run it.

mkdir "$folder/records" "$folder/data"
chown 10001:10001 "$folder/records" "$folder/data"

# Runs within new namespaces: makes the file system as an engine does, and becomes the user.
cat >"$folder/enter" <<'ENTER'
set -eu
root=$1 home=$2 records=$3 data=$4
shift 4
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --bind "$records" "$root$home/records"
mount --bind "$data" "$root$home/data"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o nosuid,size=64k dev "$root/dev"
for device in null zero full random urandom; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mount -t tmpfs -o nosuid,nodev,size=64m tmp "$root/tmp"
ip link set lo up
exec chroot "$root" /usr/bin/env --ignore-environment --chdir="$home" HOME="$home" \
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
ENTER

say "running ${command[*]}"
began=$(date +%s%N)
unshare --mount --pid --net --ipc --uts --fork --kill-child=KILL bash "$folder/enter" "$root" "$home" \
  "$folder/records" "$folder/data" env "${environment[@]}" "${command[@]}" 2>"$folder/weir.log" &
outer=$!

failed() {
  sed 's/^/    /' "$folder/weir.log" | tail -n 40
  die "$*"
}
# The only child of unshare is the container's process 1.
for ((tries = 0; tries < 50; tries++)); do
  inside=$(pgrep --parent "$outer" || true)
  [[ -z $inside ]] || break
  sleep 0.1
done
[[ -n $inside ]] || failed "it did not start"
# within COMMAND...: in the container, as its user. net COMMAND...: this host's program in the container's network.
within() {
  nsenter --target "$inside" --mount --pid --net --root --wd -- setpriv --reuid 10001 --regid 10001 --clear-groups \
    env --ignore-environment "HOME=$home" PATH=/usr/local/bin:/usr/bin:/bin "$@"
}
net() { nsenter --target "$inside" --net -- "$@"; }
api() { net curl -q -sS --fail-with-body --noproxy '*' --max-time 20 "$@"; }

until within "${health[@]}" 2>/dev/null; do
  kill -0 "$inside" 2>/dev/null || failed "it has ended"
  (($(date +%s%N) - began < 30000000000)) || failed "it is not healthy after 30 s"
  sleep 0.1
done
took=$((($(date +%s%N) - began) / 1000000))
say "healthy after $took ms (load $(cut -d' ' -f1 /proc/loadavg))"
((took < 5000)) || failed "that is more than 5 s"

for pair in "${environment[@]}"; do
  grep -qzFx -- "$pair" "/proc/$inside/environ" || failed "it has no $pair"
done
status() { awk -v key="$1:" '$1 == key {print $2}' "/proc/$inside/status"; }
[[ $(status Uid) == 10001 && $(status Gid) == 10001 ]] || failed "it runs as $(status Uid):$(status Gid)"
[[ $(status CapEff) =~ ^0+$ && $(status CapBnd) =~ ^0+$ && $(status NoNewPrivs) == 1 ]] || failed "it has privileges"
for place in / /usr/local/bin /etc/weir "$home" "$home/.cache"; do
  ! nsenter --target "$inside" --mount --root -- touch "$place/written" 2>/dev/null || failed "$place can be written"
done
within touch "$home/records/written" && within rm "$home/records/written"
say "user 10001, no capabilities, root file system read-only, volumes writable"

# publish, play, record
net ffmpeg -nostdin -v error -re -f lavfi -i testsrc2=size=320x240:rate=30 -f lavfi -i sine=sample_rate=44100 \
  -c:v libx264 -preset ultrafast -pix_fmt yuv420p -bf 0 -g 30 -c:a aac -f flv rtmp://127.0.0.1:1935/live/cam \
  2>"$folder/publisher.log" &
publisher=$!
url=http://127.0.0.1:8081
session=''
for ((tries = 0; tries < 150; tries++)); do
  session=$(api --json '{"name": "cam"}' "$url/rest-api/stream/find" 2>/dev/null |
    python3 -c 'import json, sys; print(next((s["mediaSessionId"] for s in json.load(sys.stdin) if s["status"] == "PUBLISHING"), ""))' \
      2>/dev/null || true)
  [[ -z $session ]] || break
  sleep 0.1
done
[[ -n $session ]] || failed "the stream cannot be published"
api --json "{\"mediaSessionId\": \"$session\", \"config\": {\"fileTemplate\": \"first\"}}" "$url/rest-api/stream/startRecording" ||
  failed "no recording starts"
frames=$(net ffprobe -v error -read_intervals %+3 -select_streams v -count_packets -show_entries stream=nb_read_packets \
  -of csv=p=0 rtmp://127.0.0.1:1935/live/cam | tr -dc 0-9)
((frames >= 60)) || failed "a player got $frames frames in three seconds"
api --json '{"streamName": "cam"}' "$url/rest-api/stream/snapshot" >"$folder/snapshot" || failed "no snapshot"
pipeline=$(api "$url/rest-api/pipelines" | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["id"])')
api --output "$folder/graph" "$url/rest-api/pipelines/$pipeline/graph.svg" || failed "no picture of a pipeline"
grep -q '<svg' "$folder/graph" || failed "the picture of a pipeline is none"
api --insecure "https://127.0.0.1:8444/health/ready" >/dev/null || failed "no TLS, or not ready"
api --output "$folder/metrics" "$url/metrics" || failed "no metrics"
grep -q '^weir_viewers' "$folder/metrics" || failed "the metrics are none of weir's"
api --json "{\"mediaSessionId\": \"$session\"}" "$url/rest-api/stream/stopRecording" || failed "no recording stops"
# Another one runs when the container is stopped.
api --json "{\"mediaSessionId\": \"$session\", \"config\": {\"fileTemplate\": \"second\"}}" "$url/rest-api/stream/startRecording" ||
  failed "no second recording starts"
for ((tries = 0; tries < 100; tries++)); do
  [[ ! -s $folder/records/second.mp4.tmp ]] || break
  sleep 0.1
done

began=$(date +%s%N)
kill -TERM "$inside"
ended=0
wait "$outer" || ended=$?
inside=''
took=$((($(date +%s%N) - began) / 1000000))
wait "$publisher" 2>/dev/null || true
((ended == 0)) || failed "it ended with exit code $ended"
limit=$(sed -n 's/^shutdown_timeout *= *//p' conf/flashphoner.properties)
say "stopped after $took ms (shutdown_timeout: $limit)"
for name in first second; do
  seconds=$(ffprobe -v error -show_entries format=duration -of csv=p=0 "$folder/records/$name.mp4") ||
    failed "the recording $name cannot be read"
  ffmpeg -nostdin -v error -xerror -i "$folder/records/$name.mp4" -f null - || failed "the recording $name has errors"
  say "recording $name.mp4: $seconds s"
done
[[ -z $(find "$folder/records" -name '*.tmp') ]] || failed "a recording is unfinished"
bad=$(grep -E ' (WARN|ERROR) |CRITICAL' "$folder/weir.log" || true)
[[ -z $bad ]] || failed "the log has warnings: $bad"
say "played $frames frames in three seconds; all is well"
