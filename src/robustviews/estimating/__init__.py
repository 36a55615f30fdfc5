"""What a study will take, by measuring a minute of it."""
