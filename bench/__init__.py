"""Measurements that decisions rest on; the figures stand in docs/adr. Not part of the product."""
