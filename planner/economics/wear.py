"""What writing to a drive costs, and how a drive is charged once for both room and wear.

A drive that costs P over its life, of capacity C, life L hours and endurance E = DWPD * C * days, is used up by what first
reaches one: capacity-time, the sum of b*T / (C*L) over all that is kept (b bytes for T hours), or wear, the sum of b / E over
all that is written. For like entries the drives needed are the larger of the two sums, so an entry costs
``b * max(T * P/(C*L), P/E)``: adding both would buy the drive twice. They are equal at T = C*L/E, 24 hours for one drive
write a day over the whole life.
"""

from __future__ import annotations

DAYS_PER_YEAR = 365.0


def writes_per_life(dwpd: float, warranty_years: float) -> float:
    """How often the whole capacity may be written: drive writes a day, over the days they are warranted for."""
    return dwpd * DAYS_PER_YEAR * warranty_years


def usd_per_gb_written(life_usd_per_gb: float, dwpd: float, warranty_years: float) -> float:
    """P/E: USD per 1e9 bytes written, from the drive's cost over its life in USD per 1e9 bytes of capacity."""
    return life_usd_per_gb / writes_per_life(dwpd, warranty_years)


def drive_usd_per_gb(hours: float, usd_per_gb_hour: float, usd_per_gb_written: float) -> float:
    """USD per 1e9 bytes written once and kept for ``hours``: the larger of capacity-time and wear."""
    return max(hours * usd_per_gb_hour, usd_per_gb_written)


def hours_of_equal_charge(usd_per_gb_hour: float, usd_per_gb_written: float) -> float:
    """How long an entry must stay before its room costs more than its write."""
    return usd_per_gb_written / usd_per_gb_hour


def drive_writes_per_day(bytes_per_day: float, capacity_bytes: float) -> float:
    """What a stream of writes asks of drives of that capacity, to be held against their DWPD."""
    return bytes_per_day / capacity_bytes
