#!/bin/sh
# Installs vx, a static binary, for Linux and macOS. The archive's SHA-256 must match the release's
# SHA256SUMS.
#
#   curl -fsSL https://github.com/roadrunner-server/velox/releases/latest/download/install.sh | sh
#   ... | sh -s -- --version v3.1.0 --dir /usr/local/bin
#
# Requires sh, tar, and curl or wget.
set -eu

usage() {
    cat <<'USAGE'
Installs vx.

  --version VERSION  a release, such as v3.1.0 (without it: the newest)
  --dir DIR          where vx goes (without it: $XDG_BIN_HOME, else ~/.local/bin)
  --from URL         a mirror of https://github.com/roadrunner-server/velox/releases
  --help             this
USAGE
}

fail() {
    echo "install vx: $*" >&2
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

target() {
    case "$(uname -s)/$(uname -m)" in
    Linux/x86_64 | Linux/amd64) echo x86_64-unknown-linux-musl ;;
    Linux/aarch64 | Linux/arm64) echo aarch64-unknown-linux-musl ;;
    Darwin/x86_64) echo x86_64-apple-darwin ;;
    Darwin/arm64) echo aarch64-apple-darwin ;;
    *) fail "there is no binary for $(uname -s) on $(uname -m); compile it: cargo install --locked --path crates/vx" ;;
    esac
}

download() { # URL FILE
    if has curl; then
        # A redirect must not lead from https to anything else.
        curl --fail --silent --show-error --location --retry 3 --proto-redir '=https' --output "$2" "$1"
    elif has wget; then
        wget -q -O "$2" "$1"
    else
        fail "curl or wget is needed"
    fi || fail "can't download $1"
}

sha256() { # FILE
    if has sha256sum; then
        sum=$(sha256sum "$1")
    elif has shasum; then
        sum=$(shasum -a 256 "$1")
    elif has openssl; then
        sum=$(openssl dgst -sha256 -r "$1")
    else
        fail "sha256sum, shasum or openssl is needed, to check what was downloaded"
    fi
    echo "${sum%% *}"
}

# A function called by the last line, so that a truncated download of this script does nothing.
main() {
    version=
    directory=${XDG_BIN_HOME:-${HOME:-}/.local/bin}
    from=https://github.com/roadrunner-server/velox/releases
    while [ $# -gt 0 ]; do
        case "$1" in
        --version | --dir | --from) [ $# -ge 2 ] || fail "$1 needs a value" ;;
        esac
        case "$1" in
        --version) version=v${2#v} && shift ;;
        --dir) directory=$2 && shift ;;
        --from) from=${2%/} && shift ;;
        --help | -h) usage && exit 0 ;;
        *) usage >&2 && fail "$1 isn't known" ;;
        esac
        shift
    done

    archive=vx-$(target).tar.gz
    if [ -n "$version" ]; then
        release=$from/download/$version
    else
        release=$from/latest/download
    fi

    mkdir -p "$directory" || fail "can't make $directory"
    # In the target directory, so that vx is installed by an atomic rename.
    work=$(mktemp -d "$directory/.vx.XXXXXX") || fail "can't write to $directory"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM

    download "$release/SHA256SUMS" "$work/SHA256SUMS"
    download "$release/$archive" "$work/$archive"
    expected=$(sed -n "s/^\([0-9a-f]\{64\}\) [ *]$archive\$/\1/p" "$work/SHA256SUMS")
    [ -n "$expected" ] || fail "$release/SHA256SUMS has no sum for $archive"
    found=$(sha256 "$work/$archive")
    [ "$found" = "$expected" ] ||
        fail "$archive isn't what was released: its SHA-256 is $found, and should be $expected"

    tar -xzf "$work/$archive" -C "$work" vx || fail "$archive has no vx in it"
    "$work/vx" --version >/dev/null || fail "this vx doesn't run here"
    mv -f "$work/vx" "$directory/vx" || fail "can't write $directory/vx"
    echo "$("$directory/vx" --version) is in $directory"
    case ":$PATH:" in
    *":$directory:"*) ;;
    *) echo "$directory isn't in your PATH: add it to your shell's profile" ;;
    esac
    has go || echo "vx needs Go, to compile servers: https://go.dev/dl/"
}

main "$@"
