#!/usr/bin/env bash
# Builds the guests and lays them out in dist/ (or in $OUT). The compiled files are committed,
# so only who changes a guest needs this. Digests differ between compilers; behaviour may not.
set -euo pipefail
cd "$(dirname "$0")"
out=${OUT:-$PWD/dist}
env=$(../tools/wasm-target.sh)
eval "$env"

# A stack of 128 KiB instead of 1 MiB keeps instances small. Paths of this machine stay out.
export RUSTFLAGS="-C link-arg=-zstack-size=131072 --remap-path-prefix=$PWD=/modules --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
cargo build --locked --release --target wasm32-wasip2 --workspace
cargo build --locked --release --target wasm32-wasip1 --package testguest

built=${CARGO_TARGET_DIR:-target}
mkdir -p "$out"
install -m 644 "$built/wasm32-wasip2/release/hello.wasm" "$out/hello.wasm"
install -m 644 "$built/wasm32-wasip2/release/hello_http.wasm" "$out/hello-http.wasm"
install -m 644 "$built/wasm32-wasip2/release/testguest.wasm" "$out/testguest.wasm"
install -m 644 "$built/wasm32-wasip1/release/testguest.wasm" "$out/testguest-core.wasm"
ls -l "$out"
