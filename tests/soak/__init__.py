"""Everything at once, for long: searches, events, moves, flips, kills, abuse and bad releases."""
