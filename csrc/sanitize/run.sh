#!/usr/bin/env bash
# Builds the checks of this folder with AddressSanitizer and UndefinedBehaviorSanitizer and runs
# them for every instruction set that this processor has; for arm64 without the sanitizers, where a
# cross compiler and an emulator are installed. PYTHON: an interpreter with torch, for its headers.
set -euo pipefail
TORCH=$("${PYTHON:-python3}" -c \
  'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])')
cd "$(dirname "$0")/.."
BUILD=$(mktemp -d)
trap 'rm -rf "$BUILD"' EXIT
CXX=${CXX:-g++}
ARM=aarch64-linux-gnu-g++

# All kernels of a family in one call for each instruction set, by the flags of setup.py: the
# headers are read once, and no call is so long that the others wait for it.
FAMILIES="hebbian spiking sparse entropy common"
for family in $FAMILIES; do
  find "$family" -name '*.inc' | sort | sed 's|.*|#include "&"|' >"$BUILD/$family.cpp"
done
# The stand-ins come first; grains are small, so that small shapes are split, too.
FLAGS="-std=c++20 -O1 -Wno-psabi -DSYNOPS_GRAIN=256 -Isanitize/stand_in -I. -isystem $TORCH/include"
# AddressSanitizer sees what null and object-size would.
SANITIZE="-g1 -fsanitize=address,undefined -fno-sanitize=null,object-size -fno-sanitize-recover=all"

# Prints the commands that compile all objects, one a line, the longest first. $1: folder, $2:
# compiler, $3: flags of what is checked, $4: of the checks; standard input: instruction sets.
commands() {
  local isa flags family source
  while read -r isa flags; do
    for family in $FAMILIES; do
      echo "$2 $FLAGS $3 $flags -DCPU_CAPABILITY=$isa -DCPU_CAPABILITY_$isa" \
        "-c $BUILD/$family.cpp -o $1/$family.$isa.o"
    done
  done
  for source in sanitize/*.cpp; do echo "$2 $FLAGS $4 -c $source -o $1/$(basename "$source").o"; done
  for source in sparse/{product,gradients,row_blocks_product}.cpp common/isa.cpp; do
    echo "$2 $FLAGS $3 -DTORCH_TARGET_VERSION=0x020b000000000000" \
      "-c $source -o $1/$(basename "$source").o"
  done
}
in_parallel() { xargs -P "$(nproc)" -I{} sh -c '{}'; }

mkdir "$BUILD/host" "$BUILD/arm64"
{
  echo DEFAULT
  if [ "$(uname -m)" = x86_64 ]; then
    echo AVX2 -mavx2 -mfma -mf16c
    echo AVX512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
  fi
} >"$BUILD/sets"
commands "$BUILD/host" "$CXX" "$SANITIZE" -fsanitize=address <"$BUILD/sets" >"$BUILD/compile"
# What torch's own libraries keep until exit is not ours to report.
sed "s|\([A-Z0-9]*\).*|ASAN_OPTIONS=detect_leaks=0 $BUILD/host/driver \1|" "$BUILD/sets" >"$BUILD/run"
emulated=no
if command -v "$ARM" >/dev/null && command -v qemu-aarch64 >/dev/null; then
  emulated=yes
  echo DEFAULT | commands "$BUILD/arm64" "$ARM" "" "" >>"$BUILD/compile"
  # The kernels alone: what is made of them does not depend on the processor, and this is slow.
  echo "echo arm64, emulated: && qemu-aarch64 $BUILD/arm64/driver DEFAULT kernels" >>"$BUILD/run"
fi

in_parallel <"$BUILD/compile"
"$CXX" $SANITIZE "$BUILD"/host/*.o -o "$BUILD/host/driver" \
  -L"$TORCH/lib" -ltorch_cpu -lc10 -Wl,-rpath,"$TORCH/lib"
if [ $emulated = yes ]; then "$ARM" -static "$BUILD"/arm64/*.o -o "$BUILD/arm64/driver"; fi
in_parallel <"$BUILD/run"
