"""The parts of the N1 benchmark: its pictures, its server, and the bare loop."""
