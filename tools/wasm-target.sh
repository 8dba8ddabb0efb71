#!/usr/bin/env bash
# Makes `cargo build --target wasm32-wasip2` (and wasip1) work on this machine and prints the
# environment to build with:
#
#     env=$(tools/wasm-target.sh) && eval "$env"
#
# What it tries, in this order:
#   1. The compiler at hand has the targets: nothing to do, nothing printed.
#   2. With WASM_RUSTUP_ADD=1: `rustup target add`. That changes the user's toolchain, so it
#      is done only when asked for.
#   3. On Debian and its relatives: the distribution's compiler, its standard library's source
#      (built once) and a WASI libc, unpacked into a private folder. Nothing is installed, no
#      root is needed, and apt's own lists stay as they are.
#
# Settings, by environment:
#   TARGETS             which targets                  (wasm32-wasip1 wasm32-wasip2)
#   WASM_TOOLCHAIN_DIR  the private folder             (~/.cache/sampan-wasm-toolchain)
#   WASM_FORCE_DEBIAN   1: step 3 even if not needed
#   WASI_LIBC_SUITE     the Debian suite whose wasi-libc has wasip2 (trixie)
#   DEBIAN_MIRROR       where that suite is found      (the mirror that apt already uses)
set -euo pipefail

targets=${TARGETS:-"wasm32-wasip1 wasm32-wasip2"}
dir=${WASM_TOOLCHAIN_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/sampan-wasm-toolchain}
suite=${WASI_LIBC_SUITE:-trixie}
root=$dir/usr

say() { echo "wasm-target: $*" >&2; }
fail() { say "$@"; exit 1; }

# Whether compiler $1 has a standard library for target $2.
has_target() {
  local libdir
  libdir=$("$1" --print target-libdir --target "$2" 2>/dev/null) && compgen -G "$libdir/libstd-*.rlib" >/dev/null
}

has_all() {
  local target
  for target in $targets; do has_target "$1" "$target" || return 1; done
}

# What the caller evaluates. The target directory is the toolchain's own, because cargo does
# not notice when a standard library was built anew.
print_environment() {
  echo "export RUSTC='$dir/rustc'"
  echo "export CARGO_TARGET_DIR='${CARGO_TARGET_DIR:-target}/wasm-$(cat "$dir/id")'"
}

if [ "${WASM_FORCE_DEBIAN:-0}" != 1 ]; then
  if has_all "${RUSTC:-rustc}"; then
    say "the compiler has $targets"
    exit 0
  fi
  if [ "${WASM_RUSTUP_ADD:-0}" = 1 ]; then
    # shellcheck disable=SC2086
    timeout 300 rustup target add $targets >&2
    has_all rustc || fail "rustup did not bring $targets"
    exit 0
  fi
  say "the compiler lacks a target; 'rustup target add $targets' is the usual way"
fi

if [ -x "$dir/rustc" ] && [ -f "$dir/id" ] && has_all "$dir/rustc"; then
  say "using $dir"
  print_environment
  exit 0
fi

command -v apt-get >/dev/null || fail "neither rustup's targets nor apt: run 'rustup target add $targets'"
host=$(rustc -vV | sed -n 's/^host: //p')
linkers=$(rustc --print sysroot)/lib/rustlib/$host/bin
[ -x "$linkers/wasm-component-ld" ] || fail "this rustc comes without wasm-component-ld (1.82 or later from rustup has it)"

# What is removed here was made here.
if [ -e "$dir" ] && [ ! -e "$dir/.made-by-wasm-target" ] && [ -n "$(ls -A "$dir")" ]; then
  fail "$dir holds something else: name another WASM_TOOLCHAIN_DIR"
fi
work=$dir/work
rm -rf "$dir"
mkdir -p "$work"/{debs,std/src} "$work"/{system,suite}/{lists/partial,cache/archives/partial}
touch "$dir/.made-by-wasm-target"

