"""What this machine has that tests go by: instruction sets, and glibc's malloc."""

import platform

import synops

GLIBC = platform.libc_ver()[0] == "glibc"


def _available(name: str) -> bool:
    before = synops.show_config().split("instruction set")[1].split()[0]
    try:
        synops.set_cpu_capability(name)
    except (ValueError, RuntimeError):
        return False
    synops.set_cpu_capability(before)
    return True


ISAS = [name for name in ("AVX512", "AVX2", "DEFAULT") if _available(name)]
