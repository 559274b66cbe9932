"""One module per thing that can happen. Each function takes the time and the news, and returns effects."""
