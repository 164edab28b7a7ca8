"""The parts of the N1 benchmark: its images, its server, and the bare loop."""
