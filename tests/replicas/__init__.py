"""Local replicas of the sources and of picture hosts, good and hostile: real servers on loopback,
synthetic content.
"""
