"""The running coordinator: settings, the loop that carries out effects, and the server process."""
