"""What must hold when vendors, networks, processes and servers fail (the guarantees G1 to G12)."""
