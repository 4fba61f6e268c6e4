"""Studies whose tables stand in docs/: each is a command that regenerates its own."""
