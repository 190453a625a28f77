"""Energy of this machine between two moments, where its counters can be read."""

from __future__ import annotations

from pathlib import Path

COUNTERS = Path("/sys/class/powercap")


class EnergyMeter:
    """Joules of the CPU packages (Linux powercap) and of NVIDIA cards (NVML) since it was made."""

    def __init__(self, counters: Path = COUNTERS) -> None:
        self.counters = counters
        self.start = self._read()

    def joules(self) -> float | None:
        """None where no counter can be read: many virtual machines have none."""
        now, total = self._read(), 0.0
        if not self.start:
            return None
        for name, (value, span) in now.items():
            if name in self.start:
                moved = value - self.start[name][0]
                total += moved if moved >= 0 else moved + span  # a counter that began anew
        return total

    def _read(self) -> dict[str, tuple[float, float]]:
        """Counter -> (joules, joules at which it begins anew)."""
        found = {}
        for folder in sorted(self.counters.glob("intel-rapl:?")):
            try:
                value, span = (int((folder / n).read_text()) for n in ("energy_uj", "max_energy_range_uj"))
            except OSError:  # readable by root alone on most machines
                continue
            found[folder.name] = (value / 1e6, span / 1e6)
        return {**found, **_cards()}


def _cards() -> dict[str, tuple[float, float]]:
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        energies = [pynvml.nvmlDeviceGetTotalEnergyConsumption(h) for h in handles]
    except Exception:  # NVML raises its own kinds, and there may be no card, no driver, no library
        return {}
    return {f"card {i}": (e / 1e3, 0.0) for i, e in enumerate(energies)}