# Package lists in the private folder: $1 is whose.
apt_options() {
  printf -- '-q -o Dir::State::Lists=%s/lists -o Dir::Cache=%s/cache ' "$work/$1" "$work/$1"
  printf -- '-o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false'
}
# shellcheck disable=SC2207
system=($(apt_options system))
# shellcheck disable=SC2207
suite_only=($(apt_options suite) -o "Dir::Etc::SourceList=$work/suite.list"
  -o Dir::Etc::SourceParts=/dev/null -o Dir::State::status=/dev/null)

say "downloading compiler, standard library's source and WASI libc"
apt-get "${system[@]}" update >&2
mirror=${DEBIAN_MIRROR:-$(apt-get "${system[@]}" indextargets --format '$(REPO_URI)' | grep -v security | head -n 1)}
[ -n "$mirror" ] || fail "apt knows no mirror: set DEBIAN_MIRROR"
version=$(apt-cache "${system[@]}" madison rustc-web | awk -F'|' 'NR == 1 { gsub(/ /, "", $2); print $2 }')
[ -n "$version" ] || fail "apt knows no package rustc-web: run 'rustup target add $targets'"
series=$(echo "$version" | cut -d. -f1-2)
llvm=$(apt-cache "${system[@]}" show "rustc-web=$version" "libstd-rust-web-$series=$version" | grep -o 'libllvm[0-9]*' | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/suite.list"
(
  cd "$work/debs"
  apt-get "${system[@]}" download "rustc-web=$version" "rust-web-src=$version" "libstd-rust-web-dev=$version" \
    "libstd-rust-web-$series=$version" "$llvm" >&2
  apt-get "${suite_only[@]}" update >&2
  apt-get "${suite_only[@]}" download wasi-libc >&2
  sha256sum ./*.deb >"$dir/debs.sha256"
  for package in *.deb; do dpkg -x "$package" "$dir"; done
)

# The linkers are those of the compiler at hand; the compiler is called through a wrapper that
# finds its libraries.
mkdir -p "$root/lib/rustlib/$host/bin"
cp -a "$linkers/." "$root/lib/rustlib/$host/bin/"
multiarch=$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || gcc -dumpmachine)
cat >"$dir/rustc" <<WRAPPER
#!/bin/sh
LD_LIBRARY_PATH=$root/lib/$multiarch\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH} exec $root/bin/rustc "\$@"
WRAPPER
chmod +x "$dir/rustc"

# Libraries and C start files lie where rustup would have put them. The bitcode lets guests be
# optimised across crates.
say "building the standard library for $targets"
printf '[package]\nname = "std-build"\nversion = "0.0.0"\nedition = "2021"\n' >"$work/std/Cargo.toml"
: >"$work/std/src/lib.rs"
wanted=()
for target in $targets; do
  wanted+=(--target "$target")
  case $target in wasm32-wasip1) libc=$root/lib/wasm32-wasi ;; *) libc=$root/lib/$target ;; esac
  start=$root/lib/rustlib/$target/lib/self-contained
  mkdir -p "$start"
  cp "$libc"/crt1-command.o "$libc"/crt1-reactor.o "$libc"/libc.a "$start/"
done
(
  cd "$work/std"
  env -u RUSTC_WRAPPER -u CARGO_ENCODED_RUSTFLAGS \
    RUSTFLAGS="-C embed-bitcode=yes --remap-path-prefix=$dir=/toolchain --remap-path-prefix=$HOME/.cargo=/cargo" \
    RUSTC="$dir/rustc" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$work/std/target" \
    cargo build -q --release -Zbuild-std=std,panic_abort "${wanted[@]}" >&2
)
for target in $targets; do
  for library in "$work/std/target/$target/release/deps/"lib*.rlib; do
    case $library in
      */libstd_build-*) ;;
      *) cp "$library" "$root/lib/rustlib/$target/lib/" ;;
    esac
  done
done
has_all "$dir/rustc" || fail "the standard library did not land in $root"
date +%s >"$dir/id"
rm -rf "$work" "$root/src" "$root/lib/rustlib/src" "$root/share" "$root/bin/rustdoc"
say "ready: $dir ($(du -sh "$dir" | cut -f1))"
print_environment
