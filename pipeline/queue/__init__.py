"""The directory queue: tickets, how they move, how they are repaired, and how jobs and workers look to others."""
