"""The training loop and what it steps: optimizer, schedules, freezing, records."""
