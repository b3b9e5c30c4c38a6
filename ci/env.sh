# What the scripts here share (sourced, never run): paths, messages, guards.
# shellcheck shell=bash disable=SC2034

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Built images and cargo's tools are kept here, never in the tree.
cache=${SARUS_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/sarus-ci}
# What Debian's packages put into sbin (losetup, useradd, mkfs) is needed under any PATH.
PATH=$PATH:$cache/cargo-tools/bin:/usr/sbin:/sbin

# One panic strategy for programs and tests: else cargo builds every dependency twice.
export CARGO_PROFILE_DEV_PANIC=unwind
export CARGO_TERM_PROGRESS_WHEN=never

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "$(basename "$0"): $*"
  exit 1
}

need_root() { [ "$(id -u)" = 0 ] || fail "must run as root: $1"; }

# FUSE is open to all users where udev runs; where the node has no udev, do as it would.
open_fuse() {
  [ -c /dev/fuse ] || fail "this machine has no /dev/fuse: load the kernel's fuse module"
  [ "$(stat -c %a /dev/fuse)" = 666 ] && return
  say "/dev/fuse has mode $(stat -c %a /dev/fuse): setting 0666, as udev does where it runs"
  chmod 0666 /dev/fuse
}

# free_port: a TCP port of the loopback interface that nobody listens on now.
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# start_registry DIR: a registry on the loopback interface with its storage in DIR.
# Sets registry (HOST:PORT) and registry_pid; its log is DIR/log.
start_registry() {
  local port
  port=$(free_port)
  registry=127.0.0.1:$port
  mkdir -p "$1/storage"
  cat > "$1/config.yml" <<YAML
version: 0.1
log: {level: info}
storage: {filesystem: {rootdirectory: $1/storage}}
http: {addr: "$registry"}
YAML
  docker-registry serve "$1/config.yml" > "$1/log" 2>&1 &
  registry_pid=$!
  curl --silent --fail --retry 50 --retry-connrefused --retry-delay 0 --retry-max-time 20 \
    --output "$1/answer" "http://$registry/v2/" || fail "the registry does not start: $(cat "$1/log")"
}

# push LAYOUT:TAG NAME: copies an image of an OCI layout to the registry of start_registry.
push() {
  skopeo --insecure-policy copy --quiet --dest-tls-verify=false "oci:$1" "docker://$registry/$2" >&2
}

# allow_insecure HOME USER: HOME's registries.conf says that the registry speaks plain HTTP.
allow_insecure() {
  install -d -o "$2" -m 0755 "$1/.config" "$1/.config/containers"
  printf '[[registry]]\nlocation = "%s"\ninsecure = true\n' "$registry" > "$1/.config/containers/registries.conf"
  chown "$2" "$1/.config/containers/registries.conf"
}
