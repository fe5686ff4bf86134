"""How accurate and how fast: measured against the truth, and against what the machine could do at best."""
