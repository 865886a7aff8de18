#!/usr/bin/env bash
# Builds clients that are newer than what this machine has, from Debian unstable's packages, into DIRECTORY/bin.
# As root: it makes a Debian in DIRECTORY/unstable, of some 3 GB, within five minutes; again, it uses the one it has made.
set -euo pipefail
directory=$(realpath -m "${1:?the directory}")
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
here=$(cd "$(dirname "$0")" && pwd)
root=$directory/unstable
mkdir -p "$directory/bin"
if [ ! -x "$root/usr/bin/go" ]; then
  debootstrap --variant=minbase --include=ca-certificates,golang-go,golang-google-grpc-dev unstable "$root" "$mirror"
fi
for client in h2get grpcget; do
  rm -rf "$root/src/$client"
  mkdir -p "$root/src"
  cp -r "$here/$client" "$root/src/$client"
  # Without /proc in there, go does not find out where it lives.
  chroot "$root" env -C "/src/$client" HOME=/root GOROOT=/usr/lib/go GO111MODULE=off GOPATH=/usr/share/gocode CGO_ENABLED=0 GOTELEMETRY=off \
    go build -o "/src/$client.bin" .
  cp "$root/src/$client.bin" "$directory/bin/$client"
done
