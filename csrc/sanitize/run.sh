#!/usr/bin/env bash
# Builds driver.cpp with AddressSanitizer and UndefinedBehaviorSanitizer for every instruction set that
# this processor has, and runs it; for arm64 without the sanitizers, where a cross compiler and an
# emulator are installed. PYTHON: an interpreter with torch, for its headers.
set -euo pipefail
TORCH=$("${PYTHON:-python3}" -c \
  'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])')
cd "$(dirname "$0")/.."
BUILD=$(mktemp -d)
trap 'rm -rf "$BUILD"' EXIT

build_and_run() { # instruction set, flags
  "${CXX:-g++}" -std=c++20 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -Wno-psabi \
    -I. -isystem "$TORCH/include" "-DCPU_CAPABILITY=$1" "-DCPU_CAPABILITY_$1" ${2:-} \
    sanitize/driver.cpp -o "$BUILD/$1" -L"$TORCH/lib" -ltorch_cpu -lc10 -Wl,-rpath,"$TORCH/lib"
  echo "$1"
  # What torch's own libraries keep until exit is not ours to report.
  ASAN_OPTIONS=detect_leaks=0 "$BUILD/$1"
}

build_and_run DEFAULT &
portable=$!
if [ "$(uname -m)" = x86_64 ]; then
  if grep -qw avx2 /proc/cpuinfo; then build_and_run AVX2 "-mavx2 -mfma -mf16c"; fi
  if grep -qw avx512vl /proc/cpuinfo; then
    build_and_run AVX512 "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c"
  fi
fi
wait "$portable"
if command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null; then
  echo "arm64 (emulated)"
  aarch64-linux-gnu-g++ -std=c++20 -O2 -static -Wno-psabi -I. -isystem "$TORCH/include" \
    -DCPU_CAPABILITY=DEFAULT -DCPU_CAPABILITY_DEFAULT sanitize/driver.cpp -o "$BUILD/arm64"
  qemu-aarch64 "$BUILD/arm64"
fi
