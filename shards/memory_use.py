"""Amounts of memory, on the host and on the GPU."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Memory in bytes, on the host and on the GPU."""

    host_bytes: int = 0
    gpu_bytes: int = 0

    def __add__(self, other: "MemoryUse") -> "MemoryUse":
        return MemoryUse(
            host_bytes=self.host_bytes + other.host_bytes, gpu_bytes=self.gpu_bytes + other.gpu_bytes
        )

    def __sub__(self, other: "MemoryUse") -> "MemoryUse":
        return MemoryUse(
            host_bytes=self.host_bytes - other.host_bytes, gpu_bytes=self.gpu_bytes - other.gpu_bytes
        )

    def __str__(self) -> str:
        gpu = f" and {self.gpu_bytes / 2**20:,.1f} MiB on the GPU" if self.gpu_bytes else ""
        return f"{self.host_bytes / 2**20:,.1f} MiB{gpu}"


NOTHING = MemoryUse()
