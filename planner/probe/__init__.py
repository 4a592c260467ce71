"""The machine in hand: measured into a hardware profile, and a small model run on it beside its prediction."""
