"""What the book shows, from records and the papers' numbers; nothing here trains, and nothing loads torch."""
