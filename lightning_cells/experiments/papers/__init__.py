"""The papers' tables: what they say, what is run for them, and what came out."""
