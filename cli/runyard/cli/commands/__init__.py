"""The subcommands of `runyard`: one module per noun."""
