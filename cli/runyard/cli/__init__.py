"""The `runyard` command; needs the extra `runyard[cli]`."""
