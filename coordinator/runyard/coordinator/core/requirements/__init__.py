"""What a run asks for: resources, label rules, and the layers that add up to its requirements."""
