"""The attack: kills, refusals, damage and chance against queue, worker and trainings, and what must hold after each."""
