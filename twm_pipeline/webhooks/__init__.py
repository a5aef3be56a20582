"""Deliveries of the vendors: whether they are genuine, how they are taken in, how they are asked for."""
